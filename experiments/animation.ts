/**
 * Makes README's animation: a walk through the built-in world beside what the bundled model predicts of it.
 *
 *     deno task animation [--clip grid:10] [--out assets/world_prediction.gif]
 *
 * @module
 */
import { loadModel, readClip } from "../mod.ts";
import { concatFrames, sliceFrames } from "../lib/io/frames.ts";
import { sideBySide } from "../lib/io/sheet.ts";
import { writeVideo } from "../lib/io/video_write.ts";

function option(name: string, otherwise: string): string {
  const at = Deno.args.indexOf(`--${name}`);
  return at < 0 ? otherwise : Deno.args[at + 1];
}

/** Every fourth of the 156 predicted frames: a repository should stay small. */
const EVERY = 4;

if (import.meta.main) {
  using model = await loadModel();
  const clip = await readClip(option("clip", "grid:10"), { frames: 300 });
  const { frames, truth } = await model.predict(clip);
  const thinned = (all: typeof frames) =>
    concatFrames(
      Array.from({ length: Math.ceil(all.frames / EVERY) }, (_, i) =>
        sliceFrames(all, EVERY * i, EVERY * i + 1)),
    );
  const pair = sideBySide([{ label: "truth", frames: thinned(truth) }, {
    label: "prediction",
    frames: thinned(frames),
  }]);
  await writeVideo(option("out", "assets/world_prediction.gif"), pair, { fps: 4 });
}
