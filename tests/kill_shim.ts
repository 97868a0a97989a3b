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

const under = Deno.env.get("KILL_UNDER"), log = Deno.env.get("KILL_LOG");
const at = Number(Deno.env.get("KILL_AT") ?? Infinity);

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

if (under !== undefined) install(under);

function install(folder: string): void {
  const { writeTextFileSync, realPathSync, writeSync } = {
    writeTextFileSync: Deno.writeTextFileSync,
    realPathSync: Deno.realPathSync,
    writeSync: Deno.FsFile.prototype.writeSync,
  };
  const { openSync, removeSync, readDirSync, lstatSync } = Deno,
    roots = new Set([resolve(folder), realPathSync(folder)]);
  const paths = new WeakMap<Deno.FsFile, string>();
  let count = 0;

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
  /** One more point at which the process may end; `half` is what it still does when it ends here. */
  const point = (what: string, half?: () => void): void => {
    if (++count !== at) {
      if (log !== undefined) writeTextFileSync(log, `${what}\n`, { append: true });
      return;
    }
    half?.();
    Deno.kill(Deno.pid, "SIGKILL");
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); // Windows ends it a moment later
  };
  const replace = (owner: object, name: string, made: (own: Call) => Call): void => {
    const own = (owner as Record<string, Call>)[name];
    (owner as Record<string, Call>)[name] = made(own);
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
            const entries = [...readDirSync(path)].map((e) => e.name).sort();
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
}
