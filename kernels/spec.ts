/**
 * The contract of one operation, read by both devices, the tests and the estimates.
 *
 * A kernel names its buffers and their shapes by letters (`"T D"`), its scalars, its cost, its double-precision
 * reference and one launch per device. Conventions that hold everywhere:
 *
 * - buffers are passed in the order inputs, then outputs; an input marked `?` may be absent;
 * - activations are assigned, parameter gradients accumulate;
 * - gradients are named `dX` for an input `x`;
 * - a letter stands for one size in the whole kernel; sizes are solved from the inputs and checked.
 *
 * On both devices the scalars (`params`) and the compile-time choices (`flags`) reach the kernel in declared order:
 *
 * - WGSL: buffer i is `@group(0) @binding(i)`; after the last buffer comes one `var<uniform>` struct that holds the
 *   params (4 bytes each, declared order); each flag is an `override` constant of the same name;
 * - WebAssembly: `fn(args, task, scratch)`; `args` points to 4-byte words: buffer addresses (0 when absent), params,
 *   flags; `task` counts from 0 to tasks-1 and may run on any thread in any order, so a task owns what it writes;
 *   `scratch` is a private area of that thread.
 *
 * @module
 */

/** Buffers that a kernel may have: the storage buffers that WebGPU promises a shader stage. Many adapters have no more. */
export const MAX_BUFFERS = 8;

/** Element type of a tensor: 32-bit float, IEEE half (storage only; arithmetic is f32), 32-bit signed integer. */
export type DType = "f32" | "f16" | "i32";

/** Type of a scalar that is passed to a kernel at every launch. */
export type ParamType = "u32" | "i32" | "f32";

/** Sizes (letters), scalars and flags of one launch, by name. */
export type Params = Readonly<Record<string, number>>;

/** Host copies of a kernel's buffers for its reference: f64 for floats, i32 for indices, null when absent. */
export type HostBuffers = Record<string, Float64Array | Int32Array | null>;

/** What a WGSL launch may depend on besides its sizes and flags. */
export interface Target {
  /** True for the variants that suit a software adapter: registers instead of shared memory. */
  readonly software: boolean;
  /** Bytes of shared memory that a workgroup may have; WebGPU promises 16,384. */
  readonly sharedBytes: number;
}

/**
 * How a kernel runs on WebGPU.
 *
 * Flags must not change within a pipeline, sizes may: `entry` may choose by anything, `source` by flags and target only.
 */
export interface WgslSide {
  /** WGSL text, or a function of the flags where array sizes depend on them (head width, say). */
  readonly source: string | ((p: Params, target: Target) => string);
  /** Entry point. */
  readonly entry: string | ((p: Params, target: Target) => string);
  /** More `override` constants, made from sizes that take few values (a filter's width, say). */
  readonly constants?: (p: Params, target: Target) => Readonly<Record<string, number>>;
  /** Number of workgroups, x or [x, y, z]. A plain number may exceed 65,535: the device folds it into x and y. */
  readonly groups: (p: Params, target: Target) => number | readonly [number, number, number];
  /** Loop iterations of one invocation, all loops together; software adapters stop silently after 65,535. */
  readonly loops: (p: Params, target: Target) => number;
}

/** How a kernel runs on the WebAssembly device. */
export interface WasmSide {
  /** Exported function, `(args: usize, task: i32, scratch: usize) => void`. */
  readonly fn: string;
  /** Number of independent tasks. It depends on the shapes only, never on the number of threads. */
  readonly tasks: (p: Params) => number;
  /** Bytes of private scratch memory that one thread needs. */
  readonly scratch?: (p: Params) => number;
  /** Weights that may come packed, by input name: rows, channels and taps of the layout that the kernel expects. */
  readonly packed?: (p: Params) => Readonly<Record<string, readonly [number, number, number]>>;
}

/** One operation. See the module text for the conventions. */
export interface Kernel {
  /** Name in messages and statistics. */
  readonly name: string;
  /** Shape contracts of the inputs, e.g. `"T D"`, `"T:i32"`, `"N?"`, `"N K:f16"` (an f32 input may come as f16 where marked `:f32|f16`). */
  readonly inputs: Readonly<Record<string, string>>;
  /** Shape contracts of the outputs. */
  readonly outputs: Readonly<Record<string, string>>;
  /** Scalars in the order in which both devices get them. Size letters may be listed here too. */
  readonly params: Readonly<Record<string, ParamType>>;
  /** Small non-negative integers that are fixed per pipeline (activation, presence of an input, head width). */
  readonly flags: readonly string[];
  /** Floating-point operations of a launch (a multiply-add counts as two). */
  readonly flops: (p: Params) => number;
  /** What the kernel must compute, in double precision: writes the outputs, which come allocated. */
  readonly reference: (io: HostBuffers, p: Params) => void;
  /** The WebGPU side. */
  readonly wgsl: WgslSide;
  /** The WebAssembly side. */
  readonly wasm: WasmSide;
}

/** A parsed shape contract. */
export interface Contract {
  readonly letters: readonly string[];
  readonly dtypes: readonly DType[];
  readonly optional: boolean;
}

/** Parses `"N K:f32|f16?"` into letters, dtypes and whether the buffer may be absent. */
export function parseContract(text: string): Contract {
  const optional = text.endsWith("?");
  const [shape, types] = (optional ? text.slice(0, -1) : text).split(":");
  return {
    letters: shape.split(" ").filter((s) => s.length > 0),
    dtypes: (types?.split("|") ?? ["f32"]) as DType[],
    optional,
  };
}

/** What the shape check needs to know of a tensor. */
export interface Shaped {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/**
 * Solves the size letters of a kernel from its tensors and checks every shape and dtype.
 *
 * @param given Sizes that are known beforehand (they win over the tensors, which are then checked against them).
 * @returns The sizes by letter, `given` included.
 * @throws {RangeError} On a wrong rank, size or dtype, or a missing input: who, what, expected, found.
 */
export function solveShapes(
  kernel: Kernel,
  tensors: Readonly<Record<string, Shaped | null | undefined>>,
  given: Params = {},
): Record<string, number> {
  const sizes: Record<string, number> = { ...given };
  const from: Record<string, string> = {};
  const fail = (who: string, shape: readonly number[], letters: readonly string[]): never => {
    const expected = letters.map((l) =>
      /^\d+$/.test(l)
        ? l
        : `${l}${sizes[l] === undefined ? "" : `=${sizes[l]}`}${from[l] ? ` (from ${from[l]})` : ""}`
    );
    throw new RangeError(
      `${kernel.name}: ${who} has shape [${shape.join(", ")}], expected [${expected.join(", ")}]`,
    );
  };
  for (const [name, text] of [...Object.entries(kernel.inputs), ...Object.entries(kernel.outputs)]) {
    const contract = parseContract(text);
    const t = tensors[name];
    if (t === null || t === undefined) {
      if (contract.optional || (name in kernel.outputs && t === undefined)) continue;
      throw new RangeError(`${kernel.name}: ${name} is missing, expected [${contract.letters.join(", ")}]`);
    }
    if (!contract.dtypes.includes(t.dtype)) {
      throw new RangeError(
        `${kernel.name}: ${name} has dtype ${t.dtype}, expected ${contract.dtypes.join(" or ")}`,
      );
    }
    if (t.shape.length !== contract.letters.length) fail(name, t.shape, contract.letters);
    contract.letters.forEach((letter, i) => {
      const size = t.shape[i];
      if (/^\d+$/.test(letter)) {
        if (size !== Number(letter)) fail(name, t.shape, contract.letters);
      } else if (sizes[letter] === undefined) {
        sizes[letter] = size;
        from[letter] = name;
      } else if (sizes[letter] !== size) fail(name, t.shape, contract.letters);
    });
  }
  return sizes;
}
