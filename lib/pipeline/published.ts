/**
 * The authors' checkpoints on this machine: which are here, pulling one, and comparing a file with its SHA-256.
 *
 * @module
 */
import { environment } from "../io/environment.ts";
import { openTensorFile } from "../io/open.ts";
import { isFile } from "../io/paths.ts";
import { didYouMean } from "../nearest.ts";
import { ChoiceError } from "./choice.ts";
import { download } from "./download.ts";
import type { Watch } from "./watch.ts";
import {
  cachedPath,
  cacheFolder,
  hashInName,
  hashMatches,
  serverTokens,
  sizeLimits,
  ZOO,
  ZOO_URL,
  type ZooModel,
} from "./zoo.ts";

/** Choices that concern the SHA-256 and the place of a published checkpoint. */
export interface PublishedOptions {
  /** Folder of pulled checkpoints; that of the user unless given. */
  readonly into?: string;
  /** All 64 hexadecimal digits of the SHA-256; the eight in the published name unless given. */
  readonly sha256?: string;
}

/** Choices of a pull. */
export interface PullOptions extends PublishedOptions {
  /** Base address of the zoo; that of FAR_WEIGHTS_URL or the authors' unless given. */
  readonly url?: string;
  /** Downloads nothing. */
  readonly offline?: boolean;
  /** Is told what happens. */
  readonly watch: Pick<Watch, "say" | "stage">;
}

/** A file that has the SHA-256 that it should have. */
export interface CheckedFile {
  /** Where it is. */
  readonly path: string;
  /** Its SHA-256 in full. */
  readonly sha256: string;
  /** Bits of it that were compared. */
  readonly checkedBits: number;
  /** The same in words. */
  readonly text: string;
}

/**
 * A model of the zoo by its name or its file's.
 *
 * @throws {ChoiceError} If there is none: the nearest name.
 */
export function zooModel(name: string): ZooModel {
  const found = ZOO.find((m) => m.name === name || m.file === name || m.file.endsWith(`/${name}`));
  if (found) return found;
  const meant = didYouMean(name, ZOO.map((m) => m.name));
  throw new ChoiceError(`there is no model ${name} in the zoo${meant} (far.ts weights list)`);
}

/** Every model of the zoo, with the path of its file where it has been pulled. */
export function pulledModels(folder = cacheFolder()): (ZooModel & { readonly pulled: string | null })[] {
  return ZOO.map((m) => {
    const path = cachedPath(m, folder);
    return { ...m, pulled: isFile(path) ? path : null };
  });
}

/** The file that is meant: a name in the zoo stands for its pulled file. */
export function publishedPath(given: string, folder = cacheFolder()): string {
  const model = isFile(given) ? undefined : ZOO.find((m) => m.name === given);
  return model ? cachedPath(model, folder) : given;
}

/**
 * The digits that a file's SHA-256 has to begin with: all that the caller gives, else the eight in its published name.
 *
 * @throws {ChoiceError} If what is given is no SHA-256, or contradicts the name.
 */
function expectedDigits(sha8: string | undefined, { sha256 }: PublishedOptions): string | undefined {
  const whole = sha256?.toLowerCase();
  if (whole === undefined) return sha8;
  if (!/^[0-9a-f]{64}$/.test(whole)) {
    throw new ChoiceError(`{sha256}: expected 64 hexadecimal digits, found ${sha256}`);
  }
  if (sha8 !== undefined && !whole.startsWith(sha8)) {
    throw new ChoiceError(`{sha256}: begins with ${whole.slice(0, 8)}, but the file's name says ${sha8}`);
  }
  return whole;
}

/** Eight digits are no proof against somebody who wants to deceive, so how much was compared is said. */
function checkedFile(path: string, digits: string, sha256: string): CheckedFile {
  const checkedBits = 4 * digits.length;
  const text = checkedBits === 256
    ? "its SHA-256 is the one that was asked for"
    : `${checkedBits} of the 256 bits of its SHA-256 were checked, those in its name; in full it is ${sha256} ` +
      "(compare it with a source that you trust, or give it as --sha256)";
  return { path, sha256, checkedBits, text };
}

const differs = (found: string, digits: string): string =>
  `SHA-256 begins with ${found.slice(0, digits.length)}, expected ${digits}`;

/** @throws {ChoiceError} If the base of the model zoo is no address, or one with a password in it. */
function zooUrl(file: string, given: string | undefined): URL {
  const base = (given ?? environment("FAR_WEIGHTS_URL") ?? ZOO_URL).replace(/\/+$/, "");
  const url = URL.canParse(`${base}/${file}`) ? new URL(`${base}/${file}`) : undefined;
  if (url?.protocol !== "http:" && url?.protocol !== "https:") {
    throw new ChoiceError(`{url}: expected an http or https address, found ${base}`);
  }
  if (url.username !== "" || url.password !== "") {
    throw new ChoiceError(
      "{url}: expected an address without user and password; a token comes from FAR_TOKEN",
    );
  }
  return url;
}

/** @throws {ChoiceError} If the program may not speak to a server; Deno would ask about each one. */
async function checkNet({ host }: URL): Promise<void> {
  if ((await Deno.permissions.query({ name: "net", host })).state === "granted") return;
  throw new ChoiceError(
    `weights pull: may not reach ${host}; run it with -P=net, and for another host than the authors' add ` +
      `--allow-net=${host}`,
  );
}

/**
 * Downloads a published checkpoint, unless it is here already, and compares its SHA-256.
 *
 * @throws {ChoiceError} If there is no such model, or address, digits and permission do not fit.
 * @throws {FileAccessError} If the server refuses or sends something else.
 */
export async function pullModel(name: string, options: PullOptions): Promise<CheckedFile> {
  const { into = cacheFolder(), watch } = options, model = zooModel(name);
  const path = cachedPath(model, into), digits = expectedDigits(model.sha8, options)!;
  if (isFile(path)) {
    const { matches, found } = hashMatches(path, digits);
    if (matches) {
      const file = checkedFile(path, digits, found);
      return { ...file, text: `${path} is there already; ${file.text}` };
    }
    const more = digits.length < 64 ? "..." : "";
    watch.say(`${path} has SHA-256 ${found}, expected ${digits}${more}: pulling it anew`);
  }
  const off = environment("FAR_OFFLINE");
  if (options.offline || (off !== undefined && off !== "" && off !== "0")) {
    throw new Error(
      `weights pull ${name}: ${path} is not there, and downloads are off (--offline or FAR_OFFLINE)`,
    );
  }
  const url = zooUrl(model.file, options.url), size = sizeLimits(model);
  await checkNet(url);
  let sha256 = "";
  await download({
    url: url.href,
    path,
    tokens: serverTokens(),
    // All digits say more than a size can.
    size: digits.length === 64 ? { least: 1, most: size.most } : size,
    watch,
    check: (file) => {
      const { matches, found } = hashMatches(file, digits);
      sha256 = found;
      return matches ? undefined : `the server sent another file: ${differs(found, digits)}`;
    },
  });
  const file = checkedFile(path, digits, sha256);
  return { ...file, text: `wrote ${path}; ${file.text}` };
}

/** Result of {@linkcode verifyModel}. */
export interface Verified extends CheckedFile {
  /** The digits that its SHA-256 should begin with. */
  readonly expected: string;
  /** Why it is not that file; null where it is. */
  readonly wrong: string | null;
}

/**
 * Compares a file with the digits in its name, or with all of its SHA-256.
 *
 * @param given A path, or a name in the zoo.
 * @throws {ChoiceError} If nothing says what its SHA-256 should be.
 */
export function verifyModel(given: string, options: PublishedOptions): Verified {
  const model = ZOO.find((m) => m.name === given);
  const path = model ? cachedPath(model, options.into ?? cacheFolder()) : given;
  const expected = expectedDigits(model?.sha8 ?? hashInName(path), options);
  if (expected === undefined) {
    throw new ChoiceError(
      `${path}: expected a name with eight hex digits of its SHA-256, such as model-0123abcd.pth, a zoo name, or {sha256}`,
    );
  }
  const { matches, found } = hashMatches(path, expected);
  const wrong = matches ? null : `${path}: ${differs(found, expected)}: pull it again`;
  // A file may be what was published and still not be what a model needs, so the content is opened too.
  if (matches) openTensorFile(path).close();
  return { ...checkedFile(path, expected, found), expected, wrong };
}
