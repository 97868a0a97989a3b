/**
 * `far.ts weights`: the authors' checkpoints, and looking into, converting and checking any other.
 *
 * @module
 */
import { printable } from "../lib/io/errors.ts";
import { convertCheckpoint } from "../lib/pipeline/convert.ts";
import { publishedPath, pulledModels, pullModel, verifyModel } from "../lib/pipeline/published.ts";
import { bytes } from "../lib/units.ts";
import { choice, path, text, toggle, UsageError, type Values, verb } from "./args.ts";
import { progressFlags } from "./flags.ts";
import { inspectCheckpoint } from "../lib/pipeline/inspect.ts";
import { Progress, progressMode } from "./progress.ts";
import { columnLines, printJson } from "./report.ts";

const flags = {
  into: path("folder of pulled checkpoints (default: FAR_CACHE, else the user's cache folder)"),
  url: text("base URL of the model zoo, a mirror say (also FAR_WEIGHTS_URL)", { value: "URL" }),
  sha256: text("pull, verify: all 64 digits that the file's SHA-256 must have", { value: "HEX" }),
  offline: toggle("download nothing (also FAR_OFFLINE=1)"),
  entry: text("dictionary to take from a nested checkpoint, such as params_ema"),
  stats: toggle("inspect: mean, deviation, smallest and largest value of each tensor"),
  dtype: choice(["keep", "f32", "f16", "bf16"], "convert: type of the floating-point tensors", {
    default: "keep",
  }),
  ...progressFlags,
};
type WeightsFlags = Values<typeof flags>;

function list(f: WeightsFlags): void {
  const rows = pulledModels(f.into);
  if (f.json) return printJson(rows, 2);
  const cells = [
    ["name", "model", "data", "pixels", "condition", "parameters", "f32 size", "sha256", ""],
    ...rows.map((m) => [
      m.name,
      m.condition === "autoencoder" ? `DC-AE ${m.model}` : m.model,
      m.data,
      String(m.resolution),
      m.condition,
      `${(m.parameters / 1e6).toFixed(1)} M`,
      bytes(4 * m.parameters),
      m.sha8,
      m.pulled ? "pulled" : "",
    ]),
  ];
  columnLines(cells).forEach((line) => console.log(line));
}

async function pull(name: string, f: WeightsFlags): Promise<void> {
  const progress = new Progress(progressMode(f));
  const { path, sha256, checkedBits, text } = await pullModel(name, { ...f, watch: progress });
  progress.event("done", { path, sha256, checked_bits: checkedBits });
  progress.say(text);
}

function verify(name: string, f: WeightsFlags): number {
  const { path, expected, sha256, checkedBits, text, wrong } = verifyModel(name, f);
  if (f.json) printJson({ path, expected, sha256, matches: wrong === null, checked_bits: checkedBits });
  else if (wrong === null) console.log(printable(`${path}: ${text}`));
  if (wrong !== null) throw new Error(wrong);
  return 0;
}

function inspect(file: string, f: WeightsFlags): void {
  const report = inspectCheckpoint(publishedPath(file, f.into), f.entry, f.stats);
  if (f.json) return printJson(report, 2);
  const line = (text: string) => console.log(printable(text));
  const kinds = Object.entries(report.dtypes).map(([dtype, n]) => `${n} ${dtype}`).join(", ");
  line(
    `${report.path}: ${report.format}, ${bytes(report.bytes)}, ${report.tensors.length} tensors (${kinds})`,
  );
  if (report.entry !== "") line(`dictionary ${report.entry}, of ${report.groups.join(", ")}`);
  for (const [key, value] of Object.entries(report.metadata)) line(`metadata ${key}: ${value.slice(0, 100)}`);
  line(`${report.parameters.toLocaleString("en-US")} parameters`);
  if (report.fits.length > 0) line(`fits ${report.fits.join(" and ")}`);
  else if (report.nearest) {
    const { model, differences, first } = report.nearest;
    line(`fits none of our models; nearest is ${model}, ${differences} differences, the first: ${first}`);
  } else line("fits none of our models");
  for (const t of report.tensors) {
    const numbers = t.mean === undefined
      ? ""
      : `  mean ${t.mean.toPrecision(4)}  std ${t.std!.toPrecision(4)}  ${t.min!.toPrecision(4)} to ${
        t.max!.toPrecision(4)
      }`;
    const bad = t.bad ? `  ${t.bad} NOT FINITE` : "";
    line(`  ${printable(t.name).padEnd(52)} ${t.dtype.padEnd(5)} [${t.shape.join(", ")}]${numbers}${bad}`);
  }
}

async function convert(from: string, to: string, f: WeightsFlags): Promise<void> {
  const { tensors, entry, overflow } = await convertCheckpoint(publishedPath(from, f.into), to, f);
  const progress = new Progress(progressMode(f));
  if (overflow.length > 0) {
    progress.say(`warning: ${overflow.length} tensors became infinite in f16, the first is ${overflow[0]}`);
  }
  progress.event("done", { path: to, tensors, overflow });
  progress.say(`wrote ${to}: ${tensors} tensors${entry === "" ? "" : ` of ${entry}`}`);
}

const NEEDS: Readonly<Record<string, readonly string[]>> = {
  list: [],
  pull: ["NAME"],
  inspect: ["FILE"],
  convert: ["FILE", "TO"],
  verify: ["NAME or FILE"],
};

/** `far.ts weights`. */
export const weightsVerb = verb({
  name: "weights",
  summary: "List, pull, inspect, convert and verify checkpoints",
  about:
    "list prints the authors' model zoo; pull downloads one of its models, resumes an interrupted download, and compares " +
    "the SHA-256 with the eight digits in the file's name, or with all of --sha256; tokens (HF_TOKEN for huggingface.co, " +
    "FAR_TOKEN for the mirror in FAR_WEIGHTS_URL) go to their own server only, over https; inspect says what is in a checkpoint and which model it fits; convert " +
    "writes .pth as .safetensors or the reverse; verify compares a file with the digits in its name, or with --sha256.",
  operands: [
    { name: "ACTION", help: "what to do", choices: Object.keys(NEEDS) },
    { name: "FILE", help: "name in the zoo, or a checkpoint", optional: true, many: true },
  ],
  flags,
  examples: [
    { does: "the authors' models", line: "weights list" },
    { does: "download one of them", line: "weights pull FAR_B_Long_DMLab_Action64" },
    { does: "look into a checkpoint", line: "weights inspect checkpoint.pth --stats" },
    {
      does: "store as f16, half the size",
      line: "weights convert checkpoint.pth checkpoint.safetensors --dtype f16",
    },
    {
      does: "check that this is the published file",
      line: "weights verify FAR_B_UCF101_Uncond64-381d295f.pth",
    },
  ],
  run: async ({ flags: f, operands: [action, ...rest] }) => {
    const needs = NEEDS[action];
    if (rest.length !== needs.length) {
      throw new UsageError(
        `far.ts weights ${action}: expected ${needs.join(" and ") || "nothing more"}, found ${
          rest.join(" ") || "nothing"
        }`,
      );
    }
    switch (action) {
      case "list":
        return list(f);
      case "pull":
        return await pull(rest[0], f);
      case "inspect":
        return inspect(rest[0], f);
      case "convert":
        return await convert(rest[0], rest[1], f);
      default:
        return verify(rest[0], f);
    }
  },
});
