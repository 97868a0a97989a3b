import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { generator } from "../kernels/check.ts";
import { elements, fromFloat32, hostDTypes, type HostTensor, toFloat32 } from "../lib/io/host.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { openPth } from "../lib/io/pth.ts";
import { writePth } from "../lib/io/pth_write.ts";
import { writeSafetensors } from "../lib/io/safetensors.ts";
import { stateDict } from "../lib/io/state_dict.ts";
import { assertRefused, inFolder, randomTensor, zipped } from "./io_helpers.ts";

const GOLDEN = new URL("./golden/pth/", import.meta.url).pathname;
const DATA = new URL("./data/pth/", import.meta.url).pathname;

/** Torch's word for each of our types. */
const DTYPES: Record<string, string> = {
  F64: "torch.float64",
  F32: "torch.float32",
  F16: "torch.float16",
  BF16: "torch.bfloat16",
  I64: "torch.int64",
  I32: "torch.int32",
  I16: "torch.int16",
  I8: "torch.int8",
  U8: "torch.uint8",
  BOOL: "torch.bool",
  U16: "torch.uint16",
  U32: "torch.uint32",
  U64: "torch.uint64",
  F8_E4M3: "torch.float8_e4m3fn",
  F8_E5M2: "torch.float8_e5m2",
};

/** Values in double precision: exact for every type. */
function values(tensor: HostTensor): number[] {
  const exact = ["F64", "I64", "U64", "I32", "U32"].includes(tensor.dtype);
  return exact ? Array.from(elements(tensor) as ArrayLike<number | bigint>, Number) : [...toFloat32(tensor)];
}

interface Expected {
  tensors: Record<string, { dtype: string; shape: number[]; first8: number[]; sum_f64: number }>;
}

Deno.test("every recorded checkpoint of torch 1.13 gives the recorded shapes, types, first values and sums", () => {
  const expected: Record<string, Expected> = JSON.parse(Deno.readTextFileSync(`${GOLDEN}expected.json`));
  assert(Object.keys(expected).length >= 7);
  for (const [name, { tensors }] of Object.entries(expected)) {
    using file = openPth(GOLDEN + name);
    assertEquals(new Set(file.tensors.keys()), new Set(Object.keys(tensors)), name);
    for (const [tensorName, want] of Object.entries(tensors)) {
      const tensor = file.read(tensorName);
      const label = `${name} ${tensorName}`;
      assertEquals(tensor.shape, want.shape, label);
      assertEquals(DTYPES[tensor.dtype], want.dtype, label);
      const got = values(tensor);
      assertEquals(got.slice(0, 8), want.first8, label);
      assertAlmostEquals(got.reduce((sum, value) => sum + value, 0), want.sum_f64, 1e-9 * got.length);
    }
  }
});

Deno.test("a checkpoint of torch 2.15 with every element type gives every value", () => {
  const expected: Record<string, { dtype: string; shape: number[]; values: number[] }> = JSON.parse(
    Deno.readTextFileSync(`${DATA}every_type.json`),
  );
  using file = openPth(`${DATA}every_type.pth`);
  assertEquals([...file.tensors.keys()], Object.keys(expected));
  for (const [name, want] of Object.entries(expected)) {
    const tensor = file.read(name);
    assertEquals(
      [DTYPES[tensor.dtype], tensor.shape, values(tensor)],
      [want.dtype, want.shape, want.values],
      name,
    );
  }
});

Deno.test("stateDict() prefers averaged weights and drops what wrappers put before the names", () => {
  using file = openPth(`${DATA}training_run.pth`);
  const names = [
    "0.weight",
    "0.bias",
    "1.weight",
    "1.bias",
    "1.running_mean",
    "1.running_var",
    "1.num_batches_tracked",
  ];
  const averaged = stateDict(file);
  assertEquals(averaged.entry, "params_ema.module");
  assertEquals([...averaged.tensors.keys()], names);
  const trained = stateDict(file, "state_dict");
  assertEquals([...trained.tensors.keys()], names);
  assertEquals(toFloat32(trained.tensors.get("0.bias")!.read() as HostTensor).length, 2);
  assertEquals(file.metadata.epoch, "3");
  assertEquals(file.metadata.seed, String(2n ** 63n + 5n));
  assertEquals(file.metadata.negative, String(-(2 ** 40)));
  assertRefused(
    () => stateDict(file, "param_ema"),
    'no dictionary "param_ema"',
    'did you mean "params_ema"?',
  );
  using flat = openPth(`${GOLDEN}f32.pth`);
  assertEquals(stateDict(flat).entry, "");
  using nested = openPth(`${GOLDEN}nested.pth`);
  assertEquals([...stateDict(nested).tensors.keys()], [...flat.tensors.keys()]);
  assertEquals(nested.metadata["meta.name"], "far");
});

Deno.test("a file whose writer computed no checksums is read", () => {
  using file = openPth(`${DATA}no_checksums.pth`);
  assertEquals(values(file.read("a")), [0, 1, 2, 3]);
});

Deno.test("writePth() and openPth() are inverse for every type, and the same tensors give the same bytes", async () => {
  await inFolder(async (folder) => {
    const random = generator(21);
    const tensors: Record<string, HostTensor> = {};
    for (const dtype of hostDTypes) {
      tensors[`block.${dtype}`] = randomTensor(random, [2, 3], dtype);
      tensors[`scalar.${dtype}`] = randomTensor(random, [], dtype);
      tensors[`empty.${dtype}`] = randomTensor(random, [3, 0], dtype);
    }
    tensors["large.bias"] = randomTensor(random, [70_000], "U8");
    tensors["ünïcode"] = randomTensor(random, [300], "I64");
    await writePth(`${folder}/a.pth`, tensors);
    using file = openPth(`${folder}/a.pth`);
    assertEquals([...file.tensors.keys()], Object.keys(tensors));
    for (const [name, tensor] of Object.entries(tensors)) assertEquals(file.read(name), tensor, name);
    await writePth(`${folder}/b.pth`, file.tensors);
    assertEquals(Deno.readFileSync(`${folder}/b.pth`), Deno.readFileSync(`${folder}/a.pth`));
    await writeSafetensors(`${folder}/c.safetensors`, file.tensors);
    using converted = openTensorFile(`${folder}/c.safetensors`);
    for (const [name, tensor] of Object.entries(tensors)) assertEquals(converted.read(name), tensor, name);
  });
});

Deno.test("stored tensors of a written checkpoint are aligned to 64 bytes", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/a.pth`;
    const marks = [0, 1, 2].map((i) => fromFloat32(new Float32Array(5).fill(1000 + i), [5]));
    await writePth(path, { a: marks[0], bb: marks[1], ccc: marks[2] });
    const bytes = Deno.readFileSync(path);
    for (const { data } of marks) {
      const at = bytes.findIndex((_, i) => data.every((byte, j) => bytes[i + j] === byte));
      assert(at > 0 && at % 64 === 0, `found at ${at}`);
    }
    await assertRejects(
      () => writePth(path, [["a", marks[0]], ["a", marks[1]]]),
      RangeError,
      'two tensors are called "a"',
    );
  });
});

Deno.test("openTensorFile() finds the format in the content", async () => {
  await inFolder(async (folder) => {
    for (const name of ["f32.pth", "legacy_nonzip.pth"]) {
      Deno.copyFileSync(GOLDEN + name, `${folder}/x.bin`);
      using file = openTensorFile(`${folder}/x.bin`);
      assertEquals([file.format, file.tensors.size], ["pth", 28]);
    }
    await Deno.writeTextFile(`${folder}/x.bin`, "<!DOCTYPE html><title>404</title>");
    assertRefused(() => openTensorFile(`${folder}/x.bin`), "is a web page or a Git LFS pointer");
    await Deno.writeTextFile(`${folder}/x.bin`, "");
    assertRefused(() => openTensorFile(`${folder}/x.bin`), "an empty one");
    await Deno.writeTextFile(`${folder}/x.bin`, "hello, this is text");
    assertRefused(() => openTensorFile(`${folder}/x.bin`), "found none of them");
  });
});

const text = (latin1: string) => Uint8Array.from(latin1, (letter) => letter.charCodeAt(0));

/** A checkpoint archive with this pickle, and four bytes of storage. */
function checkpoint(pickle: string, more: Record<string, Uint8Array> = {}): Uint8Array {
  return zipped({ "x/data.pkl": text(pickle), "x/data/0": new Uint8Array(4), ...more });
}

/** The pickle of one tensor, `{"a": tensor}`, from its parts. */
function tensorPickle(numel: string, offset: string, shape: string, strides: string, type = "Float"): string {
  return "\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage" +
    `ctorch\n${type}Storage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu${numel}tQ${offset}(${shape}t(${strides}t\x89` +
    "ccollections\nOrderedDict\n)RtRs.";
}

const open = (bytes: Uint8Array) => openPth(bytes, "x.pth");

Deno.test("a hostile pickle is refused, and what it wanted to call is named", () => {
  const hostile: [string, string][] = [
    ["\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.", "posix.system"],
    ["cos\nsystem\n(S'id'\ntR.", "os.system"],
    ["(S'id'\nios\nsystem\n.", "os.system"],
    ["\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", "builtins.eval"],
    ["\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.", "posix.system"],
    ["\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.", "torch.nn.modules.linear.Linear"],
    ["\x80\x02c__builtin__\ngetattr\n.", "__builtin__.getattr"],
    ["\x80\x02ctorch\nload\n.", "torch.load"],
    ["\x80\x02ctoString\nconstructor\n.", "toString.constructor"],
    ["\x80\x02c\n__proto__\n.", ".__proto__"],
    ["\x80\x02cnumpy.core.multiarray\nscalar\n.", "numpy.core.multiarray.scalar"],
  ];
  for (const [pickle, name] of hostile) {
    assertRefused(() => open(checkpoint(pickle)), "x.pth: refers to", name, "refused");
    if (/^[\x80c]/.test(pickle)) assertRefused(() => open(text(pickle)), name);
  }
  // A name made to break out of the line is folded into it.
  assertRefused(() => open(checkpoint("\x80\x02\x8c\x03a\nb\x8c\x04\x1b[2J\x93.")), "refused");
});

Deno.test("pickles that are no checkpoints are refused in one line", () => {
  const cases: [string, string][] = [
    ["\x80\x02}", "ends before its STOP"],
    ["\x80\x02X\xff\xff\xff\x7fabc.", "ends within a value"],
    ["\x80\x02X\xff\xff\xff\xffabc.", "ends within a value"],
    ["\x80\x02B\xff\xff\xff\xffabc.", "a length of -1"],
    ["\x80\x02X\x01\x00\x00\x00\xff.", "damage"],
    ["\x80\x09.", "Unsupported protocol version"],
    ["\x80\x02\x82\x01.", "opcode 0x82"],
    ["\x80\x02(X\x01\x00\x00\x00aK\x01d.", "opcode 0x64"],
    ["\x80\x02h\x05R.", "damage"],
    ["\x80\x02K\x01Q.", "a persistent identifier"],
    ["\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "inside itself"],
    ["\x80\x02]q\x00(" + "h\x00".repeat(50) + "e.", "inside itself"],
    ["\x80\x02" + "]" + "\x85".repeat(100_000) + ".", "nested more than 32 deep"],
  ];
  for (const [pickle, part] of cases) assertRefused(() => open(checkpoint(pickle)), part);
  // A list that holds the one before it forty times, six levels deep, is four thousand million values.
  let bomb = "\x80\x02]q\x00";
  for (let level = 1; level <= 6; level++) {
    bomb += `]q${String.fromCharCode(level)}(${`h${String.fromCharCode(level - 1)}`.repeat(40)}e`;
  }
  assertRefused(() => open(checkpoint(bomb + ".")), "holds more than 2000000 values");
});

Deno.test("BUILD cannot give a list another length, nor any object an attribute", () => {
  // ["x"] with the state {"length": 2^31 - 1}, and then a tensor beside it.
  const state = "}X\x06\x00\x00\x00lengthJ\xff\xff\xff\x7fs";
  using file = open(checkpoint(`\x80\x02}X\x01\x00\x00\x00b]X\x01\x00\x00\x00xa${state}bs.`));
  assertEquals(file.metadata, { "b.0": "x" });
});

Deno.test('keys that give the same path, as 1 and "1", are two tensors of one name, or the later of two settings', () => {
  const pickle = tensorPickle("K\x01", "K\x00", "K\x01", "K\x01");
  const tensor = pickle.slice("\x80\x02}X\x01\x00\x00\x00a".length, -2);
  const both = (a: string, b: string) => `\x80\x02}K\x01${a}sX\x01\x00\x00\x001${b}s.`;
  assertRefused(() => open(checkpoint(both(tensor, tensor))), 'two tensors are called "1"');
  using file = open(checkpoint(both("K\x05", "K\x06")));
  assertEquals(file.metadata, { "1": "6" });
});

Deno.test("tensors that leave their storage are refused: expected, found", () => {
  const one = "K\x01";
  using good = open(checkpoint(tensorPickle(one, "K\x00", one, one)));
  assertEquals(good.read("a"), { shape: [1], dtype: "F32", data: new Uint8Array(4) });
  const cases: [string, ...string[]][] = [
    [tensorPickle(one, "K\x01", one, one), "expected its 1 elements to hold shape [1]", "which needs 2"],
    [tensorPickle(one, "K\x00", "K\x02", one), "which needs 2"],
    [tensorPickle(one, "K\x00", "K\x02K\x02", "K\x01K\x01"), "which needs 3"],
    [tensorPickle(one, "J\xff\xff\xff\xff", one, one), "non-negative integers"],
    [tensorPickle(one, "K\x00", "J\xff\xff\xff\xff", one), "non-negative integers"],
    [tensorPickle(one, "K\x00", one, "K\x01K\x01"), "non-negative integers"],
    [tensorPickle(one, "K\x00", "G\x3f\xf8\x00\x00\x00\x00\x00\x00", one), "non-negative integers"],
    [tensorPickle(one, "K\x00", "X\x01\x00\x00\x001", one), "non-negative integers"],
    [tensorPickle(one, "K\x00", "J\xff\xff\xff\x7f", "K\x00"), "repeats 4 bytes too often"],
    [
      tensorPickle(one, "K\x00", "J\xff\xff\xff\x7fJ\xff\xff\xff\x7f", "K\x00K\x00"),
      "[2147483647,2147483647]",
    ],
    [tensorPickle("J\xff\xff\xff\xff", "K\x00", one, one), "a persistent identifier"],
    [tensorPickle(one, "K\x00", one, one, "Complex"), "torch.ComplexStorage"],
  ];
  for (const [pickle, ...parts] of cases) assertRefused(() => open(checkpoint(pickle)), ...parts);
  using lying = open(checkpoint(tensorPickle("K\x09", "K\x00", "K\x09", one)));
  assertRefused(() => lying.read("a"), 'storage "0": expected 36 bytes, found 4');
  using missing = open(zipped({ "x/data.pkl": text(tensorPickle(one, "K\x00", one, one)) }));
  assertRefused(() => missing.read("a"), 'storage "0": missing from the zip archive');
});

Deno.test("archives that are no checkpoints are refused", () => {
  assertRefused(
    () => open(zipped({ "a.npy": new Uint8Array(4) })),
    "expected a checkpoint with one data.pkl, found 0",
  );
  const script = { "x/constants.pkl": text("\x80\x02).") };
  assertRefused(() => open(checkpoint("\x80\x02}.", script)), "is a TorchScript program");
  assertRefused(() => open(checkpoint("\x80\x02}.", { "x/byteorder": text("big") })), 'byte order "big"');
  assertRefused(() => open(text("no checkpoint at all")), "expected a checkpoint of torch.save");
  assertRefused(() => open(new Uint8Array(0)), "expected a checkpoint of torch.save");
});

Deno.test("a damaged checkpoint is refused wherever it was cut, and bit flips never change a tensor unnoticed", () => {
  for (const name of [`${DATA}every_type.pth`, `${GOLDEN}odd.pth`]) {
    const good = Deno.readFileSync(name);
    using whole = openPth(good);
    const truth = whole.readAll();
    for (let length = 0; length < good.length; length += 37) assertRefused(() => open(good.slice(0, length)));
    for (let at = 0; at < good.length; at += 5) {
      const bytes = good.slice();
      bytes[at] ^= 1 << (at % 8);
      try {
        using file = open(bytes);
        for (const [tensorName, tensor] of file.readAll()) assertEquals(tensor, truth.get(tensorName));
      } catch (error) {
        assertRefused(() => {
          throw error;
        });
      }
    }
  }
  const legacy = Deno.readFileSync(`${GOLDEN}legacy_nonzip.pth`);
  for (let length = 0; length < legacy.length; length += 501) {
    assertRefused(() => open(legacy.slice(0, length)));
  }
  assertRefused(
    () => open(new Uint8Array([...legacy, 0])),
    "expected it to end at byte 128049, found 128050 bytes",
  );
});
