import { assert, assertEquals } from "@std/assert";
import process from "node:process";
import { crc32 } from "node:zlib";
import { generator } from "../kernels/check.ts";
import { hostDTypes, type HostTensor } from "../lib/io/host.ts";
import { encodeNpy } from "../lib/io/npy.ts";
import { openNpy, openNpz } from "../lib/io/npz.ts";
import { openPth } from "../lib/io/pth.ts";
import { encodeSafetensors, openSafetensors } from "../lib/io/safetensors.ts";
import type { TensorFile } from "../lib/io/tensor_file.ts";
import { readYaml } from "../lib/io/yaml.ts";
import {
  assertConsistent,
  assertOneLine,
  FUZZ,
  mutate,
  ownMemory,
  randomTensor,
  readOrRefused,
  zipped,
} from "./io_helpers.ts";

/**
 * Processor seconds that reading one small mutated file may take: thousands of times what it takes, so that only a loop that
 * runs away exceeds it, and not a machine that is busy.
 */
const LONGEST = 5;

/** Processor seconds of this process. */
function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** Bytes by which the process may grow over all mutations of a file of a few kilobytes. */
const MOST_MEMORY = 600e6;

/**
 * Opens mutations of good files. Each must be refused with one line of ours, or give tensors that keep the header's word;
 * with `truth` for each file, tensors of an unchanged name must be unchanged too, because a checksum covers them.
 */
function fuzz(
  name: string,
  seed: number,
  files: readonly Uint8Array[],
  open: (bytes: Uint8Array) => TensorFile | void,
  truth?: readonly ReadonlyMap<string, HostTensor>[],
): void {
  Deno.test(`${name}: ${FUZZ} mutations give an error of ours or consistent tensors, in bounded time and memory`, () => {
    const random = generator(seed);
    const before = ownMemory();
    let [accepted, slowest, most] = [0, 0, 0];
    for (let i = 0; i < FUZZ; i++) {
      const bytes = mutate(files[i % files.length], random);
      const start = cpuSeconds();
      try {
        const file = open(bytes);
        if (file !== undefined) {
          assertConsistent(file);
          if (truth !== undefined) assertTrue(file, truth[i % files.length]);
          file.close();
        }
        accepted++;
      } catch (error) {
        try {
          assertOneLine(error);
        } catch (cause) {
          throw new Error(`mutation ${i} of seed ${seed}: ${(error as Error).message}`, { cause });
        }
      }
      slowest = Math.max(slowest, cpuSeconds() - start);
      most = Math.max(most, ownMemory() - before);
    }
    assert(slowest < LONGEST, `the slowest took ${slowest} processor seconds`);
    assert(most < MOST_MEMORY, `grew by ${most} bytes`);
    assert(accepted < FUZZ, "no mutation was refused: the test does not reach the reader");
  });
}

function assertTrue(file: TensorFile, truth: ReadonlyMap<string, HostTensor>): void {
  for (const [name, tensor] of file.tensors) {
    const expected = truth.get(name);
    if (expected === undefined) continue;
    const read = readOrRefused(tensor);
    if (read === undefined) continue;
    assertEquals(read, expected, `${name} changed without an error`);
  }
}

const random = generator(99);
const tensors: Record<string, HostTensor> = {};
for (const dtype of hostDTypes) tensors[`layer.${dtype}`] = randomTensor(random, [2, 3], dtype);
const numpy = Object.fromEntries(
  Object.entries(tensors).filter(([, { dtype }]) => dtype !== "BF16" && !dtype.startsWith("F8")),
);
const members = Object.fromEntries(
  Object.entries(numpy).map(([name, tensor]) => [`${name}.npy`, encodeNpy(tensor)]),
);

fuzz(
  "safetensors",
  1,
  [await encodeSafetensors(tensors, { note: "x" })],
  (bytes) => openSafetensors(bytes, "x"),
);

fuzz("npy", 2, Object.values(members), (bytes) => openNpy(bytes, "x"));

const numpyTruth = new Map(Object.entries(numpy));
const archives = [zipped(members), zipped(members, true)];
fuzz("npz", 3, archives, (bytes) => openNpz(bytes, { name: "x" }), [numpyTruth, numpyTruth]);

const folder = new URL("./", import.meta.url).pathname;
const checkpoints = ["data/pth/every_type.pth", "data/pth/training_run.pth", "golden/pth/odd.pth"]
  .map((name) => Deno.readFileSync(folder + name));
const truth = checkpoints.map((bytes) => openPth(bytes).readAll());
fuzz("pth archives", 4, checkpoints, (bytes) => openPth(bytes, "x"), truth);

/** The members of a stored archive whose local headers follow each other. */
function unzipped(bytes: Uint8Array): Record<string, Uint8Array> {
  const data = new DataView(bytes.buffer, bytes.byteOffset);
  const found: Record<string, Uint8Array> = {};
  const end = bytes.length - 22;
  for (let at = data.getUint32(end + 16, true), i = 0; i < data.getUint16(end + 10, true); i++) {
    const [nameLength, extraLength] = [data.getUint16(at + 28, true), data.getUint16(at + 30, true)];
    const [size, offset] = [data.getUint32(at + 24, true), data.getUint32(at + 42, true)];
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength));
    const start = offset + 30 + data.getUint16(offset + 26, true) + data.getUint16(offset + 28, true);
    found[name] = bytes.slice(start, start + size);
    assertEquals(crc32(found[name]), data.getUint32(at + 16, true));
    at += 46 + nameLength + extraLength + data.getUint16(at + 32, true);
  }
  return found;
}

// Behind the checksum: the pickle itself is mutated, and packed again with a checksum that is right.
const unpacked = checkpoints.map(unzipped);
const pickles = unpacked.map((files) => files[Object.keys(files).find((name) => name.endsWith("data.pkl"))!]);
let turn = 0;
fuzz("pth pickles", 5, pickles, (pickle) => {
  const files = unpacked[turn++ % unpacked.length];
  const inside = Object.entries(files).map(([name, bytes]) => [name.replace(/^[^/]+/, "x"), bytes] as const);
  return openPth(zipped({ ...Object.fromEntries(inside), "x/data.pkl": pickle }), "x");
});

fuzz(
  "pth streams",
  6,
  [Deno.readFileSync(`${folder}golden/pth/legacy_nonzip.pth`).slice()],
  (bytes) => openPth(bytes, "x"),
);

const options = [...Deno.readDirSync(`${folder}data/options`)].map(({ name }) =>
  Deno.readFileSync(`${folder}data/options/${name}`)
);
fuzz("yaml", 7, options, (bytes) => {
  const value = readYaml(bytes, "x");
  assertEquals(typeof value, "object");
});
