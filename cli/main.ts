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
import { decodeVerb, encodeVerb } from "./autoencode.ts";
import { dataVerb } from "./data.ts";
import { evaluateVerb } from "./evaluate.ts";
import { doctor } from "./doctor.ts";
import { infoVerb } from "./info.ts";
import { generateVerb } from "./generate.ts";
import { rolloutVerb } from "./rollout.ts";
import { trainVerb } from "./train.ts";
import { trainVaeVerb } from "./train_vae.ts";
import { weightsVerb } from "./weights.ts";
import { predictVerb } from "./predict.ts";

const completion = verb({
  name: "completion",
  summary: "Print a completion script for bash, zsh or fish",
  operands: [{ name: "SHELL", help: "the shell", choices: ["bash", "zsh", "fish"] }],
  flags: {},
  examples: [{
    does: "complete verbs, flags and values in bash, for an alias named far",
    line: "completion bash",
  }],
  run: ({ operands }) => {
    console.log(completionScript(VERBS, operands[0]));
    return Promise.resolve();
  },
});

/** All verbs, in the order of the overview. */
export const VERBS: readonly Verb[] = [
  predictVerb,
  generateVerb,
  trainVerb,
  trainVaeVerb,
  evaluateVerb,
  rolloutVerb,
  encodeVerb,
  decodeVerb,
  weightsVerb,
  dataVerb,
  infoVerb,
  doctor,
  completion,
];

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
      const asked = name === "help" ? VERBS.find((v) => v.name === rest[0]) : undefined;
      const paint = paintFor(Deno.stdout);
      console.log(asked ? verbHelp(asked, paint) : overview(VERBS, paint));
      return name === undefined ? 2 : 0;
    }
    if (name === "--version" || name === "-V" || name === "version") {
      console.log(`far ${config.version}, deno ${Deno.version.deno}, ${Deno.build.target}`);
      return 0;
    }
    const chosen = VERBS.find((v) => v.name === name);
    if (!chosen) {
      const kind = name.startsWith("-") ? "flag" : "verb";
      const known = kind === "flag"
        ? ["--help", "--version"]
        : [...VERBS.map((v) => v.name), "help", "version"];
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
