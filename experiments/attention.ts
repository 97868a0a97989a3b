/**
 * Draws where the bundled model looks when a walk with grid steps returns to a place: the attention of the frame that is
 * predicted over the frames before it, with a mark above those that show the same pose.
 *
 *     deno task attention [--walk 0] [--frames 300] [--out docs/attention]
 *
 * Writes OUT.svg, the last frame of the walk whose pose only frames more than 16 frames ago have shown, and OUT.json: the
 * share of the attention that falls on frames of the same pose, over all such frames, beside the share of those frames among
 * all.
 *
 * @module
 */
import { attentionMap, encodeClip, loadModel, readClip, Tensor } from "../mod.ts";
import { gridNumber } from "../lib/data/world/pose.ts";
import { poseAt } from "../lib/data/world/seen.ts";
import { worldWalk } from "../lib/data/world/world.ts";
import { attentionPicture } from "../lib/display/attention.ts";
import { writeAtomic } from "../lib/io/atomic.ts";
import { normal, streamOf } from "../lib/random.ts";

/** Frames of the short context that evaluations compare with. */
const NEAR = 16;

/** A frame that returns to a pose, and the earlier frames that showed it, all of them more than {@linkcode NEAR} ago. */
export interface Return {
  readonly frame: number;
  readonly same: readonly number[];
}

/** The returns among some frames, given the number of each frame's pose. */
export function returnsOf(poses: readonly number[]): Return[] {
  return poses.map((pose, frame) => ({
    frame,
    same: [...poses.keys()].filter((earlier) => earlier < frame && poses[earlier] === pose),
  })).filter(({ frame, same }) => same.length > 0 && same.every((earlier) => earlier < frame - NEAR));
}

function option(name: string, otherwise: string): string {
  const at = Deno.args.indexOf(`--${name}`);
  return at < 0 ? otherwise : Deno.args[at + 1];
}

if (import.meta.main) {
  const index = Number(option("walk", "0")), frames = Number(option("frames", "300"));
  const out = option("out", "docs/attention");
  using model = await loadModel();
  const { device, far } = model, { actions, frames: seen } = await readClip(`grid:${index}`, { frames });
  const { values, channels: C, height: H, width: W } = await encodeClip(model, seen), per = C * H * W;
  const { maze, poses } = worldWalk({ seed: 0, split: "test", index, steps: "grid", frames });
  const numbers = Array.from({ length: frames }, (_, f) => gridNumber(maze, poseAt(poses, f)));
  const returns = returnsOf(numbers), params = far.weights.load(device);
  let onSame = 0, equal = 0, best = 0, picture = "";
  for (const { frame, same } of returns) {
    const clip = values.slice(0, (frame + 1) * per); // [frames, C, H, W]
    clip.set(normal(streamOf(0, `noise of frame ${frame}`), per), frame * per);
    using latents = Tensor.from(device, clip, [1, frame + 1, C, H, W]);
    const timesteps = Array.from({ length: frame + 1 }, (_, f) => f === frame ? 1000 : -1);
    const conditions = { actions: actions!.slice(0, frame + 1) };
    const map = await attentionMap({ device, config: far.config, params }, {
      latents,
      timesteps,
      ...conditions,
    });
    const perHead = Array.from({ length: map.layers * map.heads }, (_, h) => {
      const own = map.shares.subarray(h * map.frames, (h + 1) * map.frames);
      return same.reduce((sum, f) => sum + own[f], 0);
    });
    onSame += perHead.reduce((a, b) => a + b, 0) / perHead.length;
    best += Math.max(...perHead);
    equal += same.length / frame;
    picture = attentionPicture(map, same);
  }
  const mean = (sum: number) => Number((sum / returns.length).toFixed(4));
  const result = {
    what:
      `attention of frames of grid:${index} whose pose was seen more than ${NEAR} frames ago, on frames of that pose`,
    model: far.name,
    returning_frames: returns.length,
    frame_drawn: returns.at(-1)!.frame,
    share_mean_over_heads: mean(onSame),
    share_of_the_head_that_looks_most: mean(best),
    share_if_all_frames_were_equal: mean(equal),
  };
  await writeAtomic(`${out}.svg`, picture);
  await writeAtomic(`${out}.json`, JSON.stringify(result, null, 2) + "\n");
  console.log(JSON.stringify(result, null, 2));
}
