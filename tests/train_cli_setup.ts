/**
 * What tests of `far.ts train` and `train-vae` share: tiny runs as a user starts them, and what two runs must have in common.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { hiddenIn, treeOf } from "./kill_helpers.ts";

const file = (path: string) => new URL(path, import.meta.url).pathname;

/** A folder with the clip that the repository holds, which goes when the tests end. */
export const CLIPS = Deno.makeTempDirSync();
Deno.copyFileSync(file("../assets/dmlab_24.npz"), `${CLIPS}/dmlab_24.npz`);
globalThis.addEventListener("unload", () => Deno.removeSync(CLIPS, { recursive: true }));

const HELD_OUT = `{type: FolderDataset, split: validation, num_sample: 1, data_list: ${CLIPS}, ` +
  "data_cfg: {num_frames: 4, resolution: 16, part: train, shares: [0, 0]}}";

/** Options on top of the file of each verb: few steps, everything that a run writes. */
const SETS = {
  "train": [
    `datasets.train.data_list=${CLIPS}`,
    `datasets.sample=${HELD_OUT}`,
    "val={val_freq: 2, val_batches: 1, sample_cfg: {context_length: 2, unroll_length: 2, num_inference_steps: 1}}",
  ],
  "train-vae": [
    `datasets.train.data_list=${CLIPS}`,
    `datasets.sample=${HELD_OUT.replace("resolution: 16", "resolution: 32")}`,
    `models.model_cfg.vae.from_config=${file("../experiments/configs/dcae_8x_tiny.json")}`,
    "models.disc_start_iter=2",
    "val.val_freq=2",
  ],
};
const COMMON = [
  ...[
    "train.total_iter=4",
    "logger.print_freq=3",
    "logger.save_checkpoint_freq=2",
    "logger.keep_checkpoints=1",
  ],
];
const FLAGS = { "train": ["--format", "gif"], "train-vae": ["--without-perceptual"] };

/** The verbs that train. */
export const TRAINING_VERBS = ["train", "train-vae"] as const;

/** One of them. */
export type TrainingVerb = typeof TRAINING_VERBS[number];

/** The words after far.ts of a tiny run of four steps, with checkpoints after two and four. */
export function trainArgs(verb: TrainingVerb, out: string, ...more: readonly string[]): string[] {
  const config = file(verb === "train" ? "data/train_clip.yml" : "data/train_vae_clip.yml");
  const sets = [...SETS[verb], ...COMMON].flatMap((set) => ["--set", set]);
  return [
    verb,
    "--config",
    config,
    "--out",
    out,
    "--device",
    "cpu",
    "--threads",
    "1",
    ...sets,
    ...FLAGS[verb],
    ...more,
  ];
}

/** Values of the log that a clock or the history of a process decides. */
const TIMES = ["time", "seconds", "framesPerSecond", "flopsPerSecond", "memory"];

/** Lines of a run's log without times. */
export function logOf(folder: string): Record<string, unknown>[] {
  return Deno.readTextFileSync(`${folder}/log.jsonl`).split("\n").slice(0, -1).map((line) =>
    Object.fromEntries(Object.entries(JSON.parse(line)).filter(([key]) => !TIMES.includes(key)))
  );
}

/** All files of a run by path, but its log, its event files and its report, which hold times; options.json is the last start's. */
function filesOf(folder: string): [string, Uint8Array | null][] {
  return [...treeOf(folder)].filter(([path]) =>
    !/^(log\.jsonl|report\.html|options\.json|tensorboard\/.+)$/.test(path)
  );
}

/** Two finished runs have the same files with the same bytes, the same log but for times, and nothing unfinished beside. */
export function assertSameRun(found: string, expected: string, told: string): void {
  assertEquals(hiddenIn(found), [], told);
  const files = filesOf(found), wanted = filesOf(expected);
  assertEquals(files.map(([path]) => path), wanted.map(([path]) => path), told);
  files.forEach(([path, bytes], i) => {
    const other = wanted[i][1];
    const same = bytes === other ||
      bytes!.length === other!.length && bytes!.every((b, j) => b === other![j]);
    if (!same) throw new Error(`${told}: ${path} differs`);
  });
  assertEquals(logOf(found), logOf(expected), told);
}
