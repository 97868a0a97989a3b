/**
 * The value of memory on a walk: how many frames return to a pose that the context has shown, and how well an oracle
 * would score that shows the frame of the context with the nearest pose.
 *
 * @module
 */
import { CELL_UNITS, HEADINGS, type Pose } from "./pose.ts";
import { placeSeen, poseAt } from "./seen.ts";

/** A walk with its frames. */
export interface Walk {
  /** `[F, H, W, 3]`, 0 to 255. */
  readonly frames: Uint8Array;
  /** `[F, 3]`. */
  readonly poses: Int32Array;
}

/** Frames that are counted, and the context before them. */
export interface ReturnOptions {
  /** Frames of the context; those behind it are counted. */
  readonly context: number;
  /** The last frames of the context, to which the distant ones are compared. */
  readonly window: number;
}

/** Shares of the frames behind the context, and an oracle's scores. */
export interface Returns {
  /** Frames that were counted. */
  readonly frames: number;
  /** Share whose exact pose the context has shown. */
  readonly samePose: number;
  /** Share whose exact pose only the context before the window has shown. */
  readonly samePoseDistant: number;
  /** Share whose place (one smooth step, one smooth turn) the context has shown. */
  readonly samePlace: number;
  /** PSNR in dB of the mean squared error of showing the context's frame with the nearest pose. */
  readonly oracle: number;
  /** The same with the window alone. */
  readonly oracleWindow: number;
}

/** Squared distance of two poses; a cell is as far as a quarter turn. */
function distance(a: Pose, b: Pose): number {
  const x = (a.x - b.x) / CELL_UNITS, y = (a.y - b.y) / CELL_UNITS;
  const by = (a.heading - b.heading + HEADINGS) % HEADINGS, turn = Math.min(by, HEADINGS - by) * 4 / HEADINGS;
  return x * x + y * y + turn * turn;
}

/** The frame from `from` to `to` - 1 with the nearest pose; the last one of several. */
export function nearestPose(poses: Int32Array, frame: number, from: number, to: number): number {
  const now = poseAt(poses, frame);
  let best = to - 1, least = Infinity;
  for (let f = to - 1; f >= from; f--) {
    const far = distance(now, poseAt(poses, f));
    if (far < least) [best, least] = [f, far];
  }
  return best;
}

/** Mean squared error of two frames, colours from 0 to 1. */
function squaredError(frames: Uint8Array, size: number, a: number, b: number): number {
  let sum = 0;
  for (let i = 0; i < size; i++) {
    const by = frames[a * size + i] - frames[b * size + i];
    sum += by * by;
  }
  return sum / size / 255 ** 2;
}

/** Counts returns over walks. */
export class ReturnCount {
  readonly #o: ReturnOptions;
  #frames = 0;
  readonly #seen = { samePose: 0, samePoseDistant: 0, samePlace: 0 };
  readonly #errors = { whole: 0, window: 0 };

  /** @throws {RangeError} If the context is empty, or shorter than the window. */
  constructor(options: ReturnOptions) {
    const { context, window } = options;
    if (!(window >= 1 && context >= window)) {
      throw new RangeError(`returns: expected a context of at least the window ${window}, found ${context}`);
    }
    this.#o = options;
  }

  /** Counts the frames of a walk behind the context; none if it is not longer. */
  add({ frames, poses }: Walk): void {
    const { context, window } = this.#o, total = poses.length / 3, size = frames.length / total;
    const exact = { cells: 0, turns: 0 }, recent = context - window;
    for (let f = context; f < total; f++) {
      const same = placeSeen(poses, f, { to: context, ...exact }) !== undefined;
      const near = placeSeen(poses, f, { from: recent, to: context, ...exact }) !== undefined;
      this.#frames++;
      this.#seen.samePose += same ? 1 : 0;
      this.#seen.samePoseDistant += same && !near ? 1 : 0;
      this.#seen.samePlace += placeSeen(poses, f, { to: context }) === undefined ? 0 : 1;
      this.#errors.whole += squaredError(frames, size, f, nearestPose(poses, f, 0, context));
      this.#errors.window += squaredError(frames, size, f, nearestPose(poses, f, recent, context));
    }
  }

  /** All walks together, or null if no frame was counted. */
  get result(): Returns | null {
    if (this.#frames === 0) return null;
    const share = (n: number) => n / this.#frames, psnr = (sum: number) => -10 * Math.log10(share(sum));
    return {
      frames: this.#frames,
      samePose: share(this.#seen.samePose),
      samePoseDistant: share(this.#seen.samePoseDistant),
      samePlace: share(this.#seen.samePlace),
      oracle: psnr(this.#errors.whole),
      oracleWindow: psnr(this.#errors.window),
    };
  }
}
