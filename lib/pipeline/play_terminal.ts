/**
 * A walk in a terminal: half blocks, arrow keys.
 *
 * @module
 */
import { halfBlocks } from "../display/half_blocks.ts";
import { printable } from "../io/errors.ts";
import type { Frames } from "../io/frames.ts";
import { frameText, type Walk } from "./play.ts";

/** Options of {@linkcode playInTerminal}. */
export interface TerminalOptions {
  /** First line of the screen. */
  readonly title: string;
  /** Saves the walk so far; returns the paths. */
  readonly record: () => Promise<readonly string[]>;
  /** Ends the walk. */
  readonly stopped: Promise<unknown>;
}

/** Key names of the arrows, by the last letter of what the terminal sends; all other keys but Enter send themselves. */
const ARROWS: Readonly<Record<string, string>> = { A: "ArrowUp", C: "ArrowRight", D: "ArrowLeft" };

/** Keys that end a walk: q, Ctrl-D, and what the end of the input becomes where it came before single keys were asked for. */
const ENDS = ["q", "\x04", "\0"];

/** Keys in what a terminal has sent, named as browsers name them; Ctrl-C is `\x03`. */
export function keysIn(sent: string): string[] {
  // deno-lint-ignore no-control-regex -- terminals send it
  return [...sent.matchAll(/\x1b(?:\[|O)([A-Z])|[^]/g)].map(([key, arrow]) =>
    arrow === undefined ? key === "\r" ? "Enter" : key : ARROWS[arrow] ?? ""
  );
}

const encoder = new TextEncoder(), decoder = new TextDecoder();

function write(text: string): void {
  const bytes = encoder.encode(text);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}

/** The other screen of the terminal, without a cursor, and every key as it is pressed; all as it was when disposed of. */
class Screen implements Disposable {
  readonly #leave = () => this[Symbol.dispose]();
  #open = true;

  constructor() {
    addEventListener("unload", this.#leave); // a second signal ends the process at once
    Deno.stdin.setRaw(true);
    write("\x1b[?1049h\x1b[?25l");
  }

  /** Shows pictures beside each other below the first line and above the others. */
  draw(title: string, pictures: readonly Frames[], below: readonly string[]): void {
    const size = Deno.consoleSize(), columns = size.columns || 80, rows = size.rows || 24; // 0: not known
    const width = Math.floor((columns + 1) / pictures.length) - 1, height = rows - below.length - 2;
    const blocks = pictures.map((frame) => halfBlocks(frame, Math.max(1, width), Math.max(1, height)));
    const picture = blocks[0].map((_, i) => blocks.map((block) => block[i]).join(" "));
    const cut = (line: string) => printable(line).slice(0, columns - 1);
    write(`\x1b[H${[cut(title), ...picture, ...below.map(cut)].join("\x1b[K\r\n")}\x1b[J`);
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    removeEventListener("unload", this.#leave);
    write("\x1b[?25h\x1b[?1049l");
    Deno.stdin.setRaw(false);
  }
}

/**
 * Walks until `q`, Ctrl-D or Ctrl-C is pressed, the input ends, or `stopped` settles. The terminal is left as it was.
 *
 * @returns Whether Ctrl-C ended it.
 */
export async function playInTerminal(session: Walk, options: TerminalOptions): Promise<boolean> {
  const { title, record } = options, stopped = options.stopped.then(() => null), buffer = new Uint8Array(256);
  const arrows = Object.keys(session.keys).filter((key) => key.length > 1);
  const names = session.actions.slice(0, 10).map((name, action) => {
    const key = arrows.find((arrow) => session.keys[arrow] === action) ?? action;
    return `${key} ${name}`;
  });
  const help = [...names, ...(session.truth ? ["t world"] : []), "r record", "q quit"].join(", ");
  let frame = session.last(1)[0], status = "", message = "", beside = false;
  using screen = new Screen();
  while (true) {
    const shown = beside && session.truth ? [frame, session.truth] : [frame];
    screen.draw(title, shown, [status, help, message]);
    const count = await Promise.race([Deno.stdin.read(buffer), stopped]);
    const keys = count === null ? ["q"] : keysIn(decoder.decode(buffer.subarray(0, count)));
    if (keys.includes("\x03")) return true;
    if (keys.some((k) => ENDS.includes(k))) return false;
    // A held key sends more than there is time for: of keys that came meanwhile, the last one counts.
    const key = keys.findLast((k) => k in session.keys);
    if (keys.filter((k) => k === "t").length % 2 === 1) beside = !beside;
    message = "";
    if (keys.includes("r")) {
      message = await record().then(
        (files) => `wrote ${files.join(", ")}`,
        (error) => `${error.message}`,
      );
    }
    if (key === undefined) continue;
    const played = await session.act(session.keys[key]);
    [frame, status] = [played.frame, frameText(played)];
  }
}
