/**
 * `far.ts play`: walk in a model's mind.
 *
 * @module
 */
import { readClip } from "../lib/pipeline/clip.ts";
import { chooseDcae, chooseFar, requireWeights, verifyModels } from "../lib/pipeline/models.ts";
import { PlaySession } from "../lib/pipeline/play.ts";
import { PlayRecordings } from "../lib/pipeline/play_recording.ts";
import { servePlay } from "../lib/pipeline/play_server.ts";
import { playInTerminal } from "../lib/pipeline/play_terminal.ts";
import { RANDOM_STAMP } from "../lib/pipeline/weights.ts";
import { type Call, type Flags, integer, path, toggle, UsageError, type Values, verb } from "./args.ts";
import { withCard } from "./card.ts";
import { clipFlags, clipOptions } from "./clip_flags.ts";
import { deviceFlags, openChosen } from "./flags.ts";
import { InterruptListener } from "./interrupt.ts";
import { modelChoice, modelFlags, samplerFlags } from "./model_flags.ts";
import { Interrupted } from "./report.ts";

const flags = {
  page: toggle("serve a page on this machine instead of drawing in the terminal; needs -P=play"),
  port: integer("port of the page (default: one that is free)", { min: 1, max: 65535 }),
  ctx: integer("context frames that the model is given", { default: 16, min: 1, max: 100_000 }),
  ...modelFlags,
  ...samplerFlags,
  remember: integer(
    "most frames that the model sees, the new one included; when there are more, the oldest quarter is forgotten",
    { default: 300, min: 2, max: 100_000 },
  ),
  keep: integer("most frames of a recording, the newest ones", { default: 1000, min: 1, max: 100_000 }),
  ...clipFlags,
  out: path("folder for recordings: new, empty, or an earlier one of this verb, to which they are added", {
    default: "out/play",
  }),
  ...deviceFlags,
};

async function play(call: Call<Flags>): Promise<void> {
  const { flags: given, operands: [clip] } = withCard("play", call);
  const f = given as Values<typeof flags>;
  if (clip === undefined) throw new UsageError("far.ts play: expected CLIP (a clip), found nothing");
  if (f.port !== undefined && !f.page) throw new UsageError("far.ts play: --port is for --page");
  if (!f.page && !(Deno.stdin.isTerminal() && Deno.stdout.isTerminal())) {
    throw new UsageError("far.ts play: expected a terminal; --page serves a page instead (with -P=play)");
  }
  const host = `127.0.0.1:${f.port ?? 0}`;
  if (f.page && Deno.permissions.querySync({ name: "net", host }).state !== "granted") {
    throw new UsageError(
      "far.ts play: --page needs permission to listen on 127.0.0.1: deno run -P=play far.ts play --page",
    );
  }
  const chosen = modelChoice(f);
  requireWeights(chosen);
  const vae = chooseDcae(chosen), select = clipOptions(f);
  // Models with random weights know as many actions as the context shows.
  const { actions } = await readClip(clip, { ...select, frames: f.ctx, side: vae.side });
  const far = chooseFar(chosen, actions?.reduce((a, b) => Math.max(a, b), 0));
  verifyModels({ far, vae });
  using recordings = await PlayRecordings.open(f.out, { models: { far, vae }, clip });
  using interrupts = new InterruptListener((line) => console.error(line), "stopping");
  const { device, reason } = await openChosen(f);
  try {
    console.error(`device: ${device.info.description} (${reason})\nencoding ${f.ctx} frames of ${clip}`);
    const options = { ...f, ...select, context: f.ctx };
    using session = await PlaySession.open({ device, far, vae }, clip, options);
    const random = far.weights.path === null || vae.weights.path === null, stamp = random ? RANDOM_STAMP : "";
    const title = `${far.name} after ${f.ctx} frames of ${clip}`;
    const record = () => recordings.save(session);
    if (f.page) {
      await using served = servePlay(session, { title, stamp, port: f.port, record });
      console.log(`open ${served.url}\nCtrl-C ends it`);
      await interrupts.heard;
    } else {
      const shown = [stamp, title].filter(Boolean).join(": ");
      const ended = await playInTerminal(session, { title: shown, record, stopped: interrupts.heard });
      if (ended) throw new Interrupted("SIGINT", recordings.kept);
    }
  } finally {
    await recordings.finish();
    device.close();
  }
  if (interrupts.signal) throw new Interrupted(interrupts.signal, recordings.kept);
}

/** `far.ts play`. */
export const playVerb = verb({
  name: "play",
  summary: "Walk in a model's mind: every key is an action and makes the next frame",
  about:
    "Shows the model the first frames of a clip, then predicts one frame per key: arrows turn and go forward where the model's " +
    "card says what its actions mean, 0 to 9 are actions by number. Draws in the terminal, or serves a page to this machine " +
    "alone (--page). t shows the built-in world beside it, after the same actions; r records the walk so far into --out as " +
    "npz, which every verb reads as a clip, and mp4; q ends.\n\n" +
    "Memory stays the same however long the walk gets: the model sees the last --remember frames at most.",
  operands: [{
    name: "CLIP",
    help:
      "npz, npy, video or folder of images, or world:N or grid:N, the N-th test walk of the built-in world (default for a bundled model: the clip on its card, grid:0)",
    optional: true,
  }],
  flags,
  examples: [
    { does: "the bundled model in the terminal", line: "play grid:3" },
    {
      does: "with a context of one's own, four Euler steps per frame",
      line: "play clip.npz --ctx 32 --steps 4",
    },
  ],
  run: play,
});
