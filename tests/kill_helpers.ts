/**
 * Runs far.ts and ends it hard at a chosen file operation, or at a random moment.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { farArgs } from "./cli_helpers.ts";

const SHIM = new URL("kill_shim.ts", import.meta.url).href;

/** How a command is run. */
export interface Killable {
  /** The words after far.ts. */
  readonly args: readonly string[];
  /** Folder whose changes are counted; it exists, and holds all that the command writes. */
  readonly under: string;
  /** More variables of the environment. */
  readonly env?: Record<string, string>;
}

async function shimmed({ args, under, env }: Killable, variables: Record<string, string>) {
  const [run, ...words] = farArgs(args, "-A");
  const { code, signal, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [run, `--preload=${SHIM}`, ...words],
    env: { NO_COLOR: "1", ...env, KILL_UNDER: under, ...variables },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  return { code, signal, stderr: new TextDecoder().decode(stderr) };
}

/**
 * Runs the command to its end.
 *
 * @returns Every point at which {@linkcode killedAt} can end it, in order, in words. A write has two: before it, and with half
 * of its bytes written.
 */
export async function killPoints(command: Killable): Promise<string[]> {
  const log = await Deno.makeTempFile();
  try {
    const { code, stderr } = await shimmed(command, { KILL_LOG: log });
    assertEquals(code, 0, stderr);
    return Deno.readTextFileSync(log).replaceAll(/\.\d+-[0-9a-f]{8}\.tmp/g, ".tmp").split("\n").slice(0, -1);
  } finally {
    Deno.removeSync(log);
  }
}

/**
 * Points worth a process each: of the writes to one file in a row the first, one in the middle and the last, for a file is only
 * longer between the others.
 */
export function tellingPoints(points: readonly string[]): number[] {
  const fileOf = (i: number) => /^write (.*): /.exec(points[i] ?? "")?.[1];
  const chosen: number[] = [];
  for (let first = 0, next; first < points.length; first = next) {
    const file = fileOf(first);
    for (next = first + 1; file !== undefined && fileOf(next) === file; next++);
    chosen.push(...new Set([first, (first + next) >> 1, next - 1]));
  }
  return chosen;
}

/** Runs the command and ends it with SIGKILL at a point, 0 first; an error if it ends before. */
export async function killedAt(command: Killable, point: number): Promise<void> {
  const { signal, code, stderr } = await shimmed(command, { KILL_AT: `${point + 1}` });
  assertEquals(signal, "SIGKILL", `point ${point}: ended with ${code} before it could be killed\n${stderr}`);
}

/** Runs the command and ends it with SIGKILL after so many milliseconds; whether it was still running then. */
export async function killedAfter(args: readonly string[], ms: number): Promise<boolean> {
  const child = new Deno.Command(Deno.execPath(), {
    args: farArgs(args, "-A"),
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const timer = setTimeout(() => child.kill("SIGKILL"), ms);
  const { signal } = await child.status;
  clearTimeout(timer);
  return signal === "SIGKILL";
}

/** Content of every file under a folder by its path in it, and the path alone for a folder or a link; hidden ones too. */
export function treeOf(folder: string, at = ""): Map<string, Uint8Array | null> {
  const found = new Map<string, Uint8Array | null>();
  for (const entry of Deno.readDirSync(`${folder}/${at}`)) {
    const path = at + entry.name;
    found.set(path, entry.isFile ? Deno.readFileSync(`${folder}/${path}`) : null);
    if (entry.isDirectory) treeOf(folder, `${path}/`).forEach((bytes, name) => found.set(name, bytes));
  }
  return new Map([...found].sort(([a], [b]) => a < b ? -1 : 1));
}

/** A copy of a folder tree. */
export function copyFolder(from: string, to: string): void {
  Deno.mkdirSync(to);
  for (const [name, bytes] of treeOf(from)) {
    if (bytes === null) Deno.mkdirSync(`${to}/${name}`);
    else Deno.writeFileSync(`${to}/${name}`, bytes);
  }
}

/** Paths under a folder that a finished run must not leave: names that start with a dot. `OWN` are names that stay. */
export const hiddenIn = (folder: string, own: readonly string[] = []): string[] =>
  [...treeOf(folder).keys()].filter((path) => {
    const name = path.slice(path.lastIndexOf("/") + 1);
    return name.startsWith(".") && !own.includes(name);
  });
