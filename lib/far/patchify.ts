/**
 * Patchify and unpatchify: latents to tokens and back. The features of a token are (channel, patch row, patch column).
 *
 * @module
 */
import { copyStrided } from "../ops.ts";
import { Tensor } from "../tensor.ts";

/** Height and width of a frame in tokens. */
export interface Grid {
  /** Rows of tokens. */
  readonly h: number;
  /** Columns of tokens. */
  readonly w: number;
}

/** Half-open range of frames. */
export type FrameRange = readonly [from: number, to: number];

/**
 * The token grid of a frame.
 *
 * @throws {RangeError} If the latents are not a multiple of the patch size.
 */
export function tokenGrid(height: number, width: number, patch: number): Grid {
  for (const [name, size] of [["height", height], ["width", width]] as const) {
    if (size % patch !== 0) {
      throw new RangeError(
        `patchify: latents have ${name} ${size}, expected a multiple of the patch size ${patch}`,
      );
    }
  }
  return { h: height / patch, w: width / patch };
}

/**
 * Latents to tokens: `[B, F, C, H, W]` to `[B·F·h·w, C·p²]`, clip by clip, frame by frame, row by row.
 *
 * @param p Patch size: latent positions of a token along one axis.
 * @param options `frames`: the frames to take, default all. `clips`: number of clips to make, default B; clip b is clip
 * b mod B of the latents, so guidance can double a batch.
 * @throws {RangeError} If H or W is not a multiple of p.
 *
 * @example
 * ```ts
 * import { openDevice, patchify, Tensor, unpatchify } from "../../mod.ts";
 * const { device } = await openDevice({ device: "cpu" });
 * const latents = Tensor.from(device, Float32Array.from({ length: 16 }, (_, i) => i), [1, 1, 1, 4, 4]);
 * const tokens = patchify(latents, 2); // [4, 4]
 * console.assert((await tokens.read()).slice(0, 4).join() === "0,1,4,5");
 * const back = unpatchify(tokens, 2, { B: 1, F: 1, H: 4, W: 4 });
 * console.assert((await back.read())[4] === 4);
 * device.close();
 * ```
 */
export function patchify(
  latents: Tensor,
  p: number,
  options: { readonly frames?: FrameRange; readonly clips?: number } = {},
): Tensor {
  const [B, F, C, H, W] = latents.shape, { h, w } = tokenGrid(H, W, p), width = C * p * p;
  const { frames: [from, to] = [0, F], clips = B } = options, rows = (to - from) * h * w;
  const tokens = Tensor.empty(latents.device, [clips * rows, width]);
  for (let clip = 0; clip < clips; clip++) {
    copyStrided(latents, tokens, {
      sizes: [to - from, h, w, C, p, p],
      from: [C * H * W, p * W, p, H * W, W, 1],
      to: [h * w * width, w * width, width, p * p, p, 1],
      fromAt: ((clip % B) * F + from) * C * H * W,
      toAt: clip * rows * width,
    }); // [F, C, H, W] of a clip to [F·h·w, C·p²]
  }
  return tokens;
}

/**
 * Tokens to latents: `[B·F·h·w, C·p²]` to `[B, F, C, H, W]`, the inverse of {@linkcode patchify}.
 *
 * @param p Patch size.
 * @param size B, F, H and W of the latents.
 * @throws {RangeError} If H or W is not a multiple of p.
 */
export function unpatchify(
  tokens: Tensor,
  p: number,
  size: { readonly B: number; readonly F: number; readonly H: number; readonly W: number },
): Tensor {
  const { B, F, H, W } = size, { h, w } = tokenGrid(H, W, p), width = tokens.shape[1], C = width / (p * p);
  const latents = Tensor.empty(tokens.device, [B, F, C, H, W]);
  for (let clip = 0; clip < B; clip++) {
    copyStrided(tokens, latents, {
      sizes: [F, h, w, C, p, p],
      from: [h * w * width, w * width, width, p * p, p, 1],
      to: [C * H * W, p * W, p, H * W, W, 1],
      fromAt: clip * F * h * w * width,
      toAt: clip * F * C * H * W,
    }); // [F·h·w, C·p²] of a clip to [F, C, H, W]
  }
  return latents;
}
