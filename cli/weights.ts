/**
 * `far.ts weights`: the authors' checkpoints, and looking into, converting and checking any other.
 *
 * @module
 */
import { commandOf } from "./help.ts";
import { fromFloat32, type HostTensor, type LazyTensor, toFloat32 } from "../lib/io/host.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { isFile } from "../lib/io/paths.ts";
import { writePth } from "../lib/io/pth_write.ts";
import { writeSafetensors } from "../lib/io/safetensors.ts";
import { stateDict } from "../lib/io/state_dict.ts";
import { didYouMean } from "../lib/nearest.ts";
import { choice, path, text, toggle, UsageError, type Values, verb } from "./args.ts";
import { download } from "./download.ts";
import { progressFlags } from "./flags.ts";
import { inspectCheckpoint } from "./inspect.ts";
import { Progress, progressMode } from "./progress.ts";
import { bytes, environment } from "./report.ts";
import { cachedPath, cacheFolder, hashInName, hashMatches, ZOO, ZOO_URL, type ZooModel } from "./zoo.ts";

const flags = {
  into: path("folder of pulled checkpoints (default: FAR_CACHE, else the user's cache folder)"),
  url: text("base URL of the model zoo, a mirror say (also FAR_WEIGHTS_URL)", { value: "URL" }),
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
  if (f.json) return console.log(JSON.stringify(rows, null, 2));
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

async function pull(name: string, f: WeightsFlags): Promise<void> {
  const model = zooModel(name), target = cachedPath(model, f.into ?? cacheFolder());
  const progress = new Progress(progressMode(f));
  if (isFile(target)) {
    const { matches, found } = hashMatches(target, model.sha8);
    if (matches) {
      progress.event("done", { path: target });
      return progress.say(`${target} is there already, and its checksum is right`);
    }
    progress.say(`${target} has checksum ${found.slice(0, 8)}, expected ${model.sha8}: pulling it anew`);
  }
  const off = environment("FAR_OFFLINE");
  if (f.offline || (off !== undefined && off !== "" && off !== "0")) {
    throw new Error(
      `weights pull ${name}: ${target} is not there, and downloads are off (--offline or FAR_OFFLINE)`,
    );
  }
  const base = (f.url ?? environment("FAR_WEIGHTS_URL") ?? ZOO_URL).replace(/\/+$/, "");
  const token = environment("FAR_TOKEN") || environment("HF_TOKEN");
  let url: URL;
  try {
    url = new URL(`${base}/${model.file}`);
  } catch {
    throw new UsageError(`--url: expected an http or https address, found ${base}`);
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new UsageError(`--url: expected an http or https address, found ${base}`);
  }
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
    token,
    progress,
    check: (file) => {
      const { matches, found } = hashMatches(file, model.sha8);
      return matches
        ? undefined
        : `the server sent another file: SHA-256 begins with ${found.slice(0, 8)}, expected ${model.sha8}`;
    },
  });
  progress.event("done", { path: target });
  progress.say(`wrote ${target}; its checksum is right`);
}

function verify(name: string, f: WeightsFlags): number {
  const model = ZOO.find((m) => m.name === name);
  const file = model ? cachedPath(model, f.into ?? cacheFolder()) : name;
  const sha8 = model?.sha8 ?? hashInName(file);
  if (sha8 === undefined) {
    throw new UsageError(
      `${file}: expected a name with eight hex digits of its SHA-256, such as model-0123abcd.pth, or a zoo name`,
    );
  }
  const { matches, found } = hashMatches(file, sha8);
  if (f.json) console.log(JSON.stringify({ path: file, expected: sha8, sha256: found, matches }));
  else if (matches) console.log(`${file}: SHA-256 ${found}, as its name says`);
  if (!matches) {
    throw new Error(`${file}: SHA-256 begins with ${found.slice(0, 8)}, expected ${sha8}: pull it again`);
  }
  // A file may be what was published and still not be what a model needs, so the content is opened too.
  openTensorFile(file).close();
  return 0;
}

function inspect(file: string, f: WeightsFlags): void {
  const report = inspectCheckpoint(pathOf(file, f), f.entry, f.stats);
  if (f.json) return console.log(JSON.stringify(report, null, 2));
  const kinds = Object.entries(report.dtypes).map(([dtype, n]) => `${n} ${dtype}`).join(", ");
  console.log(
    `${report.path}: ${report.format}, ${bytes(report.bytes)}, ${report.tensors.length} tensors (${kinds})`,
  );
  if (report.entry !== "") console.log(`dictionary ${report.entry}, of ${report.groups.join(", ")}`);
  for (const [key, value] of Object.entries(report.metadata)) {
    console.log(`metadata ${key}: ${value.slice(0, 100)}`);
  }
  console.log(`${report.parameters.toLocaleString("en-US")} parameters`);
  if (report.fits.length > 0) console.log(`fits ${report.fits.join(" and ")}`);
  else if (report.nearest) {
    const { model, differences, first } = report.nearest;
    console.log(
      `fits none of our models; nearest is ${model}, ${differences} differences, the first: ${first}`,
    );
  } else console.log("fits none of our models");
  for (const t of report.tensors) {
    const numbers = t.mean === undefined
      ? ""
      : `  mean ${t.mean.toPrecision(4)}  std ${t.std!.toPrecision(4)}  ${t.min!.toPrecision(4)} to ${
        t.max!.toPrecision(4)
      }`;
    const bad = t.bad ? `  ${t.bad} NOT FINITE` : "";
    console.log(`  ${t.name.padEnd(52)} ${t.dtype.padEnd(5)} [${t.shape.join(", ")}]${numbers}${bad}`);
  }
}

const DTYPES = { f32: "F32", f16: "F16", bf16: "BF16" } as const;

async function convert(from: string, to: string, f: WeightsFlags): Promise<void> {
  const ending = /\.(safetensors|pth|pt)$/i.exec(to)?.[1].toLowerCase();
  if (ending === undefined) {
    throw new UsageError(`weights convert: expected a name ending in .safetensors or .pth, found ${to}`);
  }
  using file = openTensorFile(pathOf(from, f));
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
    "list prints the authors' model zoo; pull downloads one of its models, goes on where an earlier download broke off, and compares " +
    "the SHA-256 with the eight digits in the file's name; inspect says what is in a checkpoint and which model it fits; convert " +
    "writes .pth as .safetensors or the reverse; verify compares a file with the digits in its name.",
  operands: [
    { name: "ACTION", help: "what to do", choices: Object.keys(NEEDS) },
    { name: "FILE", help: "name in the zoo, or a checkpoint", optional: true, many: true },
  ],
  flags,
  examples: [
    { does: "the authors' models", line: "weights list" },
    { does: "download one of them", line: "weights pull FAR_B_Long_DMLab_Action64" },
    { does: "look into a checkpoint", line: "weights inspect checkpoint.pth --stats" },
    { does: "half the size", line: "weights convert checkpoint.pth checkpoint.safetensors --dtype f16" },
    {
      does: "is this the file that was published",
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
