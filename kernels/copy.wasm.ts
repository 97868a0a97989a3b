// Strided copy on the cpu device (contract and reference: copy.ts).

import { word } from "./cpu/simd.wasm";

/** Elements of one task. */
const ELEMENTS: i32 = 16384;

export function stridedCopy(args: usize, task: i32, scratch: usize): void {
  // args: x, y, xAt, yAt, sizes n0 ... n5, input strides xs0 ... xs5, output strides ys0 ... ys5
  const sizes = args + 16, xStrides = args + 40, yStrides = args + 64;
  let total = 1;
  for (let a = 0; a < 6; a++) total *= <i32>word(sizes, a);
  let at = task * ELEMENTS;
  const end = min(total, at + ELEMENTS);
  const n = <i32>word(sizes, 5);
  const xStep = <usize>word(xStrides, 5) << 2, yStep = <usize>word(yStrides, 5) << 2;
  // scratch keeps the odometer of the six axes
  let x = <usize>word(args, 2), y = <usize>word(args, 3);
  let rest = at;
  for (let a = 5; a >= 0; a--) {
    const size = <i32>word(sizes, a), i = rest % size;
    rest /= size;
    store<i32>(scratch + (<usize>a << 2), i);
    x += <usize>i * word(xStrides, a);
    y += <usize>i * word(yStrides, a);
  }
  let from = <usize>word(args, 0) + (x << 2), to = <usize>word(args, 1) + (y << 2);
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
      from += <usize>word(xStrides, a) << 2;
      to += <usize>word(yStrides, a) << 2;
      if (i < <i32>word(sizes, a)) {
        store<i32>(scratch + (<usize>a << 2), i);
        break;
      }
      from -= <usize>i * (<usize>word(xStrides, a) << 2);
      to -= <usize>i * (<usize>word(yStrides, a) << 2);
      store<i32>(scratch + (<usize>a << 2), 0);
    }
  }
}

/**
 * The adjoint of stridedCopy. Axes that do not repeat number the elements of x, in the order of the axes; their odometer
 * and that of the repeated axes stand in scratch as rows of sizes, positions, input strides and output strides.
 */
export function stridedCopyGrad(args: usize, task: i32, scratch: usize): void {
  const sizes = args + 16, xStrides = args + 40, yStrides = args + 64;
  // Owned axes at 0 ... 5, repeated ones at 6 ... 11 of each row.
  const size = scratch, place = scratch + 48, xStep = scratch + 96, yStep = scratch + 144;
  let owned = 0, repeated = 0, total = 1, repeats = 1;
  for (let a = 0; a < 6; a++) {
    const n = <i32>word(sizes, a), xs = word(xStrides, a);
    const repeat = xs == 0 && n > 0;
    const at = <usize>(repeat ? 6 + repeated++ : owned++) << 2;
    store<i32>(size + at, n);
    store<i32>(place + at, 0);
    store<u32>(xStep + at, xs << 2);
    store<u32>(yStep + at, word(yStrides, a) << 2);
    if (repeat) repeats *= n;
    else total *= n;
  }
  let e = task * ELEMENTS;
  const end = min(total, e + ELEMENTS);
  let to = <usize>word(args, 1) + (<usize>word(args, 2) << 2);
  let from = <usize>word(args, 0) + (<usize>word(args, 3) << 2);
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
