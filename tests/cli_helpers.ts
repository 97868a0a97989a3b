/**
 * What tests of the command line share: a tiny model, a clip, and running far.ts as a user does.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { main } from "../cli/main.ts";
import { writeNpz } from "../lib/io/npz.ts";
import { generator } from "../kernels/check.ts";
import { OVERRIDDEN } from "./io_helpers.ts";
export { inFolder } from "./io_helpers.ts";

const root = new URL("../", import.meta.url);

/** What the runs of one test file keep: how fast this machine is. The user's own cache is left alone. */
export const CACHE: string = Deno.makeTempDirSync({ prefix: "far-cache-" });
globalThis.addEventListener("unload", () => Deno.removeSync(CACHE, { recursive: true }));

/** What a run printed and how it ended. */
export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Arguments that run far.ts with the default permission set. */
export const farArgs = (
  args: readonly string[],
  set = "-P",
) => ["run", "--quiet", set, new URL("far.ts", root).pathname, ...args];

/** Lines that Deno and the Vulkan loader print by themselves. */
const NOISE = /Permissions in the config file is an experimental|XDG_RUNTIME_DIR|^$/;

/** Runs `deno run -P far.ts …` with nothing on stdin. */
export async function far(
  args: readonly string[],
  env: Record<string, string> = {},
  set = "-P",
): Promise<Ran> {
  const command = new Deno.Command(Deno.execPath(), {
    args: farArgs(args, set),
    env: {
      NO_COLOR: "1",
      ...("HOME" in env || "XDG_CACHE_HOME" in env ? {} : { FAR_CACHE: CACHE }),
      ...Object.fromEntries(OVERRIDDEN),
      ...env,
    },
    stdin: "null",
  });
  const { code, stdout, stderr } = await command.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return {
    code,
    stdout: text(stdout),
    stderr: text(stderr).split("\n").filter((l) => !NOISE.test(l)).join("\n"),
  };
}

/** Runs a command line in this process: as {@linkcode far} without permissions and without the time that a start takes. */
export async function farHere(args: readonly string[]): Promise<Ran> {
  const out: string[] = [], err: string[] = [], { log, error } = console;
  console.log = (...parts: unknown[]) => void out.push(parts.join(" "));
  console.error = (...parts: unknown[]) => void err.push(parts.join(" "));
  try {
    return { code: await main(args), stdout: out.join("\n"), stderr: err.join("\n") };
  } finally {
    Object.assign(console, { log, error });
  }
}

/** Runs `far.ts … --json` and kills it when it first reports progress. */
export async function killedEarly(args: readonly string[], set: string): Promise<void> {
  const child = new Deno.Command(Deno.execPath(), {
    args: farArgs([...args, "--json"], set),
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    if (!text.includes('"progress"')) continue;
    child.kill("SIGKILL");
    break;
  }
  assertEquals((await child.status).signal, "SIGKILL", "it ended before it could be killed");
}

/** A FAR-Long with a window of three frames, small enough for tests. */
export const TINY_FAR = {
  type: "FAR_Long",
  config: {
    patch_size: 1,
    context_patch_size: 2,
    in_channels: 4,
    out_channels: 4,
    num_layers: 2,
    num_attention_heads: 2,
    attention_head_dim: 32,
    axes_dims_rope: [8, 12, 12],
    short_term_ctx_winsize: 3,
    condition_cfg: { type: "action", num_action_classes: 3 },
  },
};

/** An autoencoder that makes 4x4 latents of 16x16 pixels. */
export const TINY_DCAE = {
  in_channels: 3,
  latent_channels: 4,
  attention_head_dim: 8,
  scaling_factor: 0.5,
  upsample_block_type: "pixel_shuffle",
  downsample_block_type: "pixel_unshuffle",
  encoder_block_out_channels: [8, 16, 16],
  decoder_block_out_channels: [8, 16, 16],
  encoder_block_types: ["ResBlock", "ResBlock", "EfficientViTBlock"],
  decoder_block_types: ["ResBlock", "ResBlock", "EfficientViTBlock"],
  encoder_layers_per_block: [0, 1, 1],
  decoder_layers_per_block: [0, 1, 1],
  encoder_qkv_multiscales: [[], [], []],
  decoder_qkv_multiscales: [[], [], []],
  decoder_norm_types: ["batch_norm", "batch_norm", "rms_norm"],
  decoder_act_fns: ["relu", "relu", "silu"],
};

/** Writes the tiny models and a clip of `frames` frames of 16x16 with actions into a folder; returns the usual flags. */
export async function tinyWorld(folder: string, frames = 8): Promise<string[]> {
  Deno.writeTextFileSync(`${folder}/far.json`, JSON.stringify(TINY_FAR));
  Deno.writeTextFileSync(`${folder}/dcae.json`, JSON.stringify(TINY_DCAE));
  const random = generator(1);
  const video = Uint8Array.from({ length: frames * 16 * 16 * 3 }, () => Math.floor(random() * 256));
  const actions = Int32Array.from({ length: frames }, (_, i) => i % 3);
  await writeNpz(`${folder}/clip.npz`, {
    video: { shape: [frames, 16, 16, 3], dtype: "U8", data: video },
    actions: { shape: [frames], dtype: "I32", data: new Uint8Array(actions.buffer) },
  });
  return [
    `${folder}/clip.npz`,
    "--model",
    `${folder}/far.json`,
    "--vae",
    `${folder}/dcae.json`,
    "--random-weights",
    "--device",
    "cpu",
    "--steps",
    "3",
  ];
}

/** Writes what ffmpeg's `source` draws as a video. */
export async function drawVideo(path: string, source: string, ...more: readonly string[]): Promise<void> {
  const args = ["-v", "error", "-f", "lavfi", "-i", source, ...more, "-pix_fmt", "yuv420p", path];
  assert((await new Deno.Command("ffmpeg", { args }).output()).success);
}

/** Whether a path exists. */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
