/**
 * How long work shows itself: a bar with rate and time left on a terminal, a plain line now and then elsewhere, one JSON
 * object a line for programs, or nothing.
 *
 * @module
 */
// @ts-types="./cli_progress.d.ts"
import cliProgress from "cli-progress";
import nodeProcess from "node:process";
import { printable } from "../lib/io/errors.ts";
import { paintFor } from "./colour.ts";
import { duration } from "../lib/units.ts";
import { printJson } from "./report.ts";

/** Way of showing progress. */
export type ProgressMode = "bar" | "lines" | "json" | "quiet";

/** Seconds between two plain lines. */
const EVERY = 10;

/**
 * Picks the way: `--quiet` and `--json` win, else a bar when stderr is a terminal that can move its cursor.
 *
 * @param flags The verb's `quiet` and `json`.
 */
export function progressMode(flags: { readonly quiet?: boolean; readonly json?: boolean }): ProgressMode {
  if (flags.json) return "json";
  if (flags.quiet) return "quiet";
  return Deno.stderr.isTerminal() ? "bar" : "lines";
}

/** The messages and progress of one run. Text goes to stderr; JSON events go to stdout, one object a line. */
export class Progress {
  /** @param mode How to show. @param now Seconds, for tests. */
  constructor(readonly mode: ProgressMode, readonly now: () => number = () => performance.now() / 1000) {}

  /** One line for people: an estimate, a choice, a result. Nothing under `--quiet` and `--json`. */
  say(line: string): void {
    this.#print(printable(line));
  }

  #print(line: string): void {
    if (this.mode === "bar" || this.mode === "lines") console.error(line);
  }

  /** Warnings so far, for the result file. */
  readonly warnings: string[] = [];

  /** One line on something that is allowed and probably not meant; an event under `--json`. */
  warn(line: string): void {
    this.warnings.push(line);
    this.event("warning", { message: line });
    this.#print(`${paintFor(Deno.stderr)("warning", "warning:")} ${printable(line)}`);
  }

  /** One event for programs; only under `--json`. */
  event(kind: string, values: Readonly<Record<string, unknown>> = {}): void {
    if (this.mode === "json") printJson({ event: kind, ...values });
  }

  /**
   * Starts a stage with a known number of steps.
   *
   * @param what What is being done, e.g. `encode`.
   * @param total Number of steps; 0 when it is not known.
   * @param unit What one step is, e.g. `frame`.
   * @param from Steps that an earlier run has done.
   */
  stage(what: string, total: number, unit: string, from = 0): Stage {
    return new Stage(this, what, total, unit, from);
  }
}

/** A stage of long work. `using` ends it, also when the work throws. */
export class Stage {
  readonly #progress: Progress;
  readonly #start: number;
  readonly #bar?: InstanceType<typeof cliProgress.SingleBar>;
  #shown = 0;
  #done = 0;
  #ended = false;

  /** See {@linkcode Progress.stage}. */
  constructor(
    progress: Progress,
    readonly what: string,
    readonly total: number,
    readonly unit: string,
    readonly from = 0,
  ) {
    this.#progress = progress;
    this.#done = from;
    this.#start = this.#shown = progress.now();
    if (progress.mode === "bar") {
      this.#bar = new cliProgress.SingleBar({
        format: (_, { value, total }, { rate, left }) =>
          barLine({ what, value, total, unit, rate, left }, terminalColumns()),
        stream: nodeProcess.stderr,
        hideCursor: false, // a kill could not bring it back
        gracefulExit: false, // Ctrl-C is ours
        fps: 10,
      });
      this.#bar.start(Math.ceil(total), Math.floor(from), { rate: "", left: "unknown" });
    }
    progress.event("start", { stage: what, total, unit });
  }

  /** Seconds since the stage began. */
  get seconds(): number {
    return this.#progress.now() - this.#start;
  }

  /**
   * Says how many steps are done. Fractions are fine: a denoising step is a part of a frame.
   *
   * @param done Steps, those of an earlier run included.
   * @param share Part of this run's work that is done, 0 to 1, where steps cost differently.
   */
  update(done: number, share: number = (done - this.from) / (this.total - this.from)): void {
    this.#done = done;
    const seconds = this.seconds;
    const known = this.total > 0;
    const rate = seconds <= 0
      ? 0
      : known
      ? share * (this.total - this.from) / seconds
      : (done - this.from) / seconds;
    const left = known && seconds > 0 && share > 0 ? seconds * (1 - share) / share : Infinity;
    if (!known) this.#bar?.setTotal(Math.ceil(done));
    this.#bar?.update(Math.floor(done), { rate: showRate(rate, this.unit), left: duration(left) });
    this.#progress.event("progress", {
      stage: this.what,
      done: round(done),
      total: known ? this.total : null,
      seconds: round(seconds),
      left: left === Infinity ? null : round(left),
    });
    if (this.#progress.mode !== "lines") return;
    const now = this.#progress.now();
    if ((known && done >= this.total) || now - this.#shown < EVERY) return;
    this.#shown = now;
    const so = known ? `${Math.floor(done)} of ${Math.ceil(this.total)}` : `${Math.floor(done)}`;
    const rest = known ? `, left ${duration(left)}` : "";
    this.#progress.say(`${this.what}: ${so} ${plural(this.unit)}, ${showRate(rate, this.unit)}${rest}`);
  }

  /** Ends the stage. */
  [Symbol.dispose](): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#bar?.stop();
    const seconds = this.seconds;
    this.#progress.event("end", {
      stage: this.what,
      done: round(this.#done),
      total: this.total,
      seconds: round(seconds),
    });
    if (this.#progress.mode === "lines" && this.#done >= this.total) {
      this.#progress.say(
        `${this.what}: ${Math.floor(this.#done)} ${plural(this.unit)} in ${duration(seconds)}`,
      );
    }
  }
}

/** Columns of the terminal on stderr; 80 where it does not say. */
export function terminalColumns(): number {
  try {
    return Deno.consoleSize().columns || 80;
  } catch {
    return 80;
  }
}

/** Contents of a progress bar. */
export interface BarState {
  readonly what: string;
  readonly value: number;
  readonly total: number;
  readonly unit: string;
  readonly rate: string;
  readonly left: string;
}

/** Narrower bars say nothing. */
const LEAST_BAR = 8;

/**
 * One line that fills a terminal: name, bar, count, rate and time left. A narrow terminal loses the rate, then the bar.
 *
 * @param columns Width of the terminal; the last column stays empty, for writing there would break the line.
 */
export function barLine({ what, value, total, unit, rate, left }: BarState, columns: number): string {
  const name = what.padEnd(8), width = columns - 1;
  const count = `${String(value).padStart(String(total).length)}/${total} ${plural(unit)}`;
  const ends = [[count, rate, `left ${left}`], [count, `left ${left}`]]
    .map((parts) => parts.filter((part) => part !== "").join("  "));
  const end = ends.find((text) => name.length + text.length + 2 + LEAST_BAR <= width);
  if (end === undefined) return `${name} ${ends[1]}`.slice(0, width);
  const room = width - name.length - end.length - 2;
  const full = total > 0 ? Math.round(Math.min(1, value / total) * room) : 0;
  return `${name} ${"#".repeat(full)}${"-".repeat(room - full)} ${end}`;
}

/** `frames`, but `MiB` as it is. */
const plural = (unit: string): string => /^[a-z]/.test(unit) ? `${unit}s` : unit;

function showRate(perSecond: number, unit: string): string {
  if (perSecond === 0) return "";
  return perSecond >= 1
    ? `${perSecond.toFixed(1)} ${plural(unit)}/s`
    : `${(1 / perSecond).toFixed(1)} s/${unit}`;
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}
