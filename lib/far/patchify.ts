/**
 * Patchify and unpatchify: latents to tokens and back, feature order (channel, patch row, patch column).
 *
 * @module
 */
import { copyStrided } from "../ops.ts";
import { Tensor } from "../tensor.ts";

/** Height and width of a frame in tokens. */
export interface Grid {
  readonly h: number;
  readonly w: number;
}

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

/** Which frames {@linkcode packFrames} reads and where their tokens go. */
export interface PackTarget {
  /** Frames `from … to-1` of every clip of the source. */
  readonly from: number;
  readonly to: number;
  readonly patch: number;
  /** Tokens `[rows, C·patch²]` to write. */
  readonly out: Tensor;
  /** Row of the first token of clip 0, and rows from one clip to the next. */
  readonly row: number;
  readonly clipRows: number;
  /** Clips to write; clip b reads source clip b mod B, so guidance can double a batch. */
  readonly clips: number;
}

/** Writes the tokens of some frames of `latents` `[B, F, C, H, W]`. */
export function packFrames(latents: Tensor, target: PackTarget): void {
  const [B, F, C, H, W] = latents.shape, p = target.patch, { h, w } = tokenGrid(H, W, p), width = C * p * p;
  for (let clip = 0; clip < target.clips; clip++) {
    copyStrided(latents, target.out, {
      sizes: [target.to - target.from, h, w, C, p, p],
      from: [C * H * W, p * W, p, H * W, W, 1],
      to: [h * w * width, w * width, width, p * p, p, 1],
      fromAt: ((clip % B) * F + target.from) * C * H * W,
      toAt: (target.row + clip * target.clipRows) * width,
    });
  }
}

/**
 * Latents to tokens: `[B, F, C, H, W]` to `[B·F·h·w, C·p²]`.
 *
 * @throws {RangeError} If H or W is not a multiple of p.
 */
export function patchify(latents: Tensor, p: number): Tensor {
  const [B, F, C, H, W] = latents.shape, { h, w } = tokenGrid(H, W, p), N = h * w;
  const out = Tensor.empty(latents.device, [B * F * N, C * p * p]);
  packFrames(latents, { from: 0, to: F, patch: p, out, row: 0, clipRows: F * N, clips: B });
  return out;
}

/** Where {@linkcode unpackFrames} reads and writes. */
export interface UnpackTarget {
  /** Latents `[B, F, C, H, W]` to write, from frame `frame` on. */
  readonly out: Tensor;
  readonly frame: number;
  readonly frames: number;
  readonly patch: number;
  /** Row of the first token of clip 0, and rows from one clip to the next. */
  readonly row: number;
  readonly clipRows: number;
}

/** Writes frames of latents from tokens `[rows, C·p²]`: the inverse of {@linkcode packFrames}. */
export function unpackFrames(tokens: Tensor, target: UnpackTarget): void {
  const [B, F, C, H, W] = target.out.shape,
    p = target.patch,
    { h, w } = tokenGrid(H, W, p),
    width = C * p * p;
  for (let clip = 0; clip < B; clip++) {
    copyStrided(tokens, target.out, {
      sizes: [target.frames, h, w, C, p, p],
      from: [h * w * width, w * width, width, p * p, p, 1],
      to: [C * H * W, p * W, p, H * W, W, 1],
      fromAt: (target.row + clip * target.clipRows) * width,
      toAt: (clip * F + target.frame) * C * H * W,
    });
  }
}

/**
 * Tokens to latents: `[B·F·h·w, C·p²]` to `[B, F, C, H, W]`.
 *
 * @param size B, F, H and W of the latents.
 */
export function unpatchify(
  tokens: Tensor,
  p: number,
  size: { readonly B: number; readonly F: number; readonly H: number; readonly W: number },
): Tensor {
  const { B, F, H, W } = size, C = tokens.shape[1] / (p * p), { h, w } = tokenGrid(H, W, p);
  const out = Tensor.empty(tokens.device, [B, F, C, H, W]);
  unpackFrames(tokens, { out, frame: 0, frames: F, patch: p, row: 0, clipRows: F * h * w });
  return out;
}
