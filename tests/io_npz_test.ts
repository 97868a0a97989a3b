import { assert, assertEquals, assertRejects } from "@std/assert";
import { generator } from "../kernels/check.ts";
import {
  elements,
  fromFloat32,
  type HostDType,
  hostDTypes,
  type HostTensor,
  toFloat32,
} from "../lib/io/host.ts";
import { encodeNpy } from "../lib/io/npy.ts";
import { openNpy, openNpz, writeNpy, writeNpz } from "../lib/io/npz.ts";
import { ZipWriter } from "../lib/io/zip_write.ts";
import { assertRefused, inFolder, Memory, ownMemory, randomTensor, zipped } from "./io_helpers.ts";

/** An .npy file from a header as text and data bytes. */
function npy(header: string, data: Uint8Array | number[], version = 1): Uint8Array {
  const text = new TextEncoder().encode(header);
  const start = version === 1 ? 10 : 12;
  const out = new Uint8Array(start + text.length + data.length);
  out.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, version, 0]);
  if (version === 1) new DataView(out.buffer).setUint16(8, text.length, true);
  else new DataView(out.buffer).setUint32(8, text.length, true);
  out.set(text, start);
  out.set(data, start + text.length);
  return out;
}

const header = (descr: string, shape: string, fortran = "False") =>
  `{'descr': '${descr}', 'fortran_order': ${fortran}, 'shape': ${shape}, }\n`;

function readNpy(bytes: Uint8Array): HostTensor {
  using file = openNpy(bytes, "x.npy");
  return file.read("arr_0");
}

const NUMPY_TYPES = hostDTypes.filter((dtype) => dtype !== "BF16" && !dtype.startsWith("F8"));

function sample(): Record<string, HostTensor> {
  const random = generator(11);
  return Object.fromEntries(NUMPY_TYPES.flatMap((dtype: HostDType) => [
    [`${dtype}/matrix`, randomTensor(random, [3, 5], dtype)],
    [`${dtype}/scalar`, randomTensor(random, [], dtype)],
    [`${dtype}/empty`, randomTensor(random, [0, 3], dtype)],
  ]));
}

Deno.test("npz files give back every type, stored and deflated, and are the same bytes each time", async () => {
  await inFolder(async (folder) => {
    const tensors = sample();
    for (const compress of [false, true]) {
      const path = `${folder}/${compress}.npz`;
      await writeNpz(path, tensors, { compress });
      const first = Deno.readFileSync(path);
      {
        using file = openNpz(path);
        assertEquals([...file.tensors.keys()], Object.keys(tensors));
        for (const [name, tensor] of Object.entries(tensors)) assertEquals(file.read(name), tensor, name);
      }
      await writeNpz(path, tensors, { compress });
      assertEquals(Deno.readFileSync(path), first);
    }
  });
});

Deno.test("npy files give back every type", async () => {
  await inFolder(async (folder) => {
    for (const tensor of Object.values(sample())) {
      await writeNpy(`${folder}/x.npy`, tensor);
      using file = openNpy(`${folder}/x.npy`);
      assertEquals(file.read("arr_0"), tensor);
    }
  });
  const error = await assertRejects(
    () => writeNpy("/nonexistent/x.npy", fromFloat32(new Float32Array(1), [1], "BF16")),
    RangeError,
  );
  assertEquals(error.message, "npy: NumPy has no type for BF16, convert to F32 first");
});

Deno.test("an npy header is what NumPy writes", () => {
  const bytes = encodeNpy({ shape: [3], dtype: "F32", data: new Uint8Array(12) });
  assertEquals(bytes.length, 128 + 12);
  const text = new TextDecoder("latin1").decode(bytes.subarray(10, 128));
  assertEquals(text.trimEnd(), "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }");
  assertEquals(text.at(-1), "\n");
});

Deno.test("all three npy versions, big-endian and column-major arrays are read", () => {
  const values = new Int16Array([1, 2, 3, 4, 5, 6]);
  const little = new Uint8Array(values.buffer);
  for (const version of [1, 2, 3]) {
    assertEquals([...elements(readNpy(npy(header("<i2", "(2, 3)"), little, version)))], [1, 2, 3, 4, 5, 6]);
  }
  const big = little.slice();
  for (let i = 0; i < big.length; i += 2) [big[i], big[i + 1]] = [big[i + 1], big[i]];
  assertEquals([...elements(readNpy(npy(header(">i2", "(6,)"), big)))], [1, 2, 3, 4, 5, 6]);
  const columns = readNpy(npy(header("<i2", "(2, 3)", "True"), little));
  assertEquals(columns.shape, [2, 3]);
  assertEquals([...elements(columns)], [1, 3, 5, 2, 4, 6]);
  // Element [i, j, k] of a column-major [2, 3, 4] array stands at i + 2 j + 6 k.
  const cube = readNpy(npy(header("|u1", "(2, 3, 4)", "True"), new Uint8Array(24).map((_, i) => i)));
  for (let i = 0; i < 24; i++) {
    const [a, b, c] = [Math.floor(i / 12), Math.floor(i / 4) % 3, i % 4];
    assertEquals(cube.data[i], a + 2 * b + 6 * c);
  }
  assertEquals([...toFloat32(readNpy(npy(header("|b1", "(2,)"), [1, 0])))], [1, 0]);
  assertEquals([...elements(readNpy(npy(header("<f4", "()"), new Uint8Array(4))))], [0]);
});

Deno.test("arrays of Python objects are refused by name, the others of the archive are read", () => {
  const good = npy(header("|u1", "(2,)"), [7, 8]);
  const archive = zipped({
    "frames.npy": good,
    "meta.npy": npy(header("|O", "()"), [0x80, 2]),
    "names.npy": npy(header("<U5", "(1,)"), new Uint8Array(20)),
    "records.npy": npy(
      "{'descr': [('a', '<f4'), ('b', '<i2', (2,))], 'fortran_order': False, 'shape': (1,), }",
      [],
    ),
    "readme.txt": new Uint8Array(3),
  });
  using file = openNpz(archive, { name: "clip.npz" });
  assertEquals([...file.read("frames").data], [7, 8]);
  assertEquals([...file.refused.keys()], ["meta", "names", "records", "readme.txt"]);
  assertRefused(() => file.read("meta"), 'clip.npz: "meta": holds pickled Python objects', "never loaded");
  assertRefused(() => file.read("names"), '"names": has element type "<U5"');
  assertRefused(() => file.read("records"), 'element type "structured records"');
  assertRefused(() => readNpy(npy(header("|O", "()"), [])), "x.npy: array: holds pickled Python objects");
});

Deno.test("lying npy headers are refused: file, array, expected, found", () => {
  const cases: [Uint8Array, ...string[]][] = [
    [npy(header("<f4", "(2,)"), new Uint8Array(7)), "expected 8 bytes for <f4 of shape [2], found 7"],
    [npy(header("<f4", "(2,)"), new Uint8Array(12)), "expected 8 bytes for <f4 of shape [2], found 12"],
    [
      npy(header("<f4", "(1099511627776, 1099511627776)"), []),
      "for <f4 of shape [1099511627776,1099511627776]",
    ],
    [npy(header("<f4", "(-1,)"), []), "cannot read"],
    [npy(header("<f4", "(1.5,)"), []), "cannot read"],
    [npy(header("<f4", "('a',)"), []), "shape: expected a tuple"],
    [npy(header("<f4", "3"), []), "shape: expected a tuple"],
    [npy(header("<f4", "(9007199254740993,)"), []), "shape: expected a tuple"],
    [npy(header("<f4", "()", "1"), []), "fortran_order: expected True or False"],
    [npy("{'descr': '<f4'}", []), "descr, fortran_order and shape only"],
    [
      npy("{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': ()}", []),
      'key "descr" occurs twice',
    ],
    [npy("['descr']", []), "descr, fortran_order and shape only"],
    [npy("{'descr': '<f4',", []), "expected a value, found the end"],
    [npy("(".repeat(60_000), []), "nested too deeply"],
    [npy(header("<f4", "()"), [], 4), "version 1, 2 or 3, found 4.0"],
    [npy(header("<c8", "()"), new Uint8Array(8)), 'element type "<c8"'],
    [npy(header("toString", "()"), []), 'element type "toString"'],
    [npy(header("<f4", "()"), []).slice(0, 30), "truncated"],
    [new Uint8Array(100), "expected an .npy header"],
    [new Uint8Array(0), "expected an .npy header"],
  ];
  for (const [bytes, ...parts] of cases) assertRefused(() => readNpy(bytes), "x.npy: array: ", ...parts);
  const huge = npy(header("<f4", "()"), [], 2);
  new DataView(huge.buffer).setUint32(8, 0xffffffff, true);
  assertRefused(() => readNpy(huge), "header of at most 65536 bytes, found 4294967295");
});

Deno.test("a damaged zip archive is refused: file, member, expected, found", () => {
  const archive = zipped({ "a.npy": encodeNpy(randomTensor(generator(1), [50], "U8")) }, true);
  const open = (bytes: Uint8Array) => openNpz(bytes, { name: "x.npz" });
  for (let length = 0; length < archive.length; length++) assertRefused(() => open(archive.slice(0, length)));
  // Every bit of the packed data is covered by the CRC-32 or by the structure.
  for (let at = 0; at < archive.length; at++) {
    const bytes = archive.slice();
    bytes[at] ^= 4;
    let data: Uint8Array;
    try {
      using file = open(bytes);
      data = file.read([...file.tensors.keys()][0] ?? "a").data;
    } catch (error) {
      assertRefused(() => {
        throw error;
      }, "x.npz: ");
      continue;
    }
    assertEquals(data, randomTensor(generator(1), [50], "U8").data, `byte ${at}`);
  }
  const twice = new Memory();
  const zip = new ZipWriter(twice);
  for (let i = 0; i < 2; i++) zip.add("a.npy", encodeNpy(randomTensor(generator(1), [1], "U8")));
  zip.finish();
  assertRefused(() => open(twice.bytes()), 'member "a.npy": occurs twice');
});

/** Where a directory entry begins. */
function centralAt(archive: Uint8Array, index = 0): number {
  let at = -1;
  for (let i = 0; i <= index; i++) {
    at = archive.findIndex((_, j) =>
      j > at && archive[j] === 0x50 && archive[j + 1] === 0x4b && archive[j + 2] === 1
    );
  }
  return at;
}

Deno.test("a zip bomb is refused before or while it inflates", () => {
  const zeros = new Uint8Array(50_000_000);
  const head = encodeNpy({ shape: [zeros.length], dtype: "U8", data: zeros });
  const bomb = zipped({ "a.npy": head }, true);
  assert(bomb.length < 60_000);
  const open = (bytes: Uint8Array, maxInflatedBytes?: number) =>
    openNpz(bytes, { name: "x.npz", maxInflatedBytes });
  // It declares its true size, and the caller's bound is lower.
  assertRefused(() => open(bomb, 1_000_000).read("a"), `declares ${head.length} bytes, the limit is 1000000`);
  assertEquals(open(bomb).read("a").data.length, zeros.length);
  // It declares little: the header's shape is then already a lie, and inflating stops at the declared size.
  const small = encodeNpy({ shape: [100], dtype: "U8", data: new Uint8Array(100) });
  const longer = new Uint8Array(10_000_000);
  longer.set(small);
  const liar = zipped({ "a.npy": longer }, true);
  new DataView(liar.buffer).setUint32(centralAt(liar) + 24, small.length, true);
  const before = ownMemory();
  assertRefused(() => open(liar).read("a"), `expected ${small.length} bytes after inflating, found more`);
  assert(ownMemory() - before < 8_000_000);
  // It declares more than deflate can pack.
  const impossible = bomb.slice();
  new DataView(impossible.buffer).setUint32(centralAt(impossible) + 24, 0xfffffffe, true);
  assertRefused(() => open(impossible).read("a"), "x.npz: ");
  // Two members share the same bytes.
  const pair = zipped({ "a.npy": small, "b.npy": small });
  new DataView(pair.buffer).setUint32(centralAt(pair, 1) + 42, 0, true);
  assertRefused(() => open(pair), 'member "b.npy": overlaps "a.npy"');
});

Deno.test("an encrypted member and other packing methods are refused", () => {
  const archive = zipped({ "a.npy": encodeNpy(randomTensor(generator(1), [4], "U8")) });
  const open = (bytes: Uint8Array) => openNpz(bytes, { name: "x.npz" });
  const encrypted = archive.slice();
  encrypted[centralAt(archive) + 8] |= 1;
  assertRefused(() => open(encrypted), 'member "a.npy": is encrypted');
  const lzma = archive.slice();
  lzma[centralAt(archive) + 10] = 14;
  assertRefused(
    () => open(lzma),
    'member "a.npy": expected stored or deflated data (method 0 or 8), found method 14',
  );
});

Deno.test("zip64 sizes and offsets are read", () => {
  // A stored member whose directory entry holds its numbers in the 64-bit extra field, and a 64-bit end record.
  const content = encodeNpy(randomTensor(generator(2), [9], "U8"));
  const plain = zipped({ "a.npy": content });
  const at = centralAt(plain);
  const entry = plain.slice(at, at + 46 + 5);
  const fields = new DataView(entry.buffer);
  const extra = new DataView(new ArrayBuffer(28));
  extra.setUint16(0, 1, true);
  extra.setUint16(2, 24, true);
  [24, 20, 42].forEach((field, i) => {
    extra.setBigUint64(4 + 8 * i, BigInt(fields.getUint32(field, true)), true);
    fields.setUint32(field, 0xffffffff, true);
  });
  fields.setUint16(30, 28, true);
  const end64 = new DataView(new ArrayBuffer(76));
  end64.setUint32(0, 0x06064b50, true);
  end64.setBigUint64(4, 44n, true);
  end64.setBigUint64(32, 1n, true);
  end64.setBigUint64(40, BigInt(entry.length + 28), true);
  end64.setBigUint64(48, BigInt(at), true);
  end64.setUint32(56, 0x07064b50, true);
  end64.setBigUint64(64, BigInt(at + entry.length + 28), true);
  const end = plain.slice(at + entry.length);
  end.fill(0xff, 8, 20);
  const parts = [plain.slice(0, at), entry, new Uint8Array(extra.buffer), new Uint8Array(end64.buffer), end];
  using file = openNpz(new Uint8Array(parts.flatMap((part) => [...part])));
  assertEquals(file.read("a"), randomTensor(generator(2), [9], "U8"));
});
