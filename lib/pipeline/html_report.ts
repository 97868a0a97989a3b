/**
 * Parts of the reports of all verbs: tables of facts from a result, and writing the file.
 *
 * @module
 */
import { writeAtomic } from "../io/atomic.ts";
import type { Fact, Facts } from "../report/page.ts";
import { bytes, duration } from "../units.ts";

/** The report beside every result. */
export const REPORT_FILE = "report.html";

/** Writes the report into a folder. */
export async function writeReport(folder: string, page: string): Promise<void> {
  await writeAtomic(`${folder}/${REPORT_FILE}`, page);
}

/** A value of a setting in words. */
function show(value: unknown): string {
  if (value === null || value === undefined) return "none";
  if (Array.isArray(value)) return value.length === 0 ? "none" : value.map(show).join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** The flags that were set or have a default. */
export const flagFacts = (flags: Readonly<Record<string, unknown>>): Facts => ({
  title: "Flags",
  rows: Object.entries(flags).filter(([, value]) => value !== undefined).map(([name, value]): Fact => [
    `--${name}`,
    show(value),
  ]),
});

/** Table rows about a model. */
export interface ModelFacts {
  readonly name: string;
  /** The file; null for random weights. */
  readonly weights?: string | null;
  readonly sha256: string | null;
  readonly parameters?: number;
}

/** A table of the two models. */
export function modelFacts(models: { readonly far: ModelFacts; readonly vae: ModelFacts }): Facts {
  const rows = ([["transformer", models.far], ["autoencoder", models.vae]] as const).flatMap((
    [role, { name, weights, sha256, parameters }],
  ): Fact[] => [
    [role, parameters === undefined ? name : `${name}, ${(parameters / 1e6).toFixed(1)} M parameters`],
    [`its weights`, sha256 === null ? "random" : `${weights ?? ""} sha256 ${sha256}`.trim()],
  ]);
  return { title: "Models", rows };
}

/** Measured seconds beside what was expected, stage by stage. */
export function timingFacts(
  took: Readonly<Record<string, number>>,
  expected: Readonly<Record<string, number>>,
): Facts {
  const sum = (values: Readonly<Record<string, number>>) => Object.values(values).reduce((a, b) => a + b, 0);
  const row = (name: string, seconds: number, estimate: number | undefined): Fact => [
    name,
    duration(seconds) + (estimate === undefined ? "" : ` (estimate ${duration(estimate)})`),
  ];
  const rows = Object.entries(took).map(([name, seconds]) => row(name, seconds, expected[name]));
  return { title: "Time", rows: [...rows, row("all", sum(took), sum(expected))] };
}

/** Text values by name, e.g. a protocol. */
export const recordFacts = (title: string, record: Readonly<Record<string, unknown>>): Facts => ({
  title,
  rows: Object.entries(record).map(([name, value]): Fact => [name.replaceAll("_", " "), show(value)]),
});

/** Nested options as `train.optim_g.lr`. */
export function optionFacts(options: object): Facts {
  const rows: Fact[] = [];
  const visit = (path: string, value: unknown) => {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      for (const [key, inner] of Object.entries(value)) visit(path === "" ? key : `${path}.${key}`, inner);
    } else if (value !== undefined) rows.push([path, show(value)]);
  };
  visit("", options);
  return { title: "Options", rows, folded: true };
}

/** The device, and its memory beside what was expected. */
export const deviceFacts = (
  device: { readonly description: string; readonly reason: string },
  memory?: { readonly peak: number; readonly expected: number },
): Facts => ({
  title: "Device",
  rows: [
    ["device", device.description],
    ["chosen because", device.reason],
    ...(memory ? [["memory", `${bytes(memory.peak)} (estimate ${bytes(memory.expected)})`] as const] : []),
  ],
});

/** Warning of a report about random weights. */
export const RANDOM_WARNING = "The weights are random: frames and figures mean nothing.";
