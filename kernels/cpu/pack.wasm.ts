// The private layout of weights: panels of 8 outputs, `[taps, length, 8]`, floats or halves. Called by the device to
// pack once, and by kernels for weights that came row-major.

/** Outputs of a panel and columns of a register tile. */
export const PANEL: i32 = 8;

/** Writes panel `n0 / 8` of row-major weights `[N, length, taps]` as `[taps, length, 8]`; columns past N are zero. */
export function packPanel(w: usize, half: u32, N: i32, n0: i32, length: i32, taps: i32, panel: usize): void {
  const K = length * taps;
  const width = min(PANEL, N - n0);
  if (half) {
    for (let tap = 0; tap < taps; tap++) {
      for (let i = 0; i < length; i++) {
        for (let j = 0; j < PANEL; j++) {
          const from = w + (<usize>((n0 + j) * K + i * taps + tap) << 1);
          store<u16>(panel + (<usize>j << 1), j < width ? load<u16>(from) : 0);
        }
        panel += 16;
      }
    }
    return;
  }
  if (width == PANEL && taps == 1) {
    for (let j = 0; j < PANEL; j += 4) {
      const r0 = w + (<usize>((n0 + j) * K) << 2), step = <usize>K << 2;
      transpose4(r0, step, K, panel + (<usize>j << 2));
    }
    return;
  }
  for (let tap = 0; tap < taps; tap++) {
    for (let i = 0; i < length; i++) {
      for (let j = 0; j < PANEL; j++) {
        const from = w + (<usize>((n0 + j) * K + i * taps + tap) << 2);
        store<f32>(panel + (<usize>j << 2), j < width ? load<f32>(from) : 0.0);
      }
      panel += 32;
    }
  }
}

/** The inverse of packPanel: writes the panel's rows back as `[N, length, taps]`. */
export function unpackPanel(panel: usize, half: u32, N: i32, n0: i32, length: i32, taps: i32, w: usize): void {
  const K = length * taps;
  const width = min(PANEL, N - n0);
  for (let tap = 0; tap < taps; tap++) {
    for (let i = 0; i < length; i++) {
      for (let j = 0; j < width; j++) {
        const at = <usize>((n0 + j) * K + i * taps + tap), from = <usize>((tap * length + i) * PANEL + j);
        if (half) store<u16>(w + (at << 1), load<u16>(panel + (from << 1)));
        else store<f32>(w + (at << 2), load<f32>(panel + (from << 2)));
      }
    }
  }
}

/** Columns k of four rows of K floats become four neighbouring floats of each step of a panel. */
function transpose4(row: usize, step: usize, K: i32, panel: usize): void {
  let r0 = row, r1 = r0 + step, r2 = r1 + step, r3 = r2 + step;
  let k = K;
  for (; k >= 4; k -= 4) {
    const a = v128.load(r0), b = v128.load(r1), c = v128.load(r2), d = v128.load(r3);
    const ab0 = i32x4.shuffle(a, b, 0, 4, 1, 5), ab1 = i32x4.shuffle(a, b, 2, 6, 3, 7);
    const cd0 = i32x4.shuffle(c, d, 0, 4, 1, 5), cd1 = i32x4.shuffle(c, d, 2, 6, 3, 7);
    v128.store(panel, i64x2.shuffle(ab0, cd0, 0, 2));
    v128.store(panel, i64x2.shuffle(ab0, cd0, 1, 3), 32);
    v128.store(panel, i64x2.shuffle(ab1, cd1, 0, 2), 64);
    v128.store(panel, i64x2.shuffle(ab1, cd1, 1, 3), 96);
    r0 += 16; r1 += 16; r2 += 16; r3 += 16;
    panel += 128;
  }
  for (; k > 0; k--) {
    store<f32>(panel, load<f32>(r0));
    store<f32>(panel, load<f32>(r1), 4);
    store<f32>(panel, load<f32>(r2), 8);
    store<f32>(panel, load<f32>(r3), 12);
    r0 += 4; r1 += 4; r2 += 4; r3 += 4;
    panel += 32;
  }
}

