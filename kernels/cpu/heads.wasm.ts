// Rows of one head, as attention and its gradients hand them to a BLAS.

/** Bytes of a row of scores: 64 lanes. */
export const SCORE_ROW: usize = 256;

/** Whether any of the lanes, `bytes` bytes of them, gives weight to the row with these weights. */
@inline
export function anySees(weights: usize, bytes: usize): bool {
  for (let i: usize = 0; i < bytes; i += 16) {
    if (v128.any_true(v128.load(weights + i))) return true;
  }
  return false;
}

/** `count` rows of one head, times `factor`, one after the other; rows up to `padded` are zero. */
export function scaleRows(
  from: usize, rowBytes: usize, hd: i32, count: i32, padded: i32, factor: f32, to: usize,
): void {
  const head = <usize>hd << 2;
  const f = f32x4.splat(factor);
  for (; count > 0; count--, padded--) {
    let d: usize = 0;
    for (; d + 16 <= head; d += 16) v128.store(to + d, f32x4.mul(v128.load(from + d), f));
    for (; d < head; d += 4) store<f32>(to + d, load<f32>(from + d) * factor);
    from += rowBytes;
    to += head;
  }
  memory.fill(to, 0, <usize>padded * head);
}

/**
 * `count` rows of one head, one after the other, zeros for those to which no lane gives weight: they may hold anything,
 * and 0 times NaN would be NaN. `weights` are rows of scores, of which `bytes` bytes count.
 */
export function copySeenRows(
  from: usize, rowBytes: usize, hd: i32, count: i32, weights: usize, bytes: usize, to: usize,
): void {
  const head = <usize>hd << 2;
  for (; count > 0; count--) {
    if (anySees(weights, bytes)) memory.copy(to, from, head);
    else memory.fill(to, 0, head);
    weights += SCORE_ROW;
    from += rowBytes;
    to += head;
  }
}
