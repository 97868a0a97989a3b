/**
 * Dispatches of a launch: the kernel's own shader, or its passes.
 *
 * @module
 */
import { type Kernel, MAX_BUFFERS, type Params, type Pass, type Shader, type Target } from "../spec.ts";

/** The source of a pipeline: the buffers that a shader binds, its scalars and flags. A kernel is one. */
export interface Program extends Pick<Kernel, "name" | "buffers" | "params" | "flags"> {
  /** The shader. */
  readonly wgsl: Shader;
}

/** One dispatch of a launch. */
export interface Step {
  /** The program to dispatch. The same object for the same kernel and pass. */
  readonly program: Program;
  /** For each of its buffers: the index among the kernel's, or the name of scratch memory. */
  readonly binds: readonly (number | string)[];
}

/** The dispatches of a launch, and its scratch memory in bytes, by name. */
export interface Steps {
  readonly steps: readonly Step[];
  readonly scratch: Readonly<Record<string, number>>;
}

const known = new WeakMap<Pass, Step>();

/** The dispatches of a launch in order. */
export function stepsOf(kernel: Kernel, p: Params, target: Target): Steps {
  const { wgsl } = kernel, passes = wgsl.passes?.(p, target);
  if (!passes) {
    const program = kernel as Kernel & { readonly wgsl: Shader }; // only those with a shader may have no passes
    return { steps: [{ program, binds: kernel.buffers.map((_, i) => i) }], scratch: {} };
  }
  const scratch = Object.fromEntries(
    Object.entries(passes.scratch).map(([name, values]) => [name, 4 * values]),
  );
  const steps = passes.passes.map((pass) => {
    let step = known.get(pass);
    if (!step) known.set(pass, step = stepOf(kernel, pass, Object.keys(scratch)));
    return step;
  });
  return { steps, scratch };
}

function stepOf(kernel: Kernel, pass: Pass, scratch: readonly string[]): Step {
  const binds: (number | string)[] = [];
  const bound = (name: string, output: boolean) => {
    const at = kernel.buffers.findIndex((b) => b.name === name);
    if (at < 0 && !scratch.includes(name)) {
      throw new Error(`${kernel.name}: a pass binds ${name}, expected a buffer of the kernel or scratch`);
    }
    binds.push(at < 0 ? name : at);
    if (at >= 0) return { ...kernel.buffers[at], output };
    return { name, output, letters: ["scratch"], dtypes: ["f32"] as const, optional: false };
  };
  const buffers = [...pass.reads.map((n) => bound(n, false)), ...pass.writes.map((n) => bound(n, true))];
  const { name, params } = kernel;
  if (buffers.length > MAX_BUFFERS) {
    throw new Error(`${name}: a pass has ${buffers.length} buffers, expected at most ${MAX_BUFFERS}`);
  }
  return { program: { name, buffers, params, flags: pass.flags, wgsl: pass }, binds };
}
