import { assertEquals } from "@std/assert";
import { toFloat32 } from "../lib/io/host.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { openPth } from "../lib/io/pth.ts";
import { stateDict } from "../lib/io/state_dict.ts";
import { assertRefused, inFolder, zipped } from "./io_helpers.ts";

/**
 * Pickles as torch.save writes them, put together from opcodes, one character a byte. Each helper pushes one value.
 */
const u32 = (n: number) => String.fromCharCode(n & 255, n >> 8 & 255, n >> 16 & 255, n >>> 24);
const str = (text: string) => `X${u32(text.length)}${text}`;
const int = (n: number) => n < 256 ? `K${String.fromCharCode(n)}` : `J${u32(n)}`;
const tuple = (...items: string[]) => `(${items.join("")}t`;
const dict = (...items: string[]) => `}(${items.join("")}u`;
const bytes = (text: string) => `c_codecs\nencode\n${tuple(str(text), str("latin1"))}R`; // as protocol 2 has them
const storage = (key: string, count: number, type = "Float") =>
  `${tuple(str("storage"), `ctorch\n${type}Storage\n`, str(key), str("cpu"), int(count))}Q`;

interface View {
  readonly key?: string;
  readonly count?: number;
  readonly shape?: readonly number[];
  readonly strides?: readonly number[];
  /** Pickle of what follows the hooks. */
  readonly metadata?: string;
  readonly type?: string;
}

/** A tensor; two floats in storage 0 unless told otherwise. */
function tensor(
  { key = "0", count = 2, shape = [2], strides = [1], metadata = "", type }: View = {},
): string {
  const head = [storage(key, count, type), int(0), tuple(...shape.map(int)), tuple(...strides.map(int))];
  return `ctorch._utils\n_rebuild_tensor_v2\n${
    tuple(...head, "\x89", "ccollections\nOrderedDict\n)R", metadata)
  }R`;
}

const latin1 = (text: string) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));
const floats = (...values: number[]) => new Uint8Array(new Float32Array(values).buffer);

/** An archive with this pickle and storages of two floats; the second holds 30 and 40. */
const archive = (value: string, more: Record<string, Uint8Array> = {}) =>
  zipped({
    "x/data.pkl": latin1(`\x80\x02${value}.`),
    "x/data/0": floats(1, 2),
    "x/data/1": floats(30, 40),
    ...more,
  });
const open = (value: string, more?: Record<string, Uint8Array>) => openPth(archive(value, more), "x.pth");
const second = tensor({ key: "1" });

Deno.test("a tensor with torch's negative or conjugate bit is refused by its name, never read with another sign", () => {
  for (
    const [key, said] of [["neg", "negative bit"], ["conj", "conjugate bit"], [
      "zip",
      'metadata "zip"',
    ]] as const
  ) {
    for (const set of ["\x88", "\x89"]) { // PyTorch sets the bit whatever the value
      const odd = tensor({ metadata: dict(str(key), set) });
      const nested = dict(str("plain"), second, str("model"), dict(str("head.weight"), odd));
      assertRefused(() => open(nested), `"model.head.weight": is a tensor whose ${said}`, "resolve_neg()");
      assertRefused(() => open(odd), '"tensor": is a tensor whose');
      // Inside a Parameter, and rebuilt as a subclass.
      const hooks = "ccollections\nOrderedDict\n)R";
      assertRefused(
        () => open(dict(str("w"), `ctorch._utils\n_rebuild_parameter\n${tuple(odd, "\x88", hooks)}R`)),
        said,
      );
    }
  }
  const v3 = (metadata: string) =>
    "ctorch._utils\n_rebuild_tensor_v3\n" + tuple(
      `${tuple(str("storage"), "ctorch.storage\nUntypedStorage\n", str("0"), str("cpu"), int(8))}Q`,
      ...[int(0), tuple(int(2)), tuple(int(1)), "\x89", "ccollections\nOrderedDict\n)R"],
      "ctorch\nuint32\n",
      metadata,
    ) + "R";
  assertRefused(
    () => open(dict(str("w"), v3(dict(str("neg"), "\x88")))),
    '"w": is a tensor whose negative bit',
  );
  // No metadata, and none in it, are a tensor like any other.
  for (const plain of [tensor(), tensor({ metadata: "}" }), tensor({ metadata: "N" }), v3("}")]) {
    using file = open(dict(str("w"), plain));
    assertEquals(file.read("w").shape, [2]);
  }
});

Deno.test("tensors under keys of other types keep a name, as Python prints the key, or are refused by it", () => {
  const keys: [string, string][] = [
    ["\x88", "True"],
    ["\x89", "False"],
    ["N", "None"],
    [tuple(int(0), int(1)), "(0, 1)"],
    [tuple(str("a"), tuple(str("b"))), "('a', ('b',))"],
    [tuple(int(7)), "(7,)"],
    ["G\x3f\xf8\x00\x00\x00\x00\x00\x00", "1.5"],
    ["\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01", String(2n ** 64n)],
  ];
  using file = open(dict(...keys.flatMap(([key]) => [key, second])));
  assertEquals([...file.tensors.keys()], keys.map(([, name]) => name));
  assertEquals([...toFloat32(file.read("None"))], [30, 40]);
  using nested = open(dict("\x88", dict("N", second)));
  assertEquals([...nested.tensors.keys()], ["True.None"]);
  assertRefused(() => open(dict("N", second, str("None"), second)), 'two tensors are called "None"');
  for (
    const [key, said] of [
      [bytes("a"), '"<bytes>"'],
      ["C\x01a", '"<bytes>"'],
      ["ctorch\ndevice\n" + tuple(str("cpu")) + "R", '"<device>"'],
      ["ctorch\nfloat32\n", '"<object>"'],
      [second, '"<tensor>"'],
      [tuple(second), '"<tuple>"'],
    ]
  ) {
    assertRefused(
      () => open(dict(str("w"), second, key, tensor())),
      `${said}: is a tensor under a key that has no name`,
    );
  }
  // Two such keys are two keys: neither tensor replaces the other.
  assertRefused(
    () => open(dict(bytes("a"), dict(str("x"), int(1)), bytes("b"), dict(str("y"), tensor()))),
    '"<bytes>.y"',
  );
  using settings = open(dict(str("w"), second, bytes("note"), int(5)));
  assertEquals([settings.tensors.size, settings.metadata], [1, {}]);
});

Deno.test("no other tensor is lost: in sets, as bare storages, from PyTorch 0.3, behind a second state", () => {
  using set = open(dict(str("s"), `cbuiltins\nset\n${tuple(`](${second}e`)}R`));
  assertEquals([...set.tensors.keys()], ["s.0"]);
  assertRefused(() => open(dict(str("raw"), storage("0", 2))), '"raw": is a bare storage');
  assertRefused(() => open(dict(str("w"), `ctorch\nTensor\n${tuple(int(2))}R`)), "PyTorch 0.3");
  const state = tuple(storage("1", 2), int(0), tuple(int(2)), tuple(int(1)));
  assertRefused(
    () => open(dict(str("w"), `${tensor()}${state}b`)),
    'storage "0": its state is set a second time',
  );
  assertRefused(() => open(dict(str("w"), "h\x07")), '"w": the pickle refers to a value that is not there');
  assertRefused(
    () => open(dict(str("w"), second, str("v"))),
    '"v": the pickle refers to a value that is not there',
  );
  // The state that PyTorch gives a state dictionary is dropped.
  using file = open(`ccollections\nOrderedDict\n)R(${str("w")}${second}u${dict(str("_metadata"), "}")}b`);
  assertEquals([[...file.tensors.keys()], file.metadata], [["w"], {}]);
});

Deno.test("strays beside a nested state dictionary and beside a wrapped model do not keep the prefix on", () => {
  const scalar = tensor({ shape: [], strides: [] });
  const state = tensor({ type: "Byte", shape: [8], count: 8 });
  const names = (value: string) => {
    using file = open(value);
    const { entry, tensors } = stateDict(file);
    return [entry, ...tensors.keys()];
  };
  const inside = dict(str("a"), tensor(), str("b"), second);
  assertEquals(names(dict(str("model"), inside, str("epoch"), scalar)), ["model", "a", "b"]);
  assertEquals(names(dict(str("rng"), state, str("model"), dict(str("a"), second))), ["model", "a"]);
  assertEquals(names(dict(str("netG"), inside, str("best"), scalar, str("x"), tensor())), ["netG", "a", "b"]);
  assertEquals(names(dict(str("params"), inside, str("ema"), inside, str("best"), scalar)), [
    "ema",
    "a",
    "b",
  ]);
  assertEquals(names(dict(str("module.a"), tensor(), str("n_averaged"), scalar)), ["module", "a"]);
  assertEquals(names(dict(str("module.a"), tensor(), str("other"), second)), ["", "module.a", "other"]);
  // Where most weights are at the top, they are the model; where neither has more, the user says.
  assertEquals(names(dict(str("a"), tensor(), str("b"), second, str("extra"), dict(str("t"), second))), [
    ...["", "a", "b", "extra.t"],
  ]);
  using even = open(dict(str("a"), tensor(), str("model"), dict(str("b"), second)));
  assertRefused(() => stateDict(even), "as many tensors at its top as inside", '"", "model"');
  assertEquals([...stateDict(even, "model").tensors.keys()], ["b"]);
});

/** The older stream: number, version, system, value and keys as pickles, then each storage. */
function stream(protocol: number): Uint8Array {
  const magic = "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
  const pickle = (value: string) => {
    const start = `\x80${String.fromCharCode(protocol)}`;
    if (protocol < 4) return `${start}${value}.`;
    return `${start}\x95${u32(value.length + 1)}${u32(0)}${value}.`; // framed
  };
  const parts = [
    magic,
    int(1001),
    dict(str("little_endian"), "\x88"),
    dict(str("w"), tensor()),
    `](${str("0")}e`,
  ];
  const data = `${u32(2)}${u32(0)}${String.fromCharCode(...floats(1, 2))}`;
  return latin1(parts.map(pickle).join("") + data);
}

Deno.test("the older stream is read in pickle protocols 2 to 5, and named in 0 and 1", async () => {
  for (const protocol of [2, 3, 4, 5]) {
    using file = openPth(stream(protocol), "x.pth");
    assertEquals([...toFloat32(file.read("w"))], [1, 2]);
  }
  await inFolder((folder) => {
    const path = `${folder}/x.bin`;
    Deno.writeFileSync(path, stream(4));
    using file = openTensorFile(path);
    assertEquals(file.tensors.size, 1);
    Deno.writeTextFileSync(path, "L119547037146038801333356L\n.I1001\n.");
    assertRefused(() => openTensorFile(path), "pickle protocol 0 or 1, expected 2 to 5");
  });
  assertRefused(() => openPth(latin1("\x80\x04N."), "x.pth"), "bare pickle");
  const wrong = stream(2);
  wrong[15 + 3] = 1; // the low byte of the version
  assertRefused(() => openPth(wrong, "x.pth"), "expected version 1001");
});

Deno.test("views may repeat memory, all together at most sixteen times the file and 64 MiB", () => {
  const views = (count: number, each: number) =>
    dict(
      ...Array.from({ length: count }, (_, i) => [
        str(`v${i}`),
        tensor({ count: 1, shape: [each], strides: [0], key: "2" }),
      ]).flat(),
    );
  const one = { "x/data/2": floats(5) };
  using file = open(views(15, 2 ** 20), one); // 60 MiB
  assertEquals(toFloat32(file.read("v14"))[2 ** 20 - 1], 5);
  assertRefused(
    () => open(views(48, 2 ** 24), one),
    "its 48 tensors are views that repeat memory and take 3221225472 bytes",
  );
  // Tied weights take no memory of the file and are no reason to refuse it.
  const shared = { "x/data/2": new Uint8Array(2 ** 23) };
  const tied = dict(
    ...Array.from({ length: 12 }, (_, i) => [
      str(`layer${i}`),
      tensor({ count: 2 ** 21, shape: [2 ** 21], key: "2" }),
    ]).flat(),
  );
  using whole = open(tied, shared);
  assertEquals(whole.tensors.size, 12);
});

Deno.test("a pickle of millions of empty objects is refused before it fills the memory", () => {
  const pickle = new Uint8Array(2 ** 23).fill("}".charCodeAt(0));
  assertRefused(
    () => openPth(zipped({ "x/data.pkl": new Uint8Array([0x80, 2, ...pickle]) }), "x.pth"),
    "more than 4000000 opcodes",
  );
});
