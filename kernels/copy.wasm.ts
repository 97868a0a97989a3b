// Strided copy on the cpu device (contract and reference: copy.ts).

import { StridedCopy, StridedCopyGrad } from "./arguments";

/** Elements of one task. */
const ELEMENTS: i32 = 16384;

/** Entry of an axis in a row of six sizes or strides. */
@inline
function axis(row: usize, a: i32): i32 {
  return load<i32>(row + (<usize>a << 2));
}

export function stridedCopy(args: StridedCopy, task: i32, scratch: usize): void {
  const base = changetype<usize>(args), sizes = base + offsetof<StridedCopy>("n0");
  const xStrides = base + offsetof<StridedCopy>("xs0"), yStrides = base + offsetof<StridedCopy>("ys0");
  let total = 1;
  for (let a = 0; a < 6; a++) total *= axis(sizes, a);
  let at = task * ELEMENTS;
  const end = min(total, at + ELEMENTS);
  const n = axis(sizes, 5);
  const xStep = <usize>axis(xStrides, 5) << 2, yStep = <usize>axis(yStrides, 5) << 2;
  // scratch keeps the odometer of the six axes
  let x = <usize>args.xAt, y = <usize>args.yAt;
  let rest = at;
  for (let a = 5; a >= 0; a--) {
    const size = axis(sizes, a), i = rest % size;
    rest /= size;
    store<i32>(scratch + (<usize>a << 2), i);
    x += <usize>i * <usize>axis(xStrides, a);
    y += <usize>i * <usize>axis(yStrides, a);
  }
  let from = args.x + (x << 2), to = args.y + (y << 2);
  while (at < end) {
    const first = load<i32>(scratch, 20), run = min(n - first, end - at);
    let source = from, target = to;
    if (xStep == 4 && yStep == 4 && run >= 16) memory.copy(target, source, <usize>run << 2);
    else {
      for (let i = 0; i < run; i++) {
        store<u32>(target, load<u32>(source));
        source += xStep;
        target += yStep;
      }
    }
    at += run;
    // Back to the start of the innermost axis, then one step of the next.
    from -= <usize>first * xStep;
    to -= <usize>first * yStep;
    store<i32>(scratch, 0, 20);
    for (let a = 4; a >= 0; a--) {
      const i = load<i32>(scratch + (<usize>a << 2)) + 1;
      from += <usize>axis(xStrides, a) << 2;
      to += <usize>axis(yStrides, a) << 2;
      if (i < axis(sizes, a)) {
        store<i32>(scratch + (<usize>a << 2), i);
        break;
      }
      from -= <usize>i * (<usize>axis(xStrides, a) << 2);
      to -= <usize>i * (<usize>axis(yStrides, a) << 2);
      store<i32>(scratch + (<usize>a << 2), 0);
    }
  }
}

/**
 * The adjoint of stridedCopy. Axes that do not repeat number the elements of x, in the order of the axes; their odometer
 * and that of the repeated axes stand in scratch as rows of sizes, positions, input strides and output strides.
 */
export function stridedCopyGrad(args: StridedCopyGrad, task: i32, scratch: usize): void {
  const base = changetype<usize>(args), sizes = base + offsetof<StridedCopyGrad>("n0");
  const xStrides = base + offsetof<StridedCopyGrad>("xs0"), yStrides = base + offsetof<StridedCopyGrad>("ys0");
  // Owned axes at 0 ... 5, repeated ones at 6 ... 11 of each row.
  const size = scratch, place = scratch + 48, xStep = scratch + 96, yStep = scratch + 144;
  let owned = 0, repeated = 0, total = 1, repeats = 1;
  for (let a = 0; a < 6; a++) {
    const n = axis(sizes, a), xs = axis(xStrides, a);
    const repeat = xs == 0 && n > 0;
    const at = <usize>(repeat ? 6 + repeated++ : owned++) << 2;
    store<i32>(size + at, n);
    store<i32>(place + at, 0);
    store<i32>(xStep + at, xs << 2);
    store<i32>(yStep + at, axis(yStrides, a) << 2);
    if (repeat) repeats *= n;
    else total *= n;
  }
  let e = task * ELEMENTS;
  const end = min(total, e + ELEMENTS);
  let to = args.dx + (<usize>args.xAt << 2);
  let from = args.dy + (<usize>args.yAt << 2);
  let rest = e;
  for (let a = owned - 1; a >= 0; a--) {
    const at = <usize>a << 2;
    const n = load<i32>(size + at), i = rest % n;
    rest /= n;
    store<i32>(place + at, i);
    to += <usize>i * load<u32>(xStep + at);
    from += <usize>i * load<u32>(yStep + at);
  }
  for (; e < end; e++) {
    let sum = load<f32>(from);
    let source = from;
    for (let r = repeats - 1; r > 0; r--) {
      for (let a = 5 + repeated; a > 5; a--) {
        const at = <usize>a << 2;
        const i = load<i32>(place + at) + 1;
        source += load<u32>(yStep + at);
        if (i < load<i32>(size + at)) {
          store<i32>(place + at, i);
          break;
        }
        source -= <usize>i * load<u32>(yStep + at);
        store<i32>(place + at, 0);
      }
      sum += load<f32>(source);
    }
    for (let a = 5 + repeated; a > 5; a--) store<i32>(place + (<usize>a << 2), 0);
    store<f32>(to, load<f32>(to) + sum);
    for (let a = owned - 1; a >= 0; a--) {
      const at = <usize>a << 2;
      const i = load<i32>(place + at) + 1;
      to += load<u32>(xStep + at);
      from += load<u32>(yStep + at);
      if (i < load<i32>(size + at)) {
        store<i32>(place + at, i);
        break;
      }
      to -= <usize>i * load<u32>(xStep + at);
      from -= <usize>i * load<u32>(yStep + at);
      store<i32>(place + at, 0);
    }
  }
}
