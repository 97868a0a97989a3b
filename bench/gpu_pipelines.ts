/**
 * Every WebGPU pipeline of the project, without a GPU: the models run on a device that computes nothing, and each launch is
 * asked what it would dispatch on a hardware adapter. The kernels' own cases come after them.
 *
 * @module
 */
import { CASES } from "../kernels/cases.ts";
import type { Launch } from "../kernels/device.ts";
import { type DryDevice, openDryDevice } from "../kernels/dry.ts";
import { type Kernel, MAX_BUFFERS, type Params, type Target } from "../kernels/spec.ts";
import { constantsOf, entryOf, shaderOf } from "../kernels/webgpu/declare.ts";
import { stepsOf } from "../kernels/webgpu/programs.ts";
import { valueAndGrad } from "../lib/autograd.ts";
import { decode, encode } from "../lib/dcae/autoencoder.ts";
import { DCAE_MODELS, dcaeShapes } from "../lib/dcae/config.ts";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { Sampler } from "../lib/far/sample.ts";
import { dtypeOf, type Params as Weights, type WeightStorage } from "../lib/params.ts";
import { disposeAll, scope, type Shape, Tensor, unscoped } from "../lib/tensor.ts";
import { AdamW } from "../lib/train/adamw.ts";
import { inputFor } from "./training.ts";
import { farLoss } from "../lib/train/far_loss.ts";

/** A hardware adapter with WebGPU's default limits, which every adapter has. */
export const HARDWARE: Target = { software: false, sharedBytes: 16_384 };

/** One pipeline. */
export interface GpuPipeline {
  /** First 16 digits of the SHA-256 of text, entry point and constants. */
  readonly hash: string;
  readonly kernel: string;
  readonly entry: string;
  readonly code: string;
  readonly constants: Readonly<Record<string, number>>;
  /** Buffers that it reads, and those that it writes. */
  readonly inputs: number;
  readonly outputs: number;
  /** The workload that launched it first: a model's work, or `cases`. */
  readonly workload: string;
  /** Workgroups of that launch, and its sizes. */
  readonly groups: number;
  readonly sizes: Params;
}

/** Runs what the project does and tells of every launch. */
async function workloads(
  launched: (workload: string, kernel: Kernel, params: Params) => void,
): Promise<void> {
  let workload = "";
  const dry = openDryDevice(), run = dry.run.bind(dry);
  const device: DryDevice = Object.assign(dry, {
    run(launch: Launch) {
      launched(workload, launch.kernel, launch.params);
      run(launch);
    },
  });
  const weights = (
    shapes: Readonly<Record<string, Shape>>,
    storage: WeightStorage = { dtype: "f32" },
  ): Weights =>
    unscoped(() =>
      Object.fromEntries(
        Object.entries(shapes).map(([name, shape]) =>
          [name, Tensor.empty(device, shape, dtypeOf(name, shape, storage))] as const
        ),
      )
    );
  const condition = { condition_cfg: { type: "action", num_action_classes: 4 } };
  const long = farConfig("FAR_B_Long", condition), frames = 144;
  for (const dtype of ["f32", "f16"] as const) {
    const params = weights(farShapes(long), { dtype }), suffix = dtype === "f16" ? ", f16 weights" : "";
    const context = new Float32Array((frames - 1) * 32 * 64), actions = new Int32Array(frames);
    using sampler = unscoped(() =>
      // one frame: a step that caches its context, and one with everything cached
      new Sampler({
        ...{
          device,
          params,
          config: long,
          frameShape: [1, 32, 8, 8],
          predict: 1,
          steps: 2,
          context,
          actions,
        },
        onStep: () => workload = `denoise${suffix}`,
      })
    );
    workload = `cache${suffix}`;
    await sampler.next();
    disposeAll(params);
  }
  workload = "train";
  const model = farConfig("FAR_B", condition),
    params = weights(farShapes(model)),
    input = inputFor(model, 16);
  const { value, grads } = unscoped(() => valueAndGrad((p: Weights) => farLoss(p, device, input))(params));
  await new AdamW(params).step(params, grads, 1e-4, 1);
  disposeAll([value, grads, params]);
  for (const [name, side] of [["32x", 256], ["8x", 64]] as const) {
    const model = DCAE_MODELS[name], params = weights(dcaeShapes(model));
    workload = `encode ${name}`;
    const z = unscoped(() => encode(params, model, Tensor.empty(device, [1, 3, side, side])));
    workload = `decode ${name}`;
    scope(() => void decode(params, model, z));
    disposeAll([z, params]);
  }
  for (const { kernel, params } of CASES) launched("cases", kernel, params);
}

/** Lists the pipelines, models first, in an order that does not change. */
export async function gpuPipelines(target: Target = HARDWARE): Promise<readonly GpuPipeline[]> {
  const found = new Map<string, Omit<GpuPipeline, "hash">>(), seen = new WeakMap<Params, Kernel>();
  await workloads((workload, kernel, params) => {
    if (seen.get(params) === kernel) return; // a repeated launch has the same params object
    seen.set(params, kernel);
    for (const { program } of stepsOf(kernel, params, target).steps) {
      const code = shaderOf(program, params, target), entry = entryOf(program, params, target);
      const constants = constantsOf(program, params), key = JSON.stringify([code, entry, constants]);
      if (found.has(key)) continue;
      const groups = [program.wgsl.groups(params, target)].flat().reduce((a, b) => a * b, 1);
      const outputs = program.buffers.filter((b) => b.output).length,
        inputs = program.buffers.length - outputs;
      const sizes = Object.fromEntries(Object.entries(params).filter(([, value]) => Number.isInteger(value)));
      found.set(key, {
        kernel: kernel.name,
        entry,
        code,
        constants,
        inputs,
        outputs,
        workload,
        groups,
        sizes,
      });
    }
  });
  const entries = [...found].map(async ([key, pipeline]) => {
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(key));
    return { hash: new Uint8Array(digest).toHex().slice(0, 16), ...pipeline };
  });
  return await Promise.all(entries);
}

/** Layout entries of a pipeline: buffers that it reads, buffers that it writes, scalars. The same on every WebGPU. */
export function layoutEntries({ inputs, outputs }: GpuPipeline): GPUBindGroupLayoutEntry[] {
  const entry = (binding: number, buffer: GPUBufferBindingLayout) => ({ binding, visibility: 4, buffer });
  if (inputs + outputs > MAX_BUFFERS) throw new Error(`a pipeline binds ${inputs + outputs} buffers`);
  return [
    ...Array.from({ length: inputs }, (_, i) => entry(i, { type: "read-only-storage" })),
    ...Array.from({ length: outputs }, (_, i) => entry(inputs + i, { type: "storage" })),
    entry(inputs + outputs, { type: "uniform", hasDynamicOffset: true, minBindingSize: 256 }),
  ];
}
