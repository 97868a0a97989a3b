/**
 * Picks the verb, checks permissions, runs it, and turns what comes out into an exit code.
 *
 * @module
 */
import config from "../deno.json" with { type: "json" };
import { didYouMean } from "../lib/nearest.ts";
import { parseCall, UsageError, type Verb, verb } from "./args.ts";
import { paintFor } from "./colour.ts";
import { completionScript, overview, verbHelp } from "./help.ts";
import { checkPermissions } from "./permissions.ts";
import { report } from "./report.ts";
const completion = verb({
  name: "completion",
  summary: "Print a completion script for bash, zsh or fish",
  operands: [{ name: "SHELL", help: "the shell", choices: ["bash", "zsh", "fish"] }],
  flags: {},
  examples: [{
    does: "complete verbs, flags and values in bash, for an alias named far",
    line: "completion bash",
  }],
  run: async ({ operands }) => console.log(completionScript(await allVerbs(), operands[0])),
});

/** Loads each verb, in the order of the overview: whoever runs one does not wait for the code of all. */
const LOADERS: Readonly<Record<string, () => Promise<Verb>>> = {
  predict: async () => (await import("./predict.ts")).predictVerb,
  generate: async () => (await import("./generate.ts")).generateVerb,
  play: async () => (await import("./play.ts")).playVerb,
  train: async () => (await import("./train.ts")).trainVerb,
  "train-vae": async () => (await import("./train_vae.ts")).trainVaeVerb,
  evaluate: async () => (await import("./evaluate.ts")).evaluateVerb,
  rollout: async () => (await import("./rollout.ts")).rolloutVerb,
  encode: async () => (await import("./autoencode.ts")).encodeVerb,
  decode: async () => (await import("./autoencode.ts")).decodeVerb,
  weights: async () => (await import("./weights.ts")).weightsVerb,
  data: async () => (await import("./data.ts")).dataVerb,
  info: async () => (await import("./info.ts")).infoVerb,
  doctor: async () => (await import("./doctor.ts")).doctor,
  completion: () => Promise.resolve(completion),
};

/** All verbs, in the order of the overview. One after the other: side by side, they would load their common code many times. */
export const allVerbs = (): Promise<Verb[]> => Array.fromAsync(Object.values(LOADERS), (load) => load());

const verbNamed = (name: string): Promise<Verb | undefined> =>
  Promise.resolve(Object.hasOwn(LOADERS, name) ? LOADERS[name]() : undefined);

/**
 * Runs one command line.
 *
 * @param args The words after `far.ts`.
 * @returns The exit code.
 */
export async function main(args: readonly string[]): Promise<number> {
  try {
    const [name, ...rest] = args;
    if (name === undefined || name === "--help" || name === "-h" || name === "help") {
      const asked = name === "help" && rest.length > 0 ? await verbNamed(rest[0]) : undefined;
      const paint = paintFor(Deno.stdout);
      console.log(asked ? verbHelp(asked, paint) : overview(await allVerbs(), paint));
      return name === undefined ? 2 : 0;
    }
    if (name === "--version" || name === "-V" || name === "version") {
      console.log(`far ${config.version}, deno ${Deno.version.deno}, ${Deno.build.target}`);
      return 0;
    }
    const chosen = await verbNamed(name);
    if (!chosen) {
      const kind = name.startsWith("-") ? "flag" : "verb";
      const known = kind === "flag" ? ["--help", "--version"] : [...Object.keys(LOADERS), "help", "version"];
      const meant = didYouMean(name, known).replaceAll('"', "");
      throw new UsageError(`there is no ${kind} ${name}${meant} (far.ts --help lists them)`);
    }
    const call = parseCall(chosen, rest);
    if (call === "help") {
      console.log(verbHelp(chosen, paintFor(Deno.stdout)));
      return 0;
    }
    checkPermissions(chosen.name, args);
    return await chosen.run(call) ?? 0;
  } catch (error) {
    return report(error);
  }
}
