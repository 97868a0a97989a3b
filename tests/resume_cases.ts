/**
 * Tiny calls of every verb that writes a result folder, for tests that interrupt them.
 *
 * @module
 */
import { writeLatents } from "../lib/data/latents.ts";
import { normal, streamOf } from "../lib/random.ts";
import { tinyWorld } from "./cli_helpers.ts";
import { treeOf } from "./kill_helpers.ts";

/** A verb that writes a folder, and how it is called on tiny inputs. */
export interface Case {
  readonly verb: string;
  /** Flag of the folder. */
  readonly to: "--out" | "--to";
  /** What the verb reads, for messages and refusals. */
  readonly source: string;
  readonly args: readonly string[];
}

export const OPTIONS = (folder: string, more = "") =>
  `name: set
datasets:
  train:
    type: FolderDataset
    data_list: ${folder}/clips
    split: training
    data_cfg: { num_frames: 4, resolution: 16, part: train, shares: [0, 0]${more} }
models: { model_cfg: { transformer: { init_cfg: { type: FAR_B } } } }
train: { total_iter: 1 }
`;

/** Writes tiny models, a clip, a folder of clips, latents and an option file. */
export async function cases(folder: string): Promise<Case[]> {
  const [clip, ...models] = await tinyWorld(folder), vae = ["--vae", `${folder}/dcae.json`];
  Deno.mkdirSync(`${folder}/clips`);
  for (let i = 0; i < 3; i++) Deno.copyFileSync(clip, `${folder}/clips/${i}.npz`);
  Deno.writeTextFileSync(`${folder}/set.yml`, OPTIONS(folder));
  await writeLatents(
    `${folder}/latents`,
    [1, 2, 3, 4].map((i) => ({
      source: `${i}`,
      latents: { shape: [6, 4, 4, 4] as const, data: normal(streamOf(i, "latents"), 6 * 64) },
      actions: Int32Array.of(0, 1, 2, 0, 1, 2),
    })),
  );
  const quick = ["--device", "cpu", "--threads", "1"], random = [...vae, "--random-weights", ...quick];
  return [
    {
      verb: "predict",
      to: "--out",
      source: clip,
      args: ["predict", clip, ...models, "--ctx", "3", "--pred", "4", "--format", "gif", "--threads", "1"],
    },
    {
      verb: "generate",
      to: "--out",
      source: `${folder}/far.json`,
      args: [
        "generate",
        ...models,
        "--frames",
        "4",
        "--actions",
        "0",
        "--size",
        "16",
        "--format",
        "gif",
        "--threads",
        "1",
      ],
    },
    {
      verb: "evaluate",
      to: "--out",
      source: `${folder}/far.json`,
      args: [
        ...[
          "evaluate",
          ...models,
          "--ctx",
          "2",
          "--pred",
          "2",
          "--short",
          "1",
          "--clips",
          "2",
          "--batch",
          "1",
        ],
        ...["--sheets", "1", "--threads", "1"],
      ],
    },
    {
      verb: "encode",
      to: "--to",
      source: `${folder}/clips`,
      args: ["encode", `${folder}/set.yml`, ...random],
    },
    {
      verb: "rollout",
      to: "--to",
      source: `${folder}/latents`,
      args: [
        ...[
          "rollout",
          `${folder}/latents`,
          "--model",
          `${folder}/far.json`,
          ...random,
          "--least",
          "2",
          "--most",
          "3",
        ],
        ...["--steps", "2", "--batch", "2"],
      ],
    },
    {
      verb: "data",
      to: "--out",
      source: `${folder}/clips`,
      args: ["data", "make", "world", "--clips", "3", "--frames", "6", "--size", "16"],
    },
  ];
}

/** A folder's content without what two equal runs may differ in: times, and where the result went. */
export function resultOf(folder: string): Map<string, string> {
  const text = (bytes: Uint8Array | null) => bytes === null ? "" : new TextDecoder("latin1").decode(bytes);
  return new Map(
    [...treeOf(folder)].map(([name, bytes]) => {
      if (name === "report.html") return [name, "shows times"];
      if (name !== "result.json") return [name, text(bytes)];
      const { seconds: _, stages: __, estimate: ___, peak_device_bytes: ____, ...result } = JSON.parse(
        new TextDecoder().decode(bytes!),
      );
      const {
        out: _out,
        threads: _threads,
        json: _json,
        quiet: _quiet,
        restart: _restart,
        device: _device,
        blas: _blas,
        profile: _profile,
        ...flags
      } = result.settings.flags;
      delete result.device;
      return [name, JSON.stringify({ ...result, settings: { ...result.settings, flags } })];
    }),
  );
}
