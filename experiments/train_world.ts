/**
 * Trains the bundled model `world` again, from nothing: its autoencoder, the latents of 480 walks, and three stages of its
 * transformer (models/world/README.md says what each stage is for, docs/training.md how long they take).
 *
 *     deno task train:world              runs what is not done yet, and prints each command before it runs it
 *     deno task train:world --dry-run    only prints the commands
 *
 * Everything is written under out/world. A command is done when the file that it writes last exists; an interrupted command
 * resumes by itself, so the same call resumes after Ctrl-C or a crash.
 *
 * @module
 */

/** One command of the program. */
export interface Step {
  /** What it is for. */
  readonly does: string;
  /** The words after `far.ts`. The first one is the verb, which has a permission set of the same name. */
  readonly words: readonly string[];
  /** The file that it writes last: where it exists, the command is done. */
  readonly writes: string;
}

const OUT = "out/world";
const MODELS = ["--model", "models/world/far.json", "--vae", "models/world/dcae.json"];
/** The averaged weights of a run's last checkpoint. */
const averaged = (run: string, steps: number) =>
  `${OUT}/${run}/checkpoints/step-${String(steps).padStart(8, "0")}/ema.safetensors`;

function train(does: string, run: string, steps: number, ...more: readonly string[]): Step {
  const words = ["train", "--config", "models/world/far.yml", "--out", `${OUT}/${run}`, ...more];
  return { does, words, writes: averaged(run, steps) };
}

function convert(does: string, from: string, to: string): Step {
  return { does, words: ["weights", "convert", from, to, "--dtype", "f16"], writes: to };
}

/** Predicts clips of a set of latents from `first` on, with one or four Euler steps per frame. */
function rollOut(does: string, from: string, to: string, weights: string, ...more: readonly string[]): Step {
  return {
    does,
    words: ["rollout", from, ...more, ...MODELS, "--weights", weights, "--to", to],
    writes: `${to}/index.json`,
  };
}

const set = (...options: readonly string[]) => options.flatMap((option) => ["--set", option]);

const DCAE = averaged("dcae", 5000), FIRST = averaged("far1", 14000);
const SECOND = averaged("far2", 1500), THIRD = averaged("far3", 11000);

/** All commands, in order. */
export const STEPS: readonly Step[] = [
  {
    does: "Train the autoencoder on 80,000 frames",
    words: ["train-vae", "--config", "models/world/dcae.yml", "--out", `${OUT}/dcae`],
    writes: DCAE,
  },
  convert("Store its averaged weights as f16", DCAE, `${OUT}/dcae.safetensors`),
  {
    does: "Encode 480 walks into latents",
    words: [
      ...["encode", "models/world/far.yml", "--vae", "models/world/dcae.json"],
      ...["--vae-weights", `${OUT}/dcae.safetensors`, "--to", `${OUT}/latents`],
      ...set(
        "datasets.train.type=WorldDataset",
        "datasets.train.data_cfg.clips=480",
        "datasets.train.data_cfg.resolution=64",
      ),
    ],
    writes: `${OUT}/latents/index.json`,
  },
  train("First stage: train on ground-truth context", "far1", 14000),
  convert("Store its averaged weights as f16", FIRST, `${OUT}/far1.safetensors`),
  rollOut(
    "Predict 160 walks with the model of the first stage",
    `${OUT}/latents`,
    `${OUT}/rollouts1`,
    `${OUT}/far1.safetensors`,
    ...["--clips", "160", "--steps", "1"],
  ),
  train(
    "Second stage: train on its predictions as context",
    "far2",
    1500,
    ...["--init", `${OUT}/far1.safetensors`],
    ...set(`datasets.train.data_list=${OUT}/rollouts1`, "models.rollout_ratio=1"),
    ...set("models.weighting_scheme=uniform", "train.ema_decay=0.998", "train.total_iter=1500"),
  ),
  rollOut(
    "Predict 80 more walks with the model of the second stage, one Euler step per frame",
    `${OUT}/rollouts1`,
    `${OUT}/rollouts2a`,
    SECOND,
    ...["--first", "160", "--clips", "80", "--steps", "1"],
  ),
  rollOut(
    "Predict another 80 walks, four Euler steps per frame",
    `${OUT}/rollouts2a`,
    `${OUT}/rollouts2`,
    SECOND,
    ...["--first", "240", "--clips", "80", "--steps", "4"],
  ),
  train(
    "Third stage: train on all predictions until the learning rate is 0",
    "far3",
    11000,
    ...["--init", SECOND],
    ...set(`datasets.train.data_list=${OUT}/rollouts2`, "models.rollout_ratio=0.8"),
    ...set("models.weighting_scheme=uniform", "train.lr_scheduler=cosine", "train.total_iter=11000"),
  ),
  convert("Store its averaged weights as f16", THIRD, `${OUT}/far.safetensors`),
];

/** The arguments of `deno` for a command. */
export const denoArguments = ({ words }: Step): string[] => ["run", "-P", "far.ts", ...words];

/** What {@linkcode trainWorld} does to the world outside. */
export interface Effects {
  /** Whether a file exists. */
  exists(path: string): boolean;
  /** Runs `deno` with these arguments and returns its exit code. */
  run(args: readonly string[]): Promise<number>;
  /** Prints a line. */
  say(line: string): void;
}

/**
 * Runs the commands that are not done yet, in order, and stops at the first that fails. Once a command had to run, those
 * after it run too: their files, if any, are of an earlier model.
 *
 * @param effects Files, processes and output.
 * @param dryRun Prints the commands and runs none.
 * @returns The exit code: 0, or that of the command that failed; 1 if a command has not written its file.
 */
export async function trainWorld({ exists, run, say }: Effects, dryRun: boolean): Promise<number> {
  const done = STEPS.findIndex(({ writes }) => !exists(writes));
  const first = done < 0 ? STEPS.length : done;
  for (const [i, step] of STEPS.entries()) {
    const args = denoArguments(step);
    say(`\n# ${i + 1} of ${STEPS.length}: ${step.does}${i < first ? ` (done: ${step.writes})` : ""}`);
    say(`deno ${args.join(" ")}`);
    if (dryRun || i < first) continue;
    const code = await run(args);
    if (code !== 0) {
      say(`\ntrain:world: this command ended with exit code ${code}; the same call resumes here`);
      return code;
    }
    if (!exists(step.writes)) {
      say(`\ntrain:world: expected ${step.writes} after this command, found none`);
      return 1;
    }
  }
  return 0;
}

const root = new URL("../", import.meta.url);

function exists(path: string): boolean {
  try {
    return Deno.statSync(new URL(path, root)).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Runs `deno`. It stops by itself on Ctrl-C, after saving its work, so this process waits for it. */
async function run(args: readonly string[]): Promise<number> {
  const child = new Deno.Command(Deno.execPath(), { args: [...args], cwd: root }).spawn();
  const wait = () => {}; // a terminal sends Ctrl-C to both
  const stop = () => child.kill("SIGTERM");
  Deno.addSignalListener("SIGINT", wait);
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", stop);
  try {
    return (await child.status).code;
  } finally {
    Deno.removeSignalListener("SIGINT", wait);
    if (Deno.build.os !== "windows") Deno.removeSignalListener("SIGTERM", stop);
  }
}

if (import.meta.main) {
  const unknown = Deno.args.find((word) => word !== "--dry-run");
  if (unknown !== undefined) {
    console.error(`train:world: unknown argument ${unknown}, expected --dry-run or nothing`);
    Deno.exit(2);
  }
  Deno.exit(await trainWorld({ exists, run, say: (line) => console.log(line) }, Deno.args.length > 0));
}
