/**
 * Trains the bundled model `world` again, from nothing: its autoencoder, the latents of 1,280 worlds, and three stages of its
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
  /** Its purpose. */
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

const set = (...options: readonly string[]) => options.flatMap((option) => ["--set", option]);

/** Steps of the three stages of the transformer; models/world/far.yml has the first. */
const [FIRST, SECOND, THIRD] = [4649, 1023, 3500];
const DCAE = averaged("dcae", 5000);

/** Encodes every pose of worlds with grid steps. */
function encodePlaces(does: string, to: string, worlds: number, ...more: readonly string[]): Step {
  const places = set(
    "datasets.train.type=PlacesDataset",
    "datasets.train.data_list=null",
    `datasets.train.data_cfg.clips=${worlds}`,
    "datasets.train.data_cfg.resolution=64",
    ...more,
  );
  const vae = ["--vae", "models/world/dcae.json", "--vae-weights", `${OUT}/dcae.safetensors`];
  return {
    does,
    words: ["encode", "models/world/far.yml", ...vae, "--to", `${OUT}/${to}`, ...places],
    writes: `${OUT}/${to}/index.json`,
  };
}

/** Predicts walks through the encoded worlds, with one Euler step per frame. */
function rollOut(does: string, to: string, weights: string, ...more: readonly string[]): Step {
  return {
    does,
    words: [
      ...["rollout", "models/world/far.yml", ...MODELS, "--weights", weights, "--to", `${OUT}/${to}`],
      ...["--steps", "1", "--least", "48", "--most", "160", "--batch", "64"],
      ...set("datasets.train.data_cfg.num_frames=300", "datasets.train.data_cfg.clips=256", ...more),
    ],
    writes: `${OUT}/${to}/index.json`,
  };
}

/** Trains on fresh walks of 300 frames and on predicted ones, in turns. */
function trainOn(
  does: string,
  rollouts: string,
  run: string,
  steps: number,
  init: string,
  ...more: readonly string[]
) {
  return train(
    does,
    run,
    steps,
    ...["--init", init],
    ...set("datasets.train.data_cfg.num_frames=300", `datasets.train.data_cfg.rollouts=${OUT}/${rollouts}`),
    ...set("models.rollout_ratio=1", "models.rollout_clean=random", "train.warmup_iter=100"),
    ...set(`train.total_iter=${steps}`, ...more),
  );
}

/** All commands, in order. */
export const STEPS: readonly Step[] = [
  {
    does: "Train the autoencoder on 80,000 frames",
    words: ["train-vae", "--config", "models/world/dcae.yml", "--out", `${OUT}/dcae`],
    writes: DCAE,
  },
  convert("Store its averaged weights as f16", DCAE, `${OUT}/dcae.safetensors`),
  encodePlaces("Encode the 64 poses of each of 1,280 worlds", "places", 1280),
  encodePlaces(
    "Encode those of 64 validation worlds",
    "places_validation",
    64,
    "datasets.train.data_cfg.part=validation",
  ),
  train("First stage: train on fresh walks, with ground-truth context", "far1", FIRST),
  rollOut("Predict 256 walks", "rollouts1", averaged("far1", FIRST)),
  trainOn(
    "Second stage: train on fresh and on predicted walks",
    "rollouts1",
    "far2",
    SECOND,
    averaged("far1", FIRST),
    "train.optim_g.lr=1.2e-3",
  ),
  rollOut(
    "Predict 256 other walks with the model of the second stage",
    "rollouts2",
    averaged("far2", SECOND),
    "datasets.train.data_cfg.first=256",
  ),
  trainOn(
    "Third stage: the same on these, until the learning rate is 0",
    "rollouts2",
    "far3",
    THIRD,
    averaged("far2", SECOND),
    "train.optim_g.lr=1.2e-3",
    "train.lr_scheduler=cosine",
  ),
  convert("Store its averaged weights as f16", averaged("far3", THIRD), `${OUT}/far.safetensors`),
];

/** The arguments of `deno` for a command. */
export const denoArguments = ({ words }: Step): string[] => ["run", "-P", "far.ts", ...words];

/** Side effects of {@linkcode trainWorld}. */
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
