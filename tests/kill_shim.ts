/**
 * Kills a process at its n-th change of a folder: between any two file operations, and in the middle of every write.
 * kill_helpers.ts preloads it with these variables; without them it does nothing:
 *
 *     KILL_UNDER  folder whose changes are counted; it exists
 *     KILL_AT     point at which the process ends, 1 first; none unless given
 *     KILL_LOG    file that gets one line for every point that was passed
 *
 * It counts what this process itself changes under the folder. Flushing (`syncSync`) changes nothing that a kill could lose,
 * and what other programs (ffmpeg) write is not seen.
 *
 * @module
 */
import { isAbsolute, join, resolve, SEPARATOR } from "@std/path";

// deno-lint-ignore no-explicit-any -- functions of Deno of any signature
type Call = (...args: any[]) => any;

/** Functions that change what the paths among their first arguments name. */
const PATHS = {
  rename: 2,
  link: 2,
  symlink: 2,
  copyFile: 2,
  mkdir: 1,
  truncate: 1,
  utime: 1,
  chmod: 1,
};
const WRITES = ["writeFile", "writeTextFile"];

/** Is told before every change of the folder; `half` does the first half of the change. What it throws prevents the change. */
export type Point = (what: string, half?: () => void) => void;

const under = Deno.env.get("KILL_UNDER");
if (under !== undefined) {
  const log = Deno.env.get("KILL_LOG"), at = Number(Deno.env.get("KILL_AT") ?? Infinity);
  const { writeTextFileSync } = Deno;
  let count = 0;
  watchChanges(under, (what, half) => {
    if (++count !== at) {
      if (log !== undefined) writeTextFileSync(log, `${what}\n`, { append: true });
      return;
    }
    half?.();
    Deno.kill(Deno.pid, "SIGKILL");
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); // Windows ends it a moment later
  });
}

/** Calls `point` before every change of a folder that exists, until it is called back. */
export function watchChanges(folder: string, point: Point): () => void {
  const undo: (() => void)[] = [], { writeSync } = Deno.FsFile.prototype;
  const { openSync, removeSync, readDirSync, lstatSync } = Deno,
    roots = new Set([resolve(folder), Deno.realPathSync(folder)]);
  const paths = new WeakMap<Deno.FsFile, string>();

  const absolute = (path: unknown): string => {
    const plain = path instanceof URL ? decodeURIComponent(path.pathname) : String(path);
    return isAbsolute(plain) ? resolve(plain) : join(Deno.cwd(), plain);
  };
  /** The path below the folder, or null where it is elsewhere. */
  const inside = (path: unknown): string | null => {
    const full = absolute(path);
    for (const root of roots) {
      if (full === root) return ".";
      if (full.startsWith(root + SEPARATOR)) return full.slice(root.length + 1);
    }
    return null;
  };
  const isFolder = (path: string | URL): boolean => {
    try {
      return lstatSync(path).isDirectory;
    } catch {
      return false;
    }
  };
  const replace = (owner: object, name: string, made: (own: Call) => Call): void => {
    const own = (owner as Record<string, Call>)[name];
    (owner as Record<string, Call>)[name] = made(own);
    undo.push(() => (owner as Record<string, Call>)[name] = own);
  };
  const both = (name: string) => [name, `${name}Sync`];

  for (const [plain, many] of Object.entries(PATHS)) {
    for (const name of both(plain)) {
      replace(Deno, name, (own) => (...args) => {
        const named = args.slice(0, many).map(inside);
        const idle = plain === "mkdir" && args[1]?.recursive && isFolder(args[0]);
        if (named.some((n) => n !== null) && !idle) {
          point(`${plain} ${named.map((n, i) => n ?? String(args[i])).join(" to ")}`);
        }
        return own(...args);
      });
    }
  }
  for (const name of both("remove")) {
    replace(Deno, name, (own) => (path, options) => {
      const named = inside(path);
      if (named !== null) {
        point(`remove ${named}: nothing of it`);
        if (options?.recursive && isFolder(path)) {
          point(`remove ${named}: half of it`, () => {
            // What says that the rest is whole (index, state) mostly comes late in the alphabet.
            const entries = [...readDirSync(path)].map((e) => e.name).sort().reverse();
            entries.slice(0, Math.ceil(entries.length / 2)).forEach((e) =>
              removeSync(`${path}/${e}`, options)
            );
          });
        }
      }
      return own(path, options);
    });
  }
  for (const plain of WRITES) {
    for (const name of both(plain)) {
      replace(Deno, name, (own) => (path, content, options) => {
        const named = inside(path);
        if (named !== null) {
          point(`${plain} ${named}: nothing of it`);
          point(`${plain} ${named}: half of it`, () => {
            const bytes = typeof content === "string"
              ? new TextEncoder().encode(content)
              : content as Uint8Array;
            using file = openSync(path, {
              ...options,
              write: true,
              create: true,
              truncate: !options?.append,
            });
            writeSync.call(file, bytes.subarray(0, bytes.length >> 1));
          });
        }
        return own(path, content, options);
      });
    }
  }
  for (const name of both("open")) {
    replace(Deno, name, (own) => (path, options) => {
      const changes = options?.write || options?.append || options?.create || options?.truncate;
      const named = changes ? inside(path) : null;
      if (named !== null) point(`open ${named}`);
      const opened = own(path, options),
        seen = (file: Deno.FsFile): Deno.FsFile => {
          if (named !== null) paths.set(file, named);
          return file;
        };
      return opened instanceof Promise ? opened.then(seen) : seen(opened);
    });
  }
  for (const name of both("write")) {
    replace(Deno.FsFile.prototype, name, (own) =>
      function (this: Deno.FsFile, bytes: Uint8Array) {
        const named = paths.get(this);
        if (named !== undefined) {
          point(`write ${named}: nothing of it`);
          point(
            `write ${named}: half of it`,
            () => writeSync.call(this, bytes.subarray(0, bytes.length >> 1)),
          );
        }
        return own.call(this, bytes);
      });
  }
  for (const name of both("truncate")) {
    replace(Deno.FsFile.prototype, name, (own) =>
      function (this: Deno.FsFile, ...args: unknown[]) {
        const named = paths.get(this);
        if (named !== undefined) point(`truncate ${named}`);
        return own.apply(this, args);
      });
  }
  return () => undo.forEach((back) => back());
}
