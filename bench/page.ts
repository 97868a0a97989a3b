/**
 * Writes docs/benchmarks.md: every result in bench/results as a table, with device, date and commit, and charts of those
 * that grow with the number of frames.
 *
 *     deno run -A bench/page.ts
 *
 * @module
 */
import type { Curve } from "../lib/display/plot.ts";

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
type Row = Readonly<Record<string, string>>;

/** A row of gpu_table.json that is shown. */
interface PipelineRow {
  readonly kernel: string;
  readonly entry: string;
  /** The workload that launches it; `cases` are those of the kernels' tests alone. */
  readonly workload: string;
  readonly registers: number;
  readonly spills: number;
  readonly waves: number;
  readonly loop: { readonly issued: number; readonly instructions: number } | null;
}

const RESULTS = new URL("results/", import.meta.url);

const isObject = (value: Json): value is { readonly [key: string]: Json } =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Three significant digits; whole numbers and texts as they are. */
function cell(value: Json): string {
  if (typeof value !== "number") return String(value).replaceAll("|", "/");
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(3)));
}

/** Scalars of an object by name, those of objects in it by both names; lists are single measurements, which are left out. */
function flat(value: { readonly [key: string]: Json }, prefix = "", depth = 0): Row {
  const row: Record<string, string> = {};
  for (const [name, inner] of Object.entries(value)) {
    const key = prefix === "" ? name.replaceAll("_", " ") : `${prefix}, ${name.replaceAll("_", " ")}`;
    if (inner === null || Array.isArray(inner)) continue;
    if (!isObject(inner)) row[key] = cell(inner);
    else if (depth < 2) Object.assign(row, flat(inner, key, depth + 1));
  }
  return row;
}

/** Keys that accompany a result: the machine, the day, how it was measured. */
const ABOUT = new Set(
  [
    "what",
    "note",
    "date",
    "commit",
    "processor",
    "cpuFlags",
    "cores",
    "deno",
    "v8",
    "environment",
    "checked",
  ],
);

/** Pipelines of the models as a GPU's compiler sees them, a row per kernel and entry point: the worst of each column. */
function pipelineRows(all: readonly PipelineRow[]): Row[] {
  const rows = all.filter(({ workload }) => workload !== "cases");
  const groups = Object.groupBy(rows, ({ kernel, entry }) => `${kernel}, ${entry}`);
  return Object.entries(groups).map(([name, own = []]) => {
    const most = (key: "registers" | "spills") => String(Math.max(...own.map((row) => row[key])));
    const shares = own.flatMap(({ loop }) => loop ? [100 * loop.issued / loop.instructions] : []);
    return {
      "kernel, entry point": name,
      pipelines: String(own.length),
      registers: most("registers"),
      spills: most("spills"),
      "waves, at least": String(Math.min(...own.map((row) => row.waves))),
      "multiply-adds of the loop, at least": shares.length > 0 ? `${Math.min(...shares).toFixed(0)} %` : "",
    };
  });
}

/** The rows of a result: its list, its columns of equal length, or its objects by name. */
function rowsOf(json: { readonly [key: string]: Json }): Row[] {
  const { results, rows, frames, seconds } = json;
  if (Array.isArray(frames) && isObject(seconds)) {
    return frames.map((count, i) => {
      const own = Object.entries(seconds).map(([name, list]) => [name, (list as Json[])[i]]);
      return { frames: cell(count), ...flat(Object.fromEntries(own)) };
    });
  }
  const first = Array.isArray(rows) ? rows[0] : null;
  if (first && isObject(first) && "loop" in first) return pipelineRows(rows as unknown as PipelineRow[]);
  for (const list of [results, rows]) {
    if (Array.isArray(list)) return list.filter(isObject).map((r) => flat(r));
  }
  const parts = isObject(results) ? results : isObject(seconds) ? seconds : json;
  const named = Object.entries(parts).filter(([name]) => !ABOUT.has(name));
  return named.map(([name, value]) => ({
    "": name.replaceAll("_", " "),
    ...isObject(value) ? flat(value) : Array.isArray(value) ? {} : { value: cell(value) },
  })).filter((row) => Object.keys(row).length > 1);
}

/** A Markdown table; where rows are few and columns many, columns become rows. */
function markdown(rows: readonly Row[]): string {
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cells = [columns, ...rows.map((row) => columns.map((c) => row[c] ?? ""))];
  const table = columns.length > 8 ? columns.map((_, i) => cells.map((line) => line[i])) : cells;
  const line = (values: readonly string[]) => `| ${values.join(" | ")} |`;
  const [head, ...body] = table;
  return [line(head), `|${"---|".repeat(head.length)}`, ...body.map(line)].join("\n");
}

/** Where a result comes from, in a line. */
function origin(json: { readonly [key: string]: Json }): string {
  const from = isObject(json.environment) ? json.environment : json;
  const { date, commit, processor, deno, compiler, family } = from, { device, blas, extrapolated } = json;
  return [
    processor,
    compiler,
    family,
    device,
    blas,
    extrapolated === true ? "extrapolated from single frames" : null,
    `Deno ${deno}`,
    date,
    commit,
  ]
    .filter((part) => typeof part === "string").join(", ");
}

/** The curves of a result with a row per number of frames. */
export function curvesOf(rows: readonly Row[]): Curve[] {
  const grows = rows.every(({ frames }, i) => Number(frames) > Number(rows[i - 1]?.frames ?? 0));
  if (!grows || rows.length < 3) return [];
  const names = Object.keys(rows[0]).filter((name) => name.includes("seconds") || name.includes("cache"));
  return names.map((name) => ({
    name,
    points: rows.map((row) => [Number(row.frames), Number(row[name])] as const),
  }));
}

/** The page, and the charts beside it by file name. */
export async function benchmarkPage(): Promise<{ text: string; charts: Readonly<Record<string, string>> }> {
  const names = [...Deno.readDirSync(RESULTS)].map((e) => e.name).filter((n) => n.endsWith(".json")).sort();
  const parts = [
    "# Benchmarks\n\n<!-- Written by `deno run -A bench/page.ts` from bench/results; bench/README.md says what each program measures. -->",
  ];
  const charts: Record<string, string> = {};
  for (const name of names) {
    const json: Json = JSON.parse(await Deno.readTextFile(new URL(name, RESULTS)));
    if (!isObject(json)) continue;
    const title = name.replace(/\.json$/, ""), rows = rowsOf(json), curves = curvesOf(rows);
    const what = [json.what, json.note].filter((t) => typeof t === "string").map((t) => `${t}.`).join(" ");
    let chart = "";
    if (curves.length > 0) {
      const { chartPicture } = await import("../lib/display/plot.ts");
      charts[`${title}.svg`] = chartPicture({ title, x: "frames", y: "seconds", curves });
      chart = `\n\n![${title}](../bench/results/${title}.svg)`;
    }
    parts.push(`## ${title}\n\n${what}\n\n${origin(json)}${chart}\n\n${markdown(rows)}`);
  }
  return { text: parts.join("\n\n") + "\n", charts };
}

if (import.meta.main) {
  const { text, charts } = await benchmarkPage();
  await Deno.writeTextFile(new URL("../docs/benchmarks.md", import.meta.url), text);
  for (const [name, svg] of Object.entries(charts)) await Deno.writeTextFile(new URL(name, RESULTS), svg);
}
