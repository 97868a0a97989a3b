/**
 * The log of ffmpeg: its last words, and whether it complained about the data.
 *
 * @module
 */

/** How an ffmpeg ended. */
export interface Ended {
  /** Whether it did all that it was asked for. */
  readonly success: boolean;
  /** Its complaint, in one line; empty if it had none. */
  readonly said: string;
}

/** The flags that make ffmpeg mark its lines with their level; {@linkcode FfmpegLog} relies on them. */
export const LOG_FLAGS: readonly string[] = ["-hide_banner", "-v", "level+warning"];

/** Lines that say nothing about the input, or follow from an earlier one. */
const EMPTY_TALK =
  /^(Conversion failed|Error while (filter|processing)|Error marking filters|Exiting normally|At least one output|Nothing was written|non.monoton|Application provided invalid, non monoton)/i;

/**
 * Collects the complaints: lines of level error or worse, and warnings that a packet or a frame is corrupt. ffmpeg 5.1 says
 * nothing of the kind about intact files (2026-11-21, 35 files in 10 containers), and drops or conceals frames after each.
 */
export class FfmpegLog {
  readonly #first: string[] = [];
  #rest = "";

  /** Adds a piece of its standard error. */
  push(text: string): void {
    const lines = (this.#rest + text).split(/[\r\n]+/);
    this.#rest = lines.pop()!.slice(0, 8192);
    for (const line of lines) this.#add(line);
  }

  #add(line: string): void {
    // An old ffmpeg that is asked for levels marks every line as well; a program that is none marks nothing.
    const level = /\[(panic|fatal|error|warning|info|verbose|debug)\] /.exec(line)?.[1] ?? "error";
    const text = line.replace(/\[(panic|fatal|error|warning|info|verbose|debug)\] /, "")
      .replace(/\[([\w,-]+)[^\]]*? @ 0x[0-9a-f]+\]\s*/gi, "$1: ").trim();
    const bad = level === "error" || level === "fatal" || level === "panic" || /\bcorrupt/i.test(text);
    // The first complaint is the cause, the last one what came of it.
    if (bad && text !== "" && !EMPTY_TALK.test(text) && !this.#first.includes(text)) {
      if (this.#first.length === 2) this.#first.pop();
      this.#first.push(text);
    }
  }

  /** The first and the last complaint. */
  get said(): string {
    this.push("\n");
    return this.#first.join("; ").slice(0, 300);
  }
}
