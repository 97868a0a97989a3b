/**
 * Downloads of large files: resumed, checked, and put in place only when complete.
 *
 * @module
 */
import { accessError, FileAccessError } from "../io/errors.ts";
import { bytes } from "../units.ts";
import type { Watch } from "./watch.ts";
import type { ServerToken } from "./zoo.ts";

/** Options of a download. */
export interface Download {
  /** Without user and password, because it stands in messages. */
  readonly url: string;
  /** Final path; the part that is there lies at `${path}.partial`. */
  readonly path: string;
  /** Says what is wrong with the whole file, or nothing; only then does it get its final name. */
  readonly check: (path: string) => string | undefined;
  /** Sent only to the server that they belong to, over https or to this machine, and never behind a redirect. */
  readonly tokens?: readonly ServerToken[];
  /** Bytes that the whole file can have; the connection is closed as soon as it turns out to be outside. */
  readonly size?: { readonly least: number; readonly most: number };
  readonly watch: Pick<Watch, "say" | "stage">;
  /** Seconds without a byte after which a connection counts as dead. Default 60. */
  readonly stallSeconds?: number;
  /** Connections in a row that bring nothing before it gives up. Default 5. */
  readonly attempts?: number;
  /** Seconds before the second attempt; doubled each time. Default 1. */
  readonly waitSeconds?: number;
  readonly signal?: AbortSignal;
}

/** An answer after which trying again makes no sense. */
class Refused extends Error {}

/** Record of an interrupted download. */
interface PartInfo {
  readonly url: string;
  /** Size of the whole file and its version, as the server said. */
  readonly total?: number;
  readonly etag?: string;
}

function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch {
    return 0;
  }
}

function readInfo(path: string, url: string): PartInfo {
  try {
    const info = JSON.parse(Deno.readTextFileSync(path)) as PartInfo;
    if (info.url === url) return info;
  } catch {
    // none
  }
  return { url };
}

const remove = (path: string) => {
  try {
    Deno.removeSync(path);
  } catch {
    // not there
  }
};

function folderOf(path: string): string {
  const at = Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\"));
  return at < 0 ? "." : path.slice(0, Math.max(1, at));
}

/** The first byte and the size of the whole file out of `bytes 5-9/10`. */
function contentRange(value: string | null): { from: number; total?: number } | undefined {
  const found = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(value ?? "");
  return found
    ? { from: Number(found[1]), total: found[2] === "*" ? undefined : Number(found[2]) }
    : undefined;
}

/** Whether nobody on the way can read along: https, or no way at all. */
const isPrivate = ({ protocol, hostname }: URL): boolean =>
  protocol === "https:" || protocol === "http:" && /^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname);

/** The token that may be sent to an address, if any. */
function tokenFor(url: URL, tokens: readonly ServerToken[]): ServerToken | undefined {
  return isPrivate(url) ? tokens.find(({ origin }) => origin === url.origin) : undefined;
}

/** Redirects that are followed, one after the other. */
const MOST_REDIRECTS = 10;

/** Asks for a file, and again wherever the answer points to; only the first server may see a token. */
async function ask(
  d: Download,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<{ readonly response: Response; readonly token?: ServerToken }> {
  const first = new URL(d.url), token = tokenFor(first, d.tokens ?? []);
  let url = first;
  for (let hops = 0; hops <= MOST_REDIRECTS; hops++) {
    const mine: Record<string, string> = token && url.origin === first.origin
      ? { authorization: `Bearer ${token.value}` }
      : {};
    const response = await fetch(url, { headers: { ...headers, ...mine }, signal, redirect: "manual" });
    const to = response.headers.get("location");
    if (to === null || ![301, 302, 303, 307, 308].includes(response.status)) return { response, token };
    await response.body?.cancel();
    if (!URL.canParse(to, url)) throw new Refused("the server redirects to something that is no address");
    const next = new URL(to, url);
    if (next.protocol !== "https:" && !(next.protocol === "http:" && url.protocol === "http:")) {
      throw new Refused(`the server redirects from ${url.protocol}// to ${next.protocol}//, expected https`);
    }
    url = next;
  }
  throw new Refused(`the server redirects more than ${MOST_REDIRECTS} times`);
}

/** Says which tokens stay here, so that nobody wonders about a refusal. */
function sayWithheld(d: Download): void {
  const url = new URL(d.url), sent = tokenFor(url, d.tokens ?? []);
  for (const { variable, origin } of sent ? [] : d.tokens ?? []) {
    const reason = origin === url.origin ? "the way there is not encrypted" : `it belongs to ${origin}`;
    d.watch.say(`${variable} is not sent to ${url.origin}: ${reason}`);
  }
}

/**
 * Downloads a file. A dropped connection is resumed, also by the next process.
 *
 * @throws {FileAccessError} If the server refuses, lies about the length, sends another file, or the disk does not take it.
 */
export async function download(d: Download): Promise<void> {
  const partial = `${d.path}.partial`, infoPath = `${partial}.json`, attempts = d.attempts ?? 5;
  try {
    Deno.mkdirSync(folderOf(d.path), { recursive: true });
  } catch (error) {
    throw accessError(d.path, "cannot write", error);
  }
  sayWithheld(d);
  let info = readInfo(infoPath, d.url);
  if (info.etag === undefined && info.total === undefined) remove(partial); // of another file, or of none
  let failures = 0, reason = "";
  while (true) {
    const before = sizeOf(partial);
    if (info.total !== undefined && before === info.total) break;
    try {
      info = await connection(d, partial, before, info, (found) => {
        Deno.writeTextFileSync(infoPath, JSON.stringify(found));
      });
      if (info.total === undefined || sizeOf(partial) === info.total) break;
      reason = `the connection ended after ${bytes(sizeOf(partial))} of ${bytes(info.total)}`;
    } catch (error) {
      if (d.signal?.aborted) throw error;
      if (error instanceof Refused) {
        remove(partial);
        remove(infoPath);
        throw new FileAccessError(d.url, error.message);
      }
      if (error instanceof Deno.errors.NotCapable) throw error;
      if (isDiskError(error)) throw accessError(partial, "cannot write", error);
      reason = error instanceof Error ? error.message : String(error);
      info = readInfo(infoPath, d.url);
    }
    failures = sizeOf(partial) > before ? 0 : failures + 1;
    if (failures >= attempts) {
      throw new FileAccessError(
        d.url,
        `gave up after ${attempts} connections without a byte: ${reason}; the same command resumes at ${
          bytes(sizeOf(partial))
        }`,
      );
    }
    d.watch.say(`connection lost (${reason}), trying again`);
    const wait = (d.waitSeconds ?? 1) * 2 ** failures;
    await new Promise((resolve) => setTimeout(resolve, wait * 1000));
  }
  const wrong = d.check(partial);
  if (wrong !== undefined) {
    remove(partial);
    remove(infoPath);
    throw new FileAccessError(d.url, wrong);
  }
  Deno.renameSync(partial, d.path);
  remove(infoPath);
}

function isDiskError(error: unknown): boolean {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" &&
    ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO", "EFBIG", "EISDIR"].includes(code);
}

/** One connection: asks for what is missing and appends what comes. */
async function connection(
  d: Download,
  partial: string,
  have: number,
  known: PartInfo,
  remember: (info: PartInfo) => void,
): Promise<PartInfo> {
  const stall = new AbortController();
  const stallMs = (d.stallSeconds ?? 60) * 1000;
  let timer = setTimeout(() => stall.abort(new Error(`no byte for ${stallMs / 1000} s`)), stallMs);
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stall.abort(new Error(`no byte for ${stallMs / 1000} s`)), stallMs);
  };
  try {
    const headers: Record<string, string> = { "accept-encoding": "identity" };
    if (have > 0) {
      headers.range = `bytes=${have}-`;
      if (known.etag) headers["if-range"] = known.etag;
    }
    const signal = d.signal ? AbortSignal.any([stall.signal, d.signal]) : stall.signal;
    const { response, token } = await ask(d, headers, signal);
    if (!response.ok || response.body === null) await refuseStatus(response, token);
    if (/^text\/html/.test(response.headers.get("content-type") ?? "")) {
      await response.body?.cancel();
      throw new Refused("expected a checkpoint, found a web page: is the base URL right?");
    }
    const range = response.status === 206 ? contentRange(response.headers.get("content-range")) : undefined;
    if (response.status === 206 && range?.from !== have) {
      await response.body?.cancel();
      throw new Refused(
        `asked for byte ${have} on, the server sent from ${range?.from ?? "an unknown byte"}`,
      );
    }
    const length = response.headers.get("content-length");
    const start = range ? have : 0;
    const total = range?.total ?? (/^\d+$/.test(length ?? "") ? start + Number(length) : undefined);
    const { least = 0, most = Infinity } = d.size ?? {};
    if (total !== undefined && (total < least || total > most)) {
      await response.body?.cancel();
      throw new Refused(`expected ${least} to ${most} bytes, the server announces ${total}`);
    }
    if (known.total !== undefined && range && total !== known.total) {
      await response.body?.cancel();
      throw new Refused(`the file had ${known.total} bytes before, the server now says ${total}`);
    }
    const etag = response.headers.get("etag");
    const info: PartInfo = { url: d.url, total, etag: etag && !etag.startsWith("W/") ? etag : undefined };
    remember(info);
    using file = Deno.openSync(partial, {
      write: true,
      create: true,
      truncate: start === 0,
      append: start > 0,
    });
    using stage = d.watch.stage("pull", total === undefined ? 0 : total / 2 ** 20, "MiB", start / 2 ** 20);
    let at = start;
    for await (const piece of response.body!) {
      alive();
      at += piece.length;
      if (at > (total ?? most)) {
        throw new Refused(`expected ${total ?? `at most ${most}`} bytes, the server sent more`);
      }
      for (let written = 0; written < piece.length;) written += file.writeSync(piece.subarray(written));
      stage.update(at / 2 ** 20);
    }
    if (total === undefined && at < least) {
      throw new Refused(`expected at least ${least} bytes, the server sent ${at}`);
    }
    if (total === undefined) return { ...info, total: at };
    return info;
  } finally {
    clearTimeout(timer);
  }
}

/** @throws {Refused} On an answer that will stay the same, an Error on one that may pass. */
async function refuseStatus(response: Response, token: ServerToken | undefined): Promise<never> {
  const { status } = response;
  await response.body?.cancel();
  if (status === 401 || status === 403) {
    throw new Refused(
      `the server refuses (${status}): ${
        token
          ? `${token.variable} does not open this file`
          : "set HF_TOKEN for huggingface.co, or FAR_TOKEN beside FAR_WEIGHTS_URL for a mirror"
      }`,
    );
  }
  if (status === 416) {
    throw new Refused("the part on disk does not fit the file on the server; it was removed, try again");
  }
  if (status === 408 || status === 429 || status >= 500) throw new Error(`the server answered ${status}`);
  throw new Refused(status === 404 ? "there is no such file (404)" : `the server answered ${status}`);
}
