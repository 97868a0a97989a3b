/**
 * How long work shows itself: a bar with rate and time left on a terminal, a plain line now and then elsewhere, one JSON
 * object a line for programs, or nothing.
 *
 * @module
 */
import { printable } from "../lib/io/errors.ts";
import { paintFor } from "./colour.ts";
import { duration } from "../lib/units.ts";
import { printJson } from "./report.ts";

/** Way of showing progress. */
export type ProgressMode = "bar" | "lines" | "json" | "quiet";

/** Seconds between two plain lines, and between two drawings of a bar. */
const EVERY = { lines: 10, bar: 0.1 };

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
    if (this.mode === "lines") console.error(line);
    if (this.mode !== "bar") return;
    const bar = this.#bar;
    this.draw("");
    console.error(line);
    if (bar !== "") this.draw(bar);
  }

  /** The bar at the end of the terminal; lines go above it. */
  #bar = "";

  /** Draws a bar over the one that is there, or wipes it out. */
  draw(bar: string): void {
    if (bar !== "" || this.#bar !== "") Deno.stderr.writeSync(new TextEncoder().encode(`\r${bar}\x1b[K`));
    this.#bar = bar;
  }

  /** Leaves the bar where it is and starts a new line. */
  keep(): void {
    Deno.stderr.writeSync(new TextEncoder().encode("\n"));
    this.#bar = "";
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
  #shown: number;
  #done: number;
  #ended = false;
  #rate = "";
  #left = Infinity;

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
    if (progress.mode === "bar") this.#draw();
    progress.event("start", { stage: what, total, unit });
  }

  /** Seconds since the stage began. */
  get seconds(): number {
    return this.#progress.now() - this.#start;
  }

  #draw(): void {
    const { what, unit } = this, value = Math.floor(this.#done), total = Math.ceil(this.total) || value;
    const state = { what, value, total, unit, rate: this.#rate, left: duration(this.#left) };
    this.#progress.draw(barLine(state, terminalColumns()));
  }

  /**
   * Says how many steps are done. Fractions are fine: a denoising step is a part of a frame.
   *
   * @param done Steps, those of an earlier run included.
   * @param share Part of this run's work that is done, 0 to 1, where steps cost differently.
   */
  update(done: number, share: number = (done - this.from) / (this.total - this.from)): void {
    this.#done = done;
    const { what, total, unit, from, seconds } = this, known = total > 0, { mode } = this.#progress;
    const steps = known ? share * (total - from) : done - from;
    this.#rate = showRate(seconds > 0 ? steps / seconds : 0, unit);
    const left = this.#left = known && seconds > 0 && share > 0 ? seconds * (1 - share) / share : Infinity;
    this.#progress.event("progress", {
      stage: what,
      done: round(done),
      total: known ? total : null,
      seconds: round(seconds),
      left: left === Infinity ? null : round(left),
    });
    if (mode !== "lines" && mode !== "bar") return;
    const now = this.#progress.now();
    if (now - this.#shown < EVERY[mode] || (mode === "lines" && known && done >= total)) return;
    this.#shown = now;
    if (mode === "bar") return this.#draw();
    const so = known ? `${Math.floor(done)} of ${Math.ceil(total)}` : `${Math.floor(done)}`;
    const rest = known ? `, left ${duration(left)}` : "";
    this.#progress.say(`${what}: ${so} ${plural(unit)}, ${this.#rate}${rest}`);
  }

  /** Ends the stage. */
  [Symbol.dispose](): void {
    if (this.#ended) return;
    this.#ended = true;
    const { what, total, unit, seconds } = this, done = this.#done, { mode } = this.#progress;
    if (mode === "bar") {
      // The last state stays, above what comes next.
      this.#draw();
      this.#progress.keep();
    }
    this.#progress.event("end", { stage: what, done: round(done), total, seconds: round(seconds) });
    if (mode === "lines" && done >= total) {
      this.#progress.say(`${what}: ${Math.floor(done)} ${plural(unit)} in ${duration(seconds)}`);
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
