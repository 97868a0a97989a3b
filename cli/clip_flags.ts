/**
 * Flags that choose the frames of a clip.
 *
 * @module
 */
import type { ClipOptions } from "../lib/pipeline/clip.ts";
import { choice, integer, real, text, type Values } from "./args.ts";

/** Flags that select a part of a clip and bring it to the model's size. */
export const clipFlags = {
  start: integer("first frame of the clip that is used", { default: 0, min: 0 }),
  every: integer("take every N-th frame", { default: 1, min: 1 }),
  "from-fps": real("resample a video to this many frames per second first", { min: 0.01, max: 1000 }),
  size: integer("side of the square that frames are brought to, in pixels", { min: 8, max: 4096 }),
  fit: choice(["crop", "pad", "stretch"], "how frames fill that square", { default: "crop" }),
  actions: text(
    "FILE (npz, npy, csv, txt or json with one integer per frame), or a pattern such as 0*36,2*12,1",
    {
      value: "FILE|PATTERN",
    },
  ),
};

/** The frames that flags mean. */
export const clipOptions = (flags: Omit<Values<typeof clipFlags>, "actions">): ClipOptions => ({
  start: flags.start,
  every: flags.every,
  fromFps: flags["from-fps"],
  size: flags.size,
  fit: flags.fit,
});
