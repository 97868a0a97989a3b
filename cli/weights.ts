/**
 * `far.ts weights`: the authors' checkpoints, and looking into, converting and checking any other.
 *
 * @module
 */
import { printable } from "../lib/io/errors.ts";
import { commandOf } from "./help.ts";
import { fromFloat32, type HostTensor, type LazyTensor, toFloat32 } from "../lib/io/host.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { isFile, isSame } from "../lib/io/paths.ts";
import { writePth } from "../lib/io/pth_write.ts";
import { writeSafetensors } from "../lib/io/safetensors.ts";
import { stateDict } from "../lib/io/state_dict.ts";
import { didYouMean } from "../lib/nearest.ts";
import { choice, path, text, toggle, UsageError, type Values, verb } from "./args.ts";
import { download } from "./download.ts";
import { progressFlags } from "./flags.ts";
import { inspectCheckpoint } from "../lib/pipeline/inspect.ts";
import { Progress, progressMode } from "./progress.ts";
import { environment } from "../lib/io/environment.ts";
import { bytes } from "../lib/units.ts";
import { printJson } from "./report.ts";
import {
  cachedPath,
  cacheFolder,
  hashInName,
  hashMatches,
  serverTokens,
  sizeLimits,
  ZOO,
  ZOO_URL,
  type ZooModel,
} from "../lib/pipeline/zoo.ts";

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

/** @throws {UsageError} If the zoo has no such model: the nearest name. */
function zooModel(name: string): ZooModel {
  const found = ZOO.find((m) => m.name === name || m.file === name || m.file.endsWith(`/${name}`));
  if (found) return found;
  throw new UsageError(
    `far.ts weights: there is no model ${name} in the zoo${
      didYouMean(name, ZOO.map((m) => m.name))
    } (far.ts weights list)`,
  );
}

function list(f: WeightsFlags): void {
  const folder = f.into ?? cacheFolder();
  const rows = ZOO.map((m) => ({
    ...m,
    pulled: isFile(cachedPath(m, folder)) ? cachedPath(m, folder) : null,
  }));
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
  const widths = cells[0].map((_, i) => Math.max(...cells.map((row) => row[i].length)));
  for (const row of cells) console.log(row.map((cell, i) => cell.padEnd(widths[i])).join("  ").trimEnd());
}

/**
 * The digits that a file's SHA-256 has to begin with: all that `--sha256` gives, else the eight in its published name.
 *
 * @throws {UsageError} If the flag is no SHA-256, or contradicts the name.
 */
function expectedDigits(sha8: string | undefined, f: WeightsFlags): string | undefined {
  const whole = f.sha256?.toLowerCase();
  if (whole === undefined) return sha8;
  if (!/^[0-9a-f]{64}$/.test(whole)) {
    throw new UsageError(`--sha256: expected 64 hexadecimal digits, found ${f.sha256}`);
  }
  if (sha8 !== undefined && !whole.startsWith(sha8)) {
    throw new UsageError(`--sha256: begins with ${whole.slice(0, 8)}, but the file's name says ${sha8}`);
  }
  return whole;
}

/** How much of a SHA-256 has been compared: eight digits are no proof against somebody who wants to deceive. */
const checked = (digits: string, found: string): string =>
  digits.length === 64
    ? "its SHA-256 is the one that was asked for"
    : `${
      4 * digits.length
    } of the 256 bits of its SHA-256 were checked, those in its name; in full it is ${found} ` +
      "(compare it with a source that you trust, or give it as --sha256)";

/** @throws {UsageError} If the base of the model zoo is no address, or one with a password in it. */
function zooUrl(file: string, f: WeightsFlags): URL {
  const base = (f.url ?? environment("FAR_WEIGHTS_URL") ?? ZOO_URL).replace(/\/+$/, "");
  const url = URL.canParse(`${base}/${file}`) ? new URL(`${base}/${file}`) : undefined;
  if (url?.protocol !== "http:" && url?.protocol !== "https:") {
    throw new UsageError(`--url: expected an http or https address, found ${base}`);
  }
  if (url.username !== "" || url.password !== "") {
    throw new UsageError(
      "--url: expected an address without user and password; a token comes from FAR_TOKEN",
    );
  }
  return url;
}

async function pull(name: string, f: WeightsFlags): Promise<void> {
  const model = zooModel(name), target = cachedPath(model, f.into ?? cacheFolder());
  const digits = expectedDigits(model.sha8, f)!, size = sizeLimits(model);
  const progress = new Progress(progressMode(f));
  let sha256 = "";
  const done = (line: string) => {
    progress.event("done", { path: target, sha256, checked_bits: 4 * digits.length });
    progress.say(`${line}; ${checked(digits, sha256)}`);
  };
  if (isFile(target)) {
    const { matches, found } = hashMatches(target, digits);
    sha256 = found;
    if (matches) return done(`${target} is there already`);
    progress.say(
      `${target} has SHA-256 ${found}, expected ${digits}${digits.length < 64 ? "..." : ""}: pulling it anew`,
    );
  }
  const off = environment("FAR_OFFLINE");
  if (f.offline || (off !== undefined && off !== "" && off !== "0")) {
    throw new Error(
      `weights pull ${name}: ${target} is not there, and downloads are off (--offline or FAR_OFFLINE)`,
    );
  }
  const url = zooUrl(model.file, f);
  const state = await Deno.permissions.query({ name: "net", host: url.host });
  if (state.state !== "granted") {
    throw new UsageError(
      `weights pull: may not reach ${url.host}; type: ${
        commandOf("weights")
      } weights pull ${name}, and for another host ` +
        `than the authors' add --allow-net=${url.host}`,
    );
  }
  await download({
    url: url.href,
    path: target,
    tokens: serverTokens(),
    // All digits say more than a size can.
    size: digits.length === 64 ? { least: 1, most: size.most } : size,
    progress,
    check: (file) => {
      const { matches, found } = hashMatches(file, digits);
      sha256 = found;
      return matches ? undefined : `the server sent another file: ${differs(found, digits)}`;
    },
  });
  done(`wrote ${target}`);
}

const differs = (found: string, digits: string): string =>
  `SHA-256 begins with ${found.slice(0, digits.length)}, expected ${digits}`;

function verify(name: string, f: WeightsFlags): number {
  const model = ZOO.find((m) => m.name === name);
  const file = model ? cachedPath(model, f.into ?? cacheFolder()) : name;
  const digits = expectedDigits(model?.sha8 ?? hashInName(file), f);
  if (digits === undefined) {
    throw new UsageError(
      `${file}: expected a name with eight hex digits of its SHA-256, such as model-0123abcd.pth, a zoo name, or --sha256`,
    );
  }
  const { matches, found } = hashMatches(file, digits);
  if (f.json) {
    printJson({ path: file, expected: digits, sha256: found, matches, checked_bits: 4 * digits.length });
  } else if (matches) console.log(printable(`${file}: ${checked(digits, found)}`));
  if (!matches) throw new Error(`${file}: ${differs(found, digits)}: pull it again`);
  // A file may be what was published and still not be what a model needs, so the content is opened too.
  openTensorFile(file).close();
  return 0;
}

function inspect(file: string, f: WeightsFlags): void {
  const report = inspectCheckpoint(pathOf(file, f), f.entry, f.stats);
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

const DTYPES = { f32: "F32", f16: "F16", bf16: "BF16" } as const;

async function convert(from: string, to: string, f: WeightsFlags): Promise<void> {
  const ending = /\.(safetensors|pth|pt)$/i.exec(to)?.[1].toLowerCase();
  if (ending === undefined) {
    throw new UsageError(`weights convert: expected a name ending in .safetensors or .pth, found ${to}`);
  }
  const source = pathOf(from, f);
  if (isSame(source, to)) {
    throw new UsageError(`weights convert: ${to} is the file that is read, expected another`);
  }
  using file = openTensorFile(source);
  const { tensors, entry } = stateDict(file, f.entry);
  const wanted = f.dtype === "keep" ? null : DTYPES[f.dtype];
  const overflow: string[] = [];
  const converted = [...tensors].map(([name, t]): readonly [string, HostTensor | LazyTensor] => {
    if (wanted === null || !/^(F|BF)/.test(t.dtype) || t.dtype === wanted) return [name, t];
    return [name, {
      shape: t.shape,
      dtype: wanted,
      read: () => {
        const values = toFloat32(t.read());
        if (wanted === "F16" && values.some((v) => Number.isFinite(v) && Math.abs(v) >= 65520)) {
          overflow.push(name);
        }
        return fromFloat32(values, t.shape, wanted);
      },
    }];
  });
  const metadata = { ...file.metadata, format: "pt" };
  if (ending === "safetensors") await writeSafetensors(to, converted, metadata);
  else await writePth(to, converted);
  const progress = new Progress(progressMode(f));
  if (overflow.length > 0) {
    progress.say(`warning: ${overflow.length} tensors became infinite in f16, the first is ${overflow[0]}`);
  }
  progress.event("done", { path: to, tensors: tensors.size, overflow });
  progress.say(`wrote ${to}: ${tensors.size} tensors${entry === "" ? "" : ` of ${entry}`}`);
}

/** A zoo name stands for its pulled file. */
function pathOf(given: string, f: WeightsFlags): string {
  const model = isFile(given) ? undefined : ZOO.find((m) => m.name === given);
  return model ? cachedPath(model, f.into ?? cacheFolder()) : given;
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
