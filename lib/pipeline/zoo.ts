/**
 * The authors' published checkpoints: what they are, and the first eight hex digits of their SHA-256, which the file names
 * carry (from the model zoo and the option files of their repository).
 *
 * @module
 */
import { join } from "node:path";
import { environment } from "../io/environment.ts";
import { fileHash } from "../io/hash.ts";

/** A token, and the only server that it may be sent to. */
export interface ServerToken {
  /** Variable that it comes from, for messages. */
  readonly variable: string;
  readonly value: string;
  /** Scheme, host and port. */
  readonly origin: string;
}

/** One published checkpoint. */
export interface ZooModel {
  /** Name on the command line: the file's name without hash and ending. */
  readonly name: string;
  /** Path below the base URL. */
  readonly file: string;
  /** Our name of the configuration. */
  readonly model: string;
  /** Data set that it was trained on. */
  readonly data: string;
  /** Side of the frames in pixels. */
  readonly resolution: number;
  readonly condition: "none" | "label" | "action" | "autoencoder";
  /** Number of parameters. */
  readonly parameters: number;
  /** First eight hex digits of the file's SHA-256. */
  readonly sha8: string;
}

function entry(
  file: string,
  model: string,
  data: string,
  resolution: number,
  condition: ZooModel["condition"],
  parameters: number,
): ZooModel {
  const [, name, sha8] = /([^/]+)-([0-9a-f]{8})\.pth$/.exec(file)!;
  return { name, file, model, data, resolution, condition, parameters, sha8 };
}

const B = 129_560_864, L = 456_835_104, L_LABEL = 456_939_552, XL = 673_703_584, XL_LABEL = 673_821_088;
const DCAE_8X = 127_920_940;

/** All of them. */
export const ZOO: readonly ZooModel[] = [
  entry(
    "long_video_prediction/FAR_B_Long_DMLab_Action64-c09441dc.pth",
    "FAR_B_Long",
    "DMLab",
    64,
    "action",
    158_111_776,
  ),
  entry(
    "long_video_prediction/FAR_M_Long_Minecraft_Action128-4c041561.pth",
    "FAR_M_Long",
    "Minecraft",
    128,
    "action",
    280_544_800,
  ),
  entry("short_video_prediction/FAR_B_UCF101_Uncond64-381d295f.pth", "FAR_B", "UCF-101", 64, "none", B),
  entry("short_video_prediction/FAR_B_BAIR_Uncond64-1983191b.pth", "FAR_B", "BAIR", 64, "none", B),
  entry("video_generation/FAR_L_UCF101_Uncond128-c19abd2c.pth", "FAR_L", "UCF-101", 128, "none", L),
  entry("video_generation/FAR_L_UCF101_Cond128-c6f798bf.pth", "FAR_L", "UCF-101", 128, "label", L_LABEL),
  entry("video_generation/FAR_L_UCF101_Uncond256-adea51e9.pth", "FAR_L", "UCF-101", 256, "none", L),
  entry("video_generation/FAR_L_UCF101_Cond256-41c6033f.pth", "FAR_L", "UCF-101", 256, "label", L_LABEL),
  entry("video_generation/FAR_XL_UCF101_Uncond256-3594ce6b.pth", "FAR_XL", "UCF-101", 256, "none", XL),
  entry("video_generation/FAR_XL_UCF101_Cond256-28a88f56.pth", "FAR_XL", "UCF-101", 256, "label", XL_LABEL),
  entry("dcae/DCAE_DMLab_Res64-17035ae5.pth", "8x", "DMLab", 64, "autoencoder", DCAE_8X),
  entry("dcae/DCAE_BAIR_Res64-1a8547fb.pth", "8x", "BAIR", 64, "autoencoder", DCAE_8X),
  entry("dcae/DCAE_UCF101_Res64-9da18dcf.pth", "8x", "UCF-101", 64, "autoencoder", DCAE_8X),
  entry("dcae/DCAE_UCF101_Res128-bb9d1258.pth", "16x", "UCF-101", 128, "autoencoder", 215_758_380),
];

/** The server that the authors publish them on. */
export const ZOO_URL = "https://huggingface.co/guyuchao/FAR_Models/resolve/main";

/**
 * Bytes that a model's file can have. The exact sizes are not published: at least every parameter in half precision, at most
 * two copies in single precision (weights and their average) and what surrounds them.
 */
export const sizeLimits = ({ parameters }: ZooModel): { readonly least: number; readonly most: number } => ({
  least: 2 * parameters,
  most: 8 * parameters + 2 ** 26,
});

/** Scheme, host and port of an address; undefined if it is none. */
const originOf = (url: string): string | undefined => URL.canParse(url) ? new URL(url).origin : undefined;

/**
 * The tokens in the environment, each with the server that it belongs to: HF_TOKEN to huggingface.co, FAR_TOKEN to the
 * mirror that FAR_WEIGHTS_URL names beside it, or to huggingface.co as well. An address on the command line gets none that
 * belongs elsewhere.
 */
export function serverTokens(): ServerToken[] {
  const zoo = originOf(ZOO_URL)!, mirror = environment("FAR_WEIGHTS_URL");
  const places = { FAR_TOKEN: mirror ? originOf(mirror) : zoo, HF_TOKEN: zoo };
  return Object.entries(places).flatMap(([variable, origin]) => {
    const value = environment(variable);
    return value && origin ? [{ variable, value, origin }] : [];
  });
}

/** A folder below FAR_CACHE or the user's cache folder; undefined where there is neither. */
export function ownCache(name: string): string | undefined {
  const own = environment("FAR_CACHE");
  if (own) return join(own, name);
  const base = environment("XDG_CACHE_HOME") || environment("LOCALAPPDATA") ||
    (environment("HOME") ? join(environment("HOME")!, ".cache") : undefined);
  return base && join(base, "far", name);
}

/** Folder of pulled checkpoints: FAR_CACHE, or the user's cache folder. */
export const cacheFolder = (): string => environment("FAR_CACHE") || ownCache("weights") || "weights";

/** Path of a pulled checkpoint. */
export const cachedPath = (model: ZooModel, folder = cacheFolder()): string =>
  join(folder, model.file.split("/").at(-1)!);

/** The eight hex digits that a file's name carries, as the authors publish them, or undefined. */
export function hashInName(path: string): string | undefined {
  return /-([0-9a-f]{8})\.\w+$/.exec(path)?.[1];
}

/** Compares a file with its SHA-256, or with the first digits of it. */
export function hashMatches(
  path: string,
  digits: string,
): { readonly matches: boolean; readonly found: string } {
  const found = fileHash(path);
  return { matches: found.startsWith(digits), found };
}

/** A checkpoint by path, or by its name in the zoo where it has been pulled. */
export function checkpointPath(given: string): string {
  const model = ZOO.find((m) => m.name === given);
  return model ? cachedPath(model) : given;
}
