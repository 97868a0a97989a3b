// Strided copy on the cpu device (contract and reference: copy.ts).
//
// Axes may be walked in any order. The innermost one should be long, or the odometer of the others costs more than the copies:
// a pixel shuffle comes with two pixels innermost, an image with three channels.

import { StridedCopy, StridedCopyGrad } from "./arguments";

/** Elements of one task. */
const ELEMENTS: i32 = 16384;
/** An axis of this many elements is long. */
const LONG: i32 = 8;
/** Axes, and bytes of a row of one number for each. */
const AXES: i32 = 6;
const ROW: usize = <usize>AXES << 2;

/** Entry of an axis in a row of sizes, places or strides. */
@inline
function axis(row: usize, a: i32): i32 {
  return load<i32>(row + (<usize>a << 2));
}

@inline
function swap(row: usize, a: i32, b: i32): void {
  const value = axis(row, a);
  store<i32>(row + (<usize>a << 2), axis(row, b));
  store<i32>(row + (<usize>b << 2), value);
}

/** Of the first `count` axes, brings the one with the shortest steps among the long ones, else the longest, to the end. */
function arrange(sizes: usize, xSteps: usize, ySteps: usize, count: i32): void {
  let best = count - 1;
  for (let a = count - 2; a >= 0; a--) {
    const n = axis(sizes, a), least = axis(sizes, best);
    const steps = <u32>(axis(xSteps, a) + axis(ySteps, a)), before = <u32>(axis(xSteps, best) + axis(ySteps, best));
    if (least < LONG ? n > least : n >= LONG && steps < before) best = a;
  }
  if (best == count - 1) return;
  swap(sizes, best, count - 1);
  swap(xSteps, best, count - 1);
  swap(ySteps, best, count - 1);
}

export function stridedCopy(args: StridedCopy, task: i32, scratch: usize): void {
  const base = changetype<usize>(args), sizes = base + offsetof<StridedCopy>("n0");
  const xStrides = base + offsetof<StridedCopy>("xs0"), yStrides = base + offsetof<StridedCopy>("ys0");
  // Rows in scratch: sizes, steps in bytes, and places, the odometer.
  const size = scratch, xSteps = size + ROW, ySteps = xSteps + ROW, place = ySteps + ROW;
  let total = 1;
  for (let a = 0; a < AXES; a++) {
    const at = <usize>a << 2;
    total *= axis(sizes, a);
    store<i32>(size + at, axis(sizes, a));
    store<i32>(xSteps + at, axis(xStrides, a) << 2);
    store<i32>(ySteps + at, axis(yStrides, a) << 2);
  }
  arrange(size, xSteps, ySteps, AXES);
  let at = task * ELEMENTS;
  const end = min(total, at + ELEMENTS);
  const n = axis(size, AXES - 1), xStep = <usize>axis(xSteps, AXES - 1), yStep = <usize>axis(ySteps, AXES - 1);
  let from = args.x + (<usize>args.xAt << 2), to = args.y + (<usize>args.yAt << 2);
  let rest = at;
  for (let a = AXES - 1; a >= 0; a--) {
    const length = axis(size, a), i = rest % length;
    rest /= length;
    store<i32>(place + (<usize>a << 2), i);
    from += <usize>i * <usize>axis(xSteps, a);
    to += <usize>i * <usize>axis(ySteps, a);
  }
  while (at < end) {
    const first = axis(place, AXES - 1), run = min(n - first, end - at);
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
    store<i32>(place + (<usize>(AXES - 1) << 2), 0);
    for (let a = AXES - 2; a >= 0; a--) {
      const i = axis(place, a) + 1;
      from += axis(xSteps, a);
      to += axis(ySteps, a);
      if (i < axis(size, a)) {
        store<i32>(place + (<usize>a << 2), i);
        break;
      }
      from -= <usize>i * <usize>axis(xSteps, a);
      to -= <usize>i * <usize>axis(ySteps, a);
      store<i32>(place + (<usize>a << 2), 0);
    }
  }
}

/**
 * The adjoint of stridedCopy. Axes that do not repeat number the elements of x; their odometer and that of the repeated axes
 * stand in scratch as rows of sizes, places, input steps and output steps.
 */
export function stridedCopyGrad(args: StridedCopyGrad, task: i32, scratch: usize): void {
  const base = changetype<usize>(args), sizes = base + offsetof<StridedCopyGrad>("n0");
  const xStrides = base + offsetof<StridedCopyGrad>("xs0"), yStrides = base + offsetof<StridedCopyGrad>("ys0");
  // Owned axes at 0 ... 5, repeated ones at 6 ... 11 of each row.
  const size = scratch, place = scratch + 48, xStep = scratch + 96, yStep = scratch + 144;
  let owned = 0, repeated = 0, total = 1, repeats = 1;
  for (let a = 0; a < AXES; a++) {
    const n = axis(sizes, a), xs = axis(xStrides, a);
    const repeat = xs == 0 && n > 0;
    const at = <usize>(repeat ? AXES + repeated++ : owned++) << 2;
    store<i32>(size + at, n);
    store<i32>(place + at, 0);
    store<i32>(xStep + at, xs << 2);
    store<i32>(yStep + at, axis(yStrides, a) << 2);
    if (repeat) repeats *= n;
    else total *= n;
  }
  if (owned == 0) {
    // One element, which everything is added to.
    store<i32>(size, 1);
    store<i32>(xStep, 0);
    store<i32>(yStep, 0);
    store<i32>(place, 0);
    owned = 1;
  }
  arrange(size, xStep, yStep, owned);
  const last = owned - 1, n = axis(size, last), toStep = <usize>axis(xStep, last), fromStep = <usize>axis(yStep, last);
  let e = task * ELEMENTS;
  const end = min(total, e + ELEMENTS);
  let to = args.dx + (<usize>args.xAt << 2);
  let from = args.dy + (<usize>args.yAt << 2);
  let rest = e;
  for (let a = last; a >= 0; a--) {
    const at = <usize>a << 2;
    const length = axis(size, a), i = rest % length;
    rest /= length;
    store<i32>(place + at, i);
    to += <usize>i * <usize>axis(xStep, a);
    from += <usize>i * <usize>axis(yStep, a);
  }
  while (e < end) {
    const first = axis(place, last), run = min(n - first, end - e);
    let source = from, target = to;
    for (let i = 0; i < run; i++) {
      const sum = repeats == 1 ? load<f32>(source) : sumOfRepeats(source, size, place, yStep, repeated, repeats);
      store<f32>(target, load<f32>(target) + sum);
      source += fromStep;
      target += toStep;
    }
    e += run;
    to -= <usize>first * toStep;
    from -= <usize>first * fromStep;
    store<i32>(place + (<usize>last << 2), 0);
    for (let a = last - 1; a >= 0; a--) {
      const i = axis(place, a) + 1;
      to += axis(xStep, a);
      from += axis(yStep, a);
      if (i < axis(size, a)) {
        store<i32>(place + (<usize>a << 2), i);
        break;
      }
      to -= <usize>i * <usize>axis(xStep, a);
      from -= <usize>i * <usize>axis(yStep, a);
      store<i32>(place + (<usize>a << 2), 0);
    }
  }
}

/** Sum of the elements that repeat one, from `source` on, the last axis first. */
function sumOfRepeats(source: usize, size: usize, place: usize, yStep: usize, repeated: i32, repeats: i32): f32 {
  const last = AXES + repeated - 1;
  if (repeated == 1) {
    const step = <usize>axis(yStep, last);
    let sum = load<f32>(source);
    for (let r = repeats - 1; r > 0; r--) {
      source += step;
      sum += load<f32>(source);
    }
    return sum;
  }
  let sum = load<f32>(source);
  for (let r = repeats - 1; r > 0; r--) {
    for (let a = last; a >= AXES; a--) {
      const at = <usize>a << 2;
      const i = axis(place, a) + 1;
      source += axis(yStep, a);
      if (i < axis(size, a)) {
        store<i32>(place + at, i);
        break;
      }
      source -= <usize>i * <usize>axis(yStep, a);
      store<i32>(place + at, 0);
    }
    sum += load<f32>(source);
  }
  for (let a = AXES; a <= last; a++) store<i32>(place + (<usize>a << 2), 0);
  return sum;
}
