/**
 * Python pickles as `torch.save` writes them, read with npm:pickleparser behind two guards. Every global goes through the
 * caller's allow-list. And the bytes reach the parser through a reader of ours, which passes only the opcodes that a
 * checkpoint needs and rewrites three of them, because the parser
 *
 * - lets BUILD assign attributes to any object, such as a length of 2^32 to a list: it becomes TUPLE2 and BINPERSID, which
 *   hand object and state to a function of ours (PyTorch uses BUILD only for the `_metadata` of a state dictionary);
 * - reads LONG1 and LONG4 as unsigned, and refuses more than eight bytes: they become BINFLOAT with our own integer.
 *
 * @module
 */
// deno-lint-ignore no-import-prefix -- lib/ is also imported where no import map is
import { Parser } from "npm:pickleparser@0.2.1";
import { FileFormatError } from "./errors.ts";

type ParserOptions = NonNullable<ConstructorParameters<typeof Parser>[0]>;
type NameResolver = NonNullable<ParserOptions["nameResolver"]>;

const OPCODES: Readonly<Record<string, number>> = {
  PROTO: 0x80,
  FRAME: 0x95,
  STOP: 0x2e,
  MARK: 0x28,
  POP: 0x30,
  POP_MARK: 0x31,
  BINPUT: 0x71,
  LONG_BINPUT: 0x72,
  MEMOIZE: 0x94,
  BINGET: 0x68,
  LONG_BINGET: 0x6a,
  NONE: 0x4e,
  NEWTRUE: 0x88,
  NEWFALSE: 0x89,
  BININT: 0x4a,
  BININT1: 0x4b,
  BININT2: 0x4d,
  LONG1: 0x8a,
  LONG4: 0x8b,
  BINFLOAT: 0x47,
  STRING: 0x53,
  BINSTRING: 0x54,
  SHORT_BINSTRING: 0x55,
  BINUNICODE: 0x58,
  SHORT_BINUNICODE: 0x8c,
  BINUNICODE8: 0x8d,
  BINBYTES: 0x42,
  SHORT_BINBYTES: 0x43,
  BINBYTES8: 0x8e,
  EMPTY_TUPLE: 0x29,
  TUPLE: 0x74,
  TUPLE1: 0x85,
  TUPLE2: 0x86,
  TUPLE3: 0x87,
  EMPTY_LIST: 0x5d,
  APPEND: 0x61,
  APPENDS: 0x65,
  EMPTY_DICT: 0x7d,
  SETITEM: 0x73,
  SETITEMS: 0x75,
  EMPTY_SET: 0x8f,
  ADDITEMS: 0x90,
  GLOBAL: 0x63,
  STACK_GLOBAL: 0x93,
  // Not written by torch.save, but a hostile pickle may hold them: they name what they want to call.
  INST: 0x69,
  OBJ: 0x6f,
  NEWOBJ: 0x81,
  NEWOBJ_EX: 0x92,
  REDUCE: 0x52,
  BUILD: 0x62,
  BINPERSID: 0x51,
};
const ALLOWED: ReadonlySet<number> = new Set(Object.values(OPCODES));

/**
 * Opcodes that a pickle may have: forty for each of a hundred thousand tensors. Each can make an object of some hundred bytes,
 * so that 64 MiB of them would fill any memory.
 */
const MOST_OPCODES = 4_000_000;

/** Thrown when the bytes end inside the pickle, so that a caller who gave only a part can give more. */
export class PickleEnd extends Error {
  /** Tells this error from others where classes cannot be compared. */
  override readonly name = "PickleEnd";
}

/** A signed little-endian integer of any length; a bigint where a number would round. */
function longInteger(bytes: Uint8Array): number | bigint {
  if (bytes.length > 1024) throw new RangeError(`an integer of ${bytes.length} bytes`);
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = value << 8n | BigInt(bytes[i]);
  const signed = BigInt.asIntN(8 * bytes.length, value);
  return Number.isSafeInteger(Number(signed)) ? Number(signed) : signed;
}

/** Feeds the parser; see the top of this file for what it changes on the way. */
class GuardedReader {
  position: number;
  readonly #bytes: Uint8Array;
  readonly #data: DataView;
  #opcodeNext = false;
  #integer: number | bigint | undefined;
  #opcodes = 0;
  #build: "none" | "next" | "now" = "none";

  constructor(bytes: Uint8Array, position: number) {
    this.#bytes = bytes;
    this.#data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.position = position;
  }

  /** The parser asks this before each opcode and at no other time. */
  hasNext(): boolean {
    this.#opcodeNext = true;
    if (++this.#opcodes > MOST_OPCODES) throw new RangeError(`more than ${MOST_OPCODES} opcodes`);
    if (this.#build === "next") return true;
    if (this.position >= this.#bytes.byteLength) throw new PickleEnd("ends before its STOP");
    return true;
  }
  /** Whether the persistent identifier that is resolved now is a BUILD in disguise; asked once for each. */
  takeBuild(): boolean {
    const building = this.#build === "now";
    this.#build = "none";
    return building;
  }
  byte(): number {
    if (this.#opcodeNext && this.#build === "next") {
      this.#opcodeNext = false;
      this.#build = "now";
      return OPCODES.BINPERSID;
    }
    const value = this.#data.getUint8(this.#advance(1));
    if (!this.#opcodeNext) return value;
    this.#opcodeNext = false;
    if (!ALLOWED.has(value)) {
      throw new SyntaxError(
        `opcode 0x${
          value.toString(16).padStart(2, "0")
        }, which torch.save with pickle protocol 2 to 5 does not write`,
      );
    }
    if (value === OPCODES.BUILD) {
      this.#build = "next";
      return OPCODES.TUPLE2;
    }
    if (value === OPCODES.LONG1 || value === OPCODES.LONG4) {
      this.#integer = longInteger(this.bytes(value === OPCODES.LONG1 ? this.byte() : this.uint32()));
      return OPCODES.BINFLOAT;
    }
    return value;
  }
  float64(): number {
    if (this.#integer === undefined) return this.#data.getFloat64(this.#advance(8), false);
    const integer = this.#integer;
    this.#integer = undefined;
    return integer as number; // the parser only pushes it, so that a bigint passes
  }
  bytes(length: number): Uint8Array {
    const start = this.#advance(length);
    return this.#bytes.subarray(start, start + length);
  }
  uint16(): number {
    return this.#data.getUint16(this.#advance(2), true);
  }
  int32(): number {
    return this.#data.getInt32(this.#advance(4), true);
  }
  uint32(): number {
    return this.#data.getUint32(this.#advance(4), true);
  }
  uint64(): number {
    return Number(this.#data.getBigUint64(this.#advance(8), true));
  }
  skip(length: number): void {
    this.#advance(length);
  }
  string(length: number, encoding: "ascii" | "utf-8"): string {
    const label = encoding === "ascii" ? "latin1" : "utf-8";
    return new TextDecoder(label, { fatal: true, ignoreBOM: true }).decode(this.bytes(length));
  }
  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.position);
    if (end === -1) throw new PickleEnd("ends within a line");
    const text = this.string(end - this.position, "utf-8");
    this.skip(1);
    return text;
  }

  /** Moves on by `length` bytes and returns where they began. */
  #advance(length: number): number {
    const start = this.position;
    if (!(length >= 0)) throw new RangeError(`a length of ${length}`);
    if (start + length > this.#bytes.byteLength) throw new PickleEnd("ends within a value");
    this.position += length;
    return start;
  }
}

/** Resolvers of what a pickle may refer to. All functions throw to refuse. */
export interface PickleResolvers {
  /** The value that stands for a global of Python; a function if it is called. */
  global(module: string, name: string): unknown;
  /** The value that stands for a persistent identifier. */
  persistent(id: unknown): unknown;
  /** Returns the value to use for an object that is given a state. */
  state(object: unknown, state: unknown): unknown;
}

/**
 * Reads one pickle. Dictionaries become maps, tuples and lists arrays, integers beyond 2^53 bigints.
 *
 * @param path The file, for messages.
 * @param bytes The pickle, with anything behind it.
 * @param start Where it begins.
 * @param resolvers The allow-list.
 * @returns The value, and where the pickle ended.
 * @throws {FileFormatError} If it is damaged, or a resolver refuses.
 * @throws {PickleEnd} If the bytes end before the pickle does.
 */
export function readPickle(
  path: string,
  bytes: Uint8Array,
  start: number,
  resolvers: PickleResolvers,
): { value: unknown; end: number } {
  const reader = new GuardedReader(bytes, start);
  const options: ParserOptions = {
    nameResolver: {
      resolve: (module, name) => resolvers.global(module, name) as ReturnType<NameResolver["resolve"]>,
    },
    persistentResolver: {
      resolve: (id: unknown) => {
        if (!reader.takeBuild()) return resolvers.persistent(id);
        const [object, state] = id as [unknown, unknown];
        return resolvers.state(object, state);
      },
    },
    extensionResolver: {
      resolve: () => {
        throw new SyntaxError("an extension code");
      },
    },
    unpicklingTypeOfDictionary: "Map",
    unpicklingTypeOfSet: "array",
  };
  try {
    return { value: new Parser(options).read(reader), end: reader.position };
  } catch (error) {
    if (error instanceof FileFormatError || error instanceof PickleEnd) throw error;
    const reason = (error as Error).message;
    throw new FileFormatError(
      path,
      `expected a pickle of torch.save, found damage at byte ${reader.position}: ${reason}`,
      {
        cause: error,
      },
    );
  }
}
