import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import secondReader from "safetensors";
import { generator } from "../kernels/check.ts";
import { FileAccessError, FileFormatError } from "../lib/io/errors.ts";
import { fromFloat32, hostDTypes, type HostTensor, toFloat32 } from "../lib/io/host.ts";
import { encodeSafetensors, openSafetensors, writeSafetensors } from "../lib/io/safetensors.ts";
import { visitSource } from "../lib/io/source.ts";
import { assertRefused, inFolder, randomTensor } from "./io_helpers.ts";

/** A file from a header as text (or any JSON) and a number of data bytes; `length` lies about the header's size. */
function craft(header: unknown, dataBytes: number, length?: bigint): Uint8Array {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const out = new Uint8Array(8 + text.length + dataBytes);
  new DataView(out.buffer).setBigUint64(0, length ?? BigInt(text.length), true);
  out.set(text, 8);
  return out;
}

function sample(): Record<string, HostTensor> {
  const random = generator(7);
  const tensors: Record<string, HostTensor> = {};
  for (const dtype of hostDTypes) {
    tensors[`${dtype}.matrix`] = randomTensor(random, [3, 5], dtype);
    tensors[`${dtype}.scalar`] = randomTensor(random, [], dtype);
    tensors[`${dtype}.empty`] = randomTensor(random, [2, 0, 4], dtype);
  }
  return tensors;
}

Deno.test("a safetensors file gives back every type, scalars, empty tensors, names and metadata", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/all.safetensors`;
    const tensors = {
      ...sample(),
      "0": randomTensor(generator(1), [2], "U8"),
      'naïve "name"\n': sample()["F32.matrix"],
    };
    const metadata = { format: "pt", note: "ü" };
    await writeSafetensors(path, tensors, metadata);
    using file = openSafetensors(path);
    assertEquals(file.metadata, metadata);
    assertEquals(new Set(file.tensors.keys()), new Set(Object.keys(tensors)));
    for (const [name, tensor] of Object.entries(tensors)) assertEquals(file.read(name), { ...tensor });
    assertEquals([...Deno.readDirSync(folder)].map((entry) => entry.name), ["all.safetensors"]);
  });
});

Deno.test("the same tensors give the same bytes in any order, aligned to their type", async () => {
  const tensors = sample();
  const bytes = await encodeSafetensors(tensors, { b: "2", a: "1" });
  assertEquals(await encodeSafetensors(Object.entries(tensors).reverse(), { a: "1", b: "2" }), bytes);
  const headerLength = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  assertEquals(headerLength % 8, 0);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerLength)));
  for (const size of ["F64", "I64", "F32", "BF16", "F16"]) {
    const bytesEach = Number(size.slice(-2)) / 8;
    assertEquals(header[`${size}.matrix`].data_offsets[0] % bytesEach, 0, size);
  }
});

Deno.test("a file is written tensor by tensor from lazy tensors", async () => {
  await inFolder(async (folder) => {
    const tensors = sample();
    let reads = 0;
    const lazy = Object.entries(tensors).map(([name, tensor]) =>
      [name, {
        shape: tensor.shape,
        dtype: tensor.dtype,
        read: () => (reads++, Promise.resolve(tensor)),
      }] as const
    );
    await writeSafetensors(`${folder}/lazy.safetensors`, lazy);
    assertEquals(reads, lazy.length);
    assertEquals(Deno.readFileSync(`${folder}/lazy.safetensors`), await encodeSafetensors(tensors));
  });
});

Deno.test("a tensor whose bytes do not fit its shape fails the write and leaves the old file and no other", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/x.safetensors`;
    await writeSafetensors(path, { x: fromFloat32(new Float32Array([1]), [1]) });
    const before = Deno.readFileSync(path);
    const wrong = { shape: [2], dtype: "F32", data: new Uint8Array(4) } as const;
    const error = await assertRejects(() => writeSafetensors(path, { wrong }), RangeError);
    assert(error.message.includes('tensor "wrong": F32 of shape [2] needs 8 bytes'), error.message);
    await assertRejects(() => writeSafetensors(path, { __metadata__: wrong }), RangeError, "reserved");
    await assertRejects(() => writeSafetensors(path, [["a", wrong], ["a", wrong]]), RangeError, "this name");
    assertEquals(Deno.readFileSync(path), before);
    assertEquals([...Deno.readDirSync(folder)].length, 1);
  });
});

Deno.test("a tensor beyond 4 GiB is read by seeking", async () => {
  await inFolder((folder) => {
    // A sparse file: 5 GiB of zeros that take no room on disk, and four real bytes behind them.
    const hole = 5 * 2 ** 30;
    const header = {
      zeros: { dtype: "U8", shape: [5, 2 ** 30], data_offsets: [0, hole] },
      last: { dtype: "F32", shape: [1], data_offsets: [hole, hole + 4] },
    };
    const path = `${folder}/large.safetensors`;
    const start = craft(header, 0);
    {
      using out = Deno.openSync(path, { write: true, create: true });
      out.writeSync(start);
      out.seekSync(start.length + hole, Deno.SeekMode.Start);
      out.writeSync(new Uint8Array(new Float32Array([42]).buffer));
    }
    using file = openSafetensors(path);
    assertEquals([...toFloat32(file.read("last"))], [42]);
  });
});

Deno.test("bytes are read without a file, at any alignment", async () => {
  const bytes = await encodeSafetensors({ x: fromFloat32(new Float32Array([1, 2]), [2]) });
  const shifted = new Uint8Array(bytes.length + 3);
  shifted.set(bytes, 3);
  using file = openSafetensors(shifted.subarray(3), "weights");
  assertEquals([...toFloat32(file.read("x"))], [1, 2]);
  assertRefused(() => file.read("y"), 'weights: no tensor "y" among its 1');
});

Deno.test("an unknown tensor name gets the nearest one", async () => {
  const bytes = await encodeSafetensors({
    "blocks.0.attn.to_q.weight": fromFloat32(new Float32Array(1), [1]),
  });
  using file = openSafetensors(bytes);
  assertRefused(() => file.read("blocks.0.attn.toq.weight"), 'did you mean "blocks.0.attn.to_q.weight"?');
});

const F32 = (begin: number, end: number, shape = [(end - begin) / 4]) => ({
  dtype: "F32",
  shape,
  data_offsets: [begin, end],
});

Deno.test("lying safetensors headers are refused: file, tensor, expected, found", () => {
  const cases: [unknown, number, ...string[]][] = [
    [{ a: F32(0, 8), b: F32(4, 12) }, 12, 'tensor "b"', "offset 8, found 4", 'overlaps "a"'],
    [{ a: F32(0, 8), b: F32(12, 16) }, 16, 'tensor "b"', "offset 8, found 12", 'gap after "a"'],
    [{ a: F32(4, 8) }, 8, 'tensor "a"', "gap after the header"],
    [{ a: F32(0, 8) }, 4, 'tensor "a"', "within 4 data bytes, found data_offsets [0, 8]"],
    [{ a: F32(0, 8) }, 12, "expected 8 data bytes after the header, found 12"],
    [{ a: F32(0, 2 ** 53 - 4) }, 8, 'tensor "a"', "within 8 data bytes"],
    [{ a: F32(0, 8, [3]) }, 8, 'tensor "a"', "span 12 bytes for F32 of shape [3]", "found [0,8]"],
    [{ a: F32(0, 8, [2 ** 40, 2 ** 40]) }, 8, 'tensor "a"', "F32 of shape"],
    [{ a: { ...F32(0, 8), shape: [-2] } }, 8, 'tensor "a"', "non-negative integers, found [-2]"],
    [{ a: { ...F32(0, 8), shape: [2.5] } }, 8, 'tensor "a"', "non-negative integers"],
    [{ a: { ...F32(0, 8), shape: "2" } }, 8, 'tensor "a"', "non-negative integers"],
    [{ a: { ...F32(0, 8), dtype: "F7" } }, 8, 'tensor "a"', 'found "F7"'],
    [{ a: { ...F32(0, 8), dtype: "toString" } }, 8, 'tensor "a"', "expected a dtype"],
    [{ a: { ...F32(0, 8), data_offsets: [8, 0] } }, 8, 'tensor "a"', "[begin, end]"],
    [{ a: { ...F32(0, 8), more: 1 } }, 8, 'tensor "a"', 'found ["more"]'],
    [{ a: 5 }, 8, 'tensor "a"', "expected an object, found 5"],
    [{ a: null }, 8, 'tensor "a"', "expected an object, found null"],
    [{ __metadata__: { a: 1 } }, 0, "__metadata__", "text values"],
    [{ __metadata__: [] }, 0, "__metadata__"],
    ["[]", 0, "expected a JSON object"],
    ["{", 0, "length of 2 to"],
    ["{]", 0, "expected a JSON object"],
    ['{"a":1,"a":2}', 0, 'key "a" occurs twice'],
    ['{"a":{"dtype":"F32","dtype":"F16"}}', 0, 'key "dtype" occurs twice'],
    [`{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`, 0, 'tensor "a"'],
  ];
  for (const [header, data, ...parts] of cases) {
    assertRefused(
      () => openSafetensors(craft(header, data), "model.safetensors"),
      "model.safetensors: ",
      ...parts,
    );
  }
});

Deno.test("a header of 2^60 bytes, an empty file and a file of another kind are refused", () => {
  assertRefused(() => openSafetensors(craft("{}", 0, 2n ** 60n), "x"), "found 1152921504606846976");
  assertRefused(() => openSafetensors(craft("{}", 0, 2n ** 64n - 1n), "x"), "found 18446744073709551615");
  assertRefused(() => openSafetensors(new Uint8Array(0), "x"), "found only 0 bytes");
  assertRefused(() => openSafetensors(new TextEncoder().encode("PK\x03\x04 not a safetensors file"), "x"));
  assertRefused(() => openSafetensors("/nonexistent/x.safetensors"), "cannot open: no such file or folder");
  assertRefused(() => openSafetensors("/"), "expected a regular file, found a folder");
});

Deno.test("a file that is cut anywhere is refused", async () => {
  const bytes = await encodeSafetensors({
    x: fromFloat32(new Float32Array(4), [4]),
    y: fromFloat32(new Float32Array(1), [1]),
  });
  for (let length = 0; length < bytes.length; length++) {
    assertRefused(() => openSafetensors(bytes.slice(0, length), "cut"));
  }
});

Deno.test("npm:safetensors, a second reader, sees the same tensors where it works (no metadata)", async () => {
  const tensors = { a: randomTensor(generator(4), [2, 3], "F32"), b: randomTensor(generator(5), [4], "I64") };
  const second = new secondReader.SafeTensor(await encodeSafetensors(tensors));
  for (const [name, tensor] of Object.entries(tensors)) {
    assertEquals(second.metadata.get(name).shape, tensor.shape);
    assertEquals(second.metadata.get(name).dtype, tensor.dtype);
    assertEquals(second.getTensor(name), tensor.data);
  }
});

Deno.test("a file that is visited for every read stays readable, holds nothing open, and notices a change", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/kept.safetensors`, values = new Float32Array([1, 2, 3]);
    await writeSafetensors(path, { a: fromFloat32(values, [3]) });
    const file = openSafetensors(visitSource(path));
    assertEquals(toFloat32(file.read("a")), values);
    assertEquals(toFloat32(file.read("a")), values);
    Deno.writeFileSync(path, new Uint8Array(8), { append: true });
    assertThrows(() => file.read("a"), FileFormatError, "changed while in use");
    Deno.removeSync(path);
    assertThrows(() => file.read("a"), FileAccessError, "cannot open");
  });
});
