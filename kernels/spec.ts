/**
 * The contract of one operation, read by both devices, the tests and the estimates.
 *
 * A kernel names its buffers and their shapes by letters (`"T D"`), its scalars, its cost, its double-precision
 * reference, one launch per device, the cases that check it and, where it can be differentiated, its gradient rule.
 * docs/kernels.md shows how to add one. Conventions that hold everywhere:
 *
 * - buffers are passed in the order inputs, then outputs; an input marked `?` may be absent;
 * - activations are assigned, parameter gradients accumulate;
 * - gradients are named `dX` for an input `x`;
 * - a letter stands for one size in the whole kernel; sizes are solved from the inputs and checked.
 *
 * Both devices get the buffers, the scalars (`params`) and the compile-time choices (`flags`) under the names of the
 * contract, through declarations that are generated from it:
 *
 * - WGSL (webgpu/declare.ts): a storage variable per buffer, a uniform `p` with a field per scalar, an `override`
 *   constant per flag;
 * - AssemblyScript (cpu/declare.ts): `fn(a, task, scratch)`, where `a` has a field per buffer (its address, 0 when
 *   absent), scalar and flag; `task` counts from 0 to tasks-1 and may run on any thread in any order, so a task owns
 *   what it writes; `scratch` is a private area of that thread.
 *
 * `deno task kernel NAME` prints the declarations and the whole shader of a kernel.
 *
 * @module
 */
import type { GradientRule } from "./gradient.ts";

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

/** Properties of the adapter that a WGSL launch may depend on besides its sizes and flags. */
export interface Target {
  /** True for the variants that suit a software adapter: registers instead of shared memory. */
  readonly software: boolean;
  /** Bytes of shared memory that a workgroup may have; WebGPU promises 16,384. */
  readonly sharedBytes: number;
}

/**
 * A shader, and how it is dispatched.
 *
 * Flags must not change within a pipeline, sizes may: `entry` may choose by anything, `source` by flags and target only.
 */
export interface Shader {
  /** WGSL text after the declarations, or a function of the flags where array sizes depend on them (head width, say). */
  readonly source: string | ((p: Params, target: Target) => string);
  /** Entry point. */
  readonly entry: string | ((p: Params, target: Target) => string);
  /** Element types of buffers that the shader reads as something else: `vec4f` for four f32 at once, `u32` for bits. */
  readonly views?: Readonly<Record<string, string>>;
  /** More `override` constants, made from sizes that take few values (a filter's width, say). */
  readonly constants?: Readonly<Record<string, (p: Params) => number>>;
  /** Number of workgroups, x or [x, y, z]. A plain number may exceed 65,535: the device folds it into x and y. */
  readonly groups: (p: Params, target: Target) => number | readonly [number, number, number];
  /** Loop iterations of one invocation, all loops together; software adapters stop silently after 65,535. */
  readonly loops: (p: Params, target: Target) => number;
}

/** One of several dispatches of a launch: a shader that binds some of the kernel's buffers, and scratch memory. */
export interface Pass extends Shader {
  /** Buffers of the kernel and scratch that it reads, by name. */
  readonly reads: readonly string[];
  /** Outputs of the kernel and scratch that it writes. */
  readonly writes: readonly string[];
  /** Flags of the kernel that it uses; others do not make it a pipeline of its own. */
  readonly flags: readonly string[];
}

/** A launch that takes several dispatches, which run in order and hand results on in scratch memory. */
export interface Passes {
  /** Scratch memory: number of f32 by name. Undefined at first, gone after the launch. A pass may view it as another type. */
  readonly scratch: Readonly<Record<string, number>>;
  /** The dispatches. The same objects at every call: pipelines are kept by them. */
  readonly passes: readonly Pass[];
}

/** How a kernel runs on WebGPU: a shader that binds all of its buffers, or passes, or passes where those are faster. */
export interface WgslSide extends Partial<Shader> {
  /** The passes at some sizes; null where one dispatch of the kernel's own shader is faster. */
  readonly passes?: (p: Params, target: Target) => Passes | null;
}

/** How a kernel runs on the WebAssembly device: the exported function of the kernel's name. */
export interface WasmSide {
  /**
   * Number of independent tasks, or of each phase: tasks are numbered through, and those of a phase begin when all of the
   * phase before are done. It depends on the shapes, and on whether products go through a BLAS; never on threads.
   */
  readonly tasks: (p: Params, blas: boolean) => number | readonly number[];
  /** Bytes of memory that the phases of a launch share, its address in `args.shared`; with unspecified contents at first. */
  readonly shared?: (p: Params, blas: boolean) => number;
  /** Bytes of private scratch memory that one thread needs. */
  readonly scratch?: (p: Params, blas: boolean) => number;
  /** Weights that may come packed, by input name: rows, channels and taps of the layout that the kernel expects. */
  readonly packed?: (p: Params) => Readonly<Record<string, readonly [number, number, number]>>;
}

/** Sizes, scalars and flags at which a kernel is checked, and how to make the inputs that must not be random. */
export interface Case {
  /** All of them, by name. */
  readonly params: Params;
  /** Index inputs, and floats that must not be uniform in [-1, 1]. */
  readonly inputs?: Readonly<Record<string, (p: Params, random: () => number) => ArrayLike<number>>>;
  /** Optional inputs and outputs that are left out. */
  readonly absent?: readonly string[];
}

/** Largest error of a kernel against its reference, relative to max(1, largest expected value), with the reason. */
export interface Tolerance {
  /** The largest relative error. */
  readonly bound: number;
  /** The reason for it. */
  readonly why: string;
}

/** One operation as it is written down. See the module text for the conventions. */
export interface KernelSpec {
  /** Name in messages and statistics, and of the exported WebAssembly function. */
  readonly name: string;
  /** Shape contracts of the inputs, e.g. `"T D"`, `"T:i32"`, `"N?"`, `"N K:f16"` (an f32 input may come as f16 where marked `:f32|f16`). */
  readonly inputs: Readonly<Record<string, string>>;
  /** Shape contracts of the outputs. */
  readonly outputs: Readonly<Record<string, string>>;
  /** Scalars. Size letters may be listed here too. */
  readonly params: Readonly<Record<string, ParamType>>;
  /** Small non-negative integers that are fixed per pipeline (activation, presence of an input, head width). */
  readonly flags: readonly string[];
  /** Floating-point operations of a launch (a multiply-add counts as two). */
  readonly flops: (p: Params) => number;
  /** Reference implementation in double precision: writes the outputs, which come allocated. */
  readonly reference: (io: HostBuffers, p: Params) => void;
  /** The WebGPU side. */
  readonly wgsl: WgslSide;
  /** The WebAssembly side. */
  readonly wasm: WasmSide;
  /** Where it is checked on every device: the smallest sizes, odd edges, and sizes that fill several tiles. */
  readonly cases: readonly Case[];
  /** Allowed error; default 2e-6, f32 rounding of a few operations per element. */
  readonly tolerance?: Tolerance;
  /** How gradients pass through it; none for kernels that only gradients and optimisers launch. */
  readonly gradient?: GradientRule;
}

/** A buffer of a kernel, its contract parsed. */
export interface BufferContract {
  /** Its name in the contract and on both devices. */
  readonly name: string;
  /** Whether the kernel writes it. */
  readonly output: boolean;
  /** Sizes from the outermost on: letters, or digits for a fixed size. */
  readonly letters: readonly string[];
  /** Element types that it may have; outputs are made in the first. */
  readonly dtypes: readonly DType[];
  /** Whether it may be absent. */
  readonly optional: boolean;
}

/** One operation, its contract parsed. Made by {@linkcode defineKernel}. */
export interface Kernel extends KernelSpec {
  /** Its buffers in the order in which launches pass them: inputs, then outputs. */
  readonly buffers: readonly BufferContract[];
}

/** Parses `"N K:f32|f16?"`. */
function parseContract(name: string, text: string, output: boolean): BufferContract {
  const optional = text.endsWith("?");
  const [shape, types] = (optional ? text.slice(0, -1) : text).split(":");
  return {
    name,
    output,
    letters: shape.split(" ").filter((s) => s.length > 0),
    dtypes: (types?.split("|") ?? ["f32"]) as DType[],
    optional,
  };
}

/**
 * Makes a kernel of its description: parses the contracts, once.
 *
 * @throws {Error} If two of its buffers, scalars and flags share a name that both devices need apart, or if it has more
 * buffers than an adapter is sure to bind.
 */
export function defineKernel(spec: KernelSpec): Kernel {
  const buffers = [
    ...Object.entries(spec.inputs).map(([name, text]) => parseContract(name, text, false)),
    ...Object.entries(spec.outputs).map(([name, text]) => parseContract(name, text, true)),
  ];
  if (buffers.length > MAX_BUFFERS) {
    throw new Error(
      `${spec.name}: has ${buffers.length} buffers, expected at most ${MAX_BUFFERS}: ${
        buffers.map((b) => b.name)
      }`,
    );
  }
  if (!spec.wgsl.passes && !spec.wgsl.source) {
    throw new Error(`${spec.name}: has neither a shader nor passes`);
  }
  const names = [...buffers.map((b) => b.name), ...Object.keys(spec.params), ...spec.flags, "p", "shared"];
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice) throw new Error(`${spec.name}: ${twice} names two things, expected one buffer, scalar or flag`);
  return { ...spec, buffers };
}

/** The kernels that a module exports. */
export const kernelsOf = (module: Readonly<Record<string, unknown>>): Kernel[] =>
  Object.values(module).filter((each): each is Kernel =>
    typeof each === "object" && each !== null && "buffers" in each && "reference" in each
  );

/** Number of elements of a buffer at some sizes; NaN if a size is missing. */
export const countOf = (contract: BufferContract, sizes: Params): number =>
  shapeOf(contract, sizes).reduce((n, size) => n * (size ?? NaN), 1);

/** Shape of a buffer at some sizes. */
export const shapeOf = ({ letters }: BufferContract, sizes: Params): number[] =>
  letters.map((l) => isFixed(l) ? Number(l) : sizes[l]);

const isFixed = (letter: string): boolean => letter >= "0" && letter <= "9\uffff";

/** Whether a buffer of a launch holds halves: because it always does, or because the `half` flag says so. */
export const holdsHalves = ({ dtypes }: BufferContract, params: Params): boolean =>
  dtypes[0] === "f16" || (params.half === 1 && dtypes.includes("f16"));

/** The properties of a tensor that the shape check needs. */
export interface Shaped {
  /** Sizes, outermost first. */
  readonly shape: readonly number[];
  /** Element type. */
  readonly dtype: DType;
}

/**
 * Solves the size letters of a kernel from its tensors and checks every shape and dtype.
 *
 * @param tensors In the order of the kernel's buffers; null is absent on purpose, undefined an output still to be made.
 * @param given Sizes that are known beforehand (they win over the tensors, which are then checked against them).
 * @returns The sizes by letter, `given` included.
 * @throws {RangeError} On a wrong rank, size or dtype, or a missing input: who, what, expected, found.
 */
export function solveShapes(
  kernel: Kernel,
  tensors: readonly (Shaped | null | undefined)[],
  given: Params = {},
): Record<string, number> {
  const sizes: Record<string, number> = { ...given };
  const from: Record<string, string> = {};
  const fail = (who: string, shape: readonly number[], letters: readonly string[]): never => {
    const expected = letters.map((l) =>
      isFixed(l)
        ? l
        : `${l}${sizes[l] === undefined ? "" : `=${sizes[l]}`}${from[l] ? ` (from ${from[l]})` : ""}`
    );
    throw new RangeError(
      `${kernel.name}: ${who} has shape [${shape.join(", ")}], expected [${expected.join(", ")}]`,
    );
  };
  kernel.buffers.forEach(({ name, output, letters, dtypes, optional }, i) => {
    const t = tensors[i];
    if (t === null || t === undefined) {
      if (optional || (output && t === undefined)) return;
      throw new RangeError(`${kernel.name}: ${name} is missing, expected [${letters.join(", ")}]`);
    }
    if (!dtypes.includes(t.dtype)) {
      throw new RangeError(`${kernel.name}: ${name} has dtype ${t.dtype}, expected ${dtypes.join(" or ")}`);
    }
    if (t.shape.length !== letters.length) fail(name, t.shape, letters);
    letters.forEach((letter, axis) => {
      const size = t.shape[axis];
      if (isFixed(letter)) {
        if (size !== Number(letter)) fail(name, t.shape, letters);
      } else if (sizes[letter] === undefined) {
        sizes[letter] = size;
        from[letter] = name;
      } else if (sizes[letter] !== size) fail(name, t.shape, letters);
    });
  });
  return sizes;
}
