/**
 * Compiled pipelines, by WGSL text, entry point and flags.
 *
 * @module
 */
import type { Params, ParamType, Target } from "../spec.ts";
import { oneLine } from "./adapter.ts";
import { constantsOf, entryOf, shaderOf } from "./declare.ts";
import type { Program } from "./programs.ts";

/** Bytes of the uniform struct that every binding offers: room for 64 scalars. */
export const UNIFORM_BYTES = 256;

/** Bind group layout of every kernel with the same number of inputs and outputs. */
export interface Layout {
  readonly id: number;
  readonly bindings: GPUBindGroupLayout;
  readonly pipeline: GPUPipelineLayout;
  readonly inputs: number;
  readonly outputs: number;
}

/** The device's record of a kernel, or of one of its passes. */
export interface Prepared {
  readonly kernel: Program;
  readonly layout: Layout;
  /** Names of the buffers, inputs then outputs. */
  readonly names: readonly string[];
  readonly params: readonly (readonly [string, ParamType])[];
  readonly pipelines: Map<string, Compiled>;
}

/** Values derived from the sizes, scalars and flags of a dispatch. */
export interface Work {
  readonly prepared: Prepared;
  readonly compiled: Compiled;
  /** Workgroups along x, y and z. */
  readonly groups: readonly [number, number, number];
  /** Scalars as the shader reads them. */
  readonly words: Uint32Array;
  /** Of its buffers: the index among the launch's, scratch memory last. */
  readonly binds: readonly number[];
}

/** A pipeline, or why there is none. */
export interface Compiled {
  readonly pipeline: GPUComputePipeline;
  error: string | null;
}

/** See the module text. */
export class PipelineCache {
  readonly #gpu: GPUDevice;
  readonly #target: Target;
  readonly #fail: (message: string) => void;
  readonly #prepared = new Map<Program, Prepared>();
  readonly #layouts = new Map<string, Layout>();
  readonly #compiled = new Map<string, Compiled>();
  readonly #modules = new Map<string, GPUShaderModule>();

  constructor(gpu: GPUDevice, target: Target, fail: (message: string) => void) {
    this.#gpu = gpu;
    this.#target = target;
    this.#fail = fail;
  }

  /** Number of compiled pipelines. */
  get size(): number {
    return this.#compiled.size;
  }

  /** Names, layout and scalars of a kernel. */
  prepare(kernel: Program): Prepared {
    let prepared = this.#prepared.get(kernel);
    if (!prepared) {
      const outputs = kernel.buffers.filter((b) => b.output).length, inputs = kernel.buffers.length - outputs;
      const params = Object.entries(kernel.params);
      if (params.length * 4 > UNIFORM_BYTES) {
        throw new Error(
          `${kernel.name}: has ${params.length} scalars, expected at most ${UNIFORM_BYTES / 4}`,
        );
      }
      prepared = {
        kernel,
        layout: this.#layout(inputs, outputs),
        names: kernel.buffers.map((b) => b.name),
        params,
        pipelines: new Map(),
      };
      this.#prepared.set(kernel, prepared);
    }
    return prepared;
  }

  #layout(inputs: number, outputs: number): Layout {
    const key = `${inputs},${outputs}`;
    let layout = this.#layouts.get(key);
    if (!layout) {
      const entries: GPUBindGroupLayoutEntry[] = [];
      for (let i = 0; i < inputs + outputs; i++) {
        const type = i < inputs ? "read-only-storage" : "storage";
        entries.push({ binding: i, visibility: GPUShaderStage.COMPUTE, buffer: { type } });
      }
      entries.push({
        binding: inputs + outputs,
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type: "uniform", hasDynamicOffset: true, minBindingSize: UNIFORM_BYTES },
      });
      const bindings = this.#gpu.createBindGroupLayout({ label: key, entries });
      const pipeline = this.#gpu.createPipelineLayout({ label: key, bindGroupLayouts: [bindings] });
      layout = { id: this.#layouts.size, bindings, pipeline, inputs, outputs };
      this.#layouts.set(key, layout);
    }
    return layout;
  }

  /**
   * The pipeline of one launch.
   *
   * @throws {Error} If a flag is missing.
   */
  get(prepared: Prepared, p: Params): Compiled {
    const { kernel } = prepared;
    const missing = kernel.flags.find((flag) => p[flag] === undefined);
    if (missing) throw new Error(`${kernel.name}: flag ${missing} is missing`);
    const entry = entryOf(kernel, p, this.#target), constants = constantsOf(kernel, p);
    const key = `${entry},${Object.values(constants)}`;
    let compiled = prepared.pipelines.get(key);
    if (!compiled) {
      compiled = this.#compile(prepared, shaderOf(kernel, p, this.#target), entry, constants);
      prepared.pipelines.set(key, compiled);
    }
    return compiled;
  }

  #compile(
    { kernel, layout }: Prepared,
    code: string,
    entryPoint: string,
    constants: Readonly<Record<string, number>>,
  ): Compiled {
    const key = JSON.stringify([layout.id, entryPoint, constants, code]);
    const known = this.#compiled.get(key);
    if (known) return known;
    const gpu = this.#gpu, label = kernel.name;
    gpu.pushErrorScope("validation");
    let module = this.#modules.get(code);
    if (!module) this.#modules.set(code, module = gpu.createShaderModule({ label, code }));
    const pipeline = gpu.createComputePipeline({
      label,
      layout: layout.pipeline,
      compute: { module, entryPoint, constants },
    });
    const compiled: Compiled = { pipeline, error: null };
    gpu.popErrorScope().then((error) => {
      if (!error) return;
      compiled.error = `${label}: the shader does not compile on this adapter: ${oneLine(error)}`;
      this.#fail(compiled.error);
    }, () => {});
    this.#compiled.set(key, compiled);
    return compiled;
  }
}
