/**
 * Overlap of a frame with earlier frames: the measure of the value of memory.
 *
 * Two measures. {@linkcode placeSeen} compares poses: the same place, looking the same way. {@linkcode Views} compares what
 * is in sight: a wall that was seen from the other end of a corridor counts too.
 *
 * @module
 */
import { CELL_UNITS, HEADINGS, type Pose } from "./pose.ts";
import type { Maze } from "./maze.ts";
import { cameraOf, castRay, newHit } from "./raycast.ts";

/** Criterion for a place seen before. */
export interface PlaceOptions {
  /** First frame that counts; 0 unless given. */
  readonly from?: number;
  /** One past the last frame that counts; the frame itself unless given. */
  readonly to?: number;
  /** Cells that two poses of one place may lie apart, in x and in y; a third (one step) unless given. */
  readonly cells?: number;
  /** Turns that two poses of one view may differ by; 1 (22.5 degrees) unless given. */
  readonly turns?: number;
}

/** The pose of a frame. */
export function poseAt(poses: Int32Array, frame: number): Pose {
  return { x: poses[frame * 3], y: poses[frame * 3 + 1], heading: poses[frame * 3 + 2] };
}

/**
 * How many frames ago the camera last stood at this place and looked this way.
 *
 * @param poses Poses of the walk, `[F, 3]`.
 * @param frame The frame in question.
 * @param options Which earlier frames count, and how near.
 * @returns Frames, at least 1; undefined if the place was not seen.
 *
 * @example
 * ```ts
 * import { placeSeen } from "./seen.ts";
 * import { worldClip } from "./world.ts";
 * const { poses } = worldClip({ seed: 0, split: "test", index: 0, frames: 300 });
 * const ago = placeSeen(poses, 200, { to: 128 }); // seen in the distant context?
 * console.assert(ago === undefined || ago > 72);
 * ```
 */
export function placeSeen(poses: Int32Array, frame: number, options: PlaceOptions = {}): number | undefined {
  const { from = 0, to = frame, cells = 1 / 3, turns = 1 } = options;
  const now = poseAt(poses, frame), units = cells * CELL_UNITS;
  for (let earlier = Math.min(to, frame) - 1; earlier >= from; earlier--) {
    const then = poseAt(poses, earlier);
    const turned = (then.heading - now.heading + HEADINGS) % HEADINGS;
    if (Math.min(turned, HEADINGS - turned) > turns) continue;
    if (Math.abs(then.x - now.x) <= units && Math.abs(then.y - now.y) <= units) return frame - earlier;
  }
  return undefined;
}

/** Rays that stand for a frame. */
const RAYS = 32;
/** A face is looked at in so many upright strips. */
const STRIPS = 4;
/** Farther walls are too small to be recognised. */
const FARTHEST = 4;

/** The strips of wall that each frame of a walk shows. */
export class Views {
  /** Strip that each ray of each frame meets, `[F, 32]`; 65535 where it is too far away. */
  readonly strips: Uint16Array;

  /**
   * Looks along the rays of every frame.
   *
   * @param maze The maze.
   * @param poses Poses of the walk, `[F, 3]`.
   */
  constructor(maze: Maze, poses: Int32Array) {
    const frames = poses.length / 3, hit = newHit();
    this.strips = new Uint16Array(frames * RAYS).fill(65535);
    for (let frame = 0; frame < frames; frame++) {
      const camera = cameraOf(poseAt(poses, frame));
      for (let ray = 0; ray < RAYS; ray++) {
        castRay(maze, camera, (ray + 0.5) * 2 / RAYS - 1, hit);
        if (hit.depth > FARTHEST) continue;
        const strip = Math.min(STRIPS - 1, Math.max(0, Math.floor(hit.u * STRIPS)));
        this.strips[frame * RAYS + ray] = hit.face * STRIPS + strip;
      }
    }
  }

  /**
   * Share of a frame's picture, by columns, whose walls were in sight in some of the frames `from` to `to` - 1.
   *
   * @param frame The frame in question.
   * @param from First frame that counts.
   * @param to One past the last frame that counts.
   * @returns 0 to 1.
   */
  share(frame: number, from: number, to: number): number {
    const known = new Set(this.strips.subarray(from * RAYS, to * RAYS));
    const shown = this.strips.subarray(frame * RAYS, (frame + 1) * RAYS).filter((strip) => strip !== 65535);
    return shown.length === 0 ? 0 : shown.filter((strip) => known.has(strip)).length / shown.length;
  }
}

/** How the frames of a clip relate to its context, for memory's score. */
export type Memory = "near" | "distant" | "new";

/**
 * Sorts predicted frames by where their place was seen: `near` if a model that knows the last `window` frames of the
 * context has seen at least half of the picture's walls there, `distant` if only the frames before have shown them, `new`
 * if the context never did.
 *
 * @param views What the frames show.
 * @param context Frames of context, from 0.
 * @param frames Frames of the clip.
 * @param window The last frames of the context that a short context holds; 16 in the paper's long models.
 * @returns One word for each of the frames `context` to `frames` - 1.
 */
export function memoryOf(views: Views, context: number, frames: number, window = 16): Memory[] {
  return Array.from({ length: frames - context }, (_, i) => {
    const near = views.share(context + i, Math.max(0, context - window), context);
    if (near >= 0.5) return "near";
    return views.share(context + i, 0, context) >= 0.5 ? "distant" : "new";
  });
}
