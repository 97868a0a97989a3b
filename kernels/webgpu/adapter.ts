/**
 * Adapters: asking for one with all its limits, describing it, finding out what it gets wrong.
 *
 * @module
 */
import { MAX_BUFFERS } from "../spec.ts";

/** An adapter in words and numbers, for `doctor` and for results. */
export interface AdapterDescription {
  /** Name of the adapter, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)`. */
  readonly description: string;
  /** True for a software adapter (llvmpipe, SwiftShader). */
  readonly software: boolean;
  /** Limits of the adapter, by the names of WebGPU. */
  readonly limits: Readonly<Record<string, number>>;
  /** Features of the adapter beyond the core of WebGPU. */
  readonly features: readonly string[];
}

/** Limits that the kernels can use more of than WebGPU's defaults. */
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupsPerDimension",
  "minUniformBufferOffsetAlignment",
] as const;

/** Nothing needs a feature. Time stamps let bench/ tell a kernel's time from the host's. */
const WANTED_FEATURES: readonly GPUFeatureName[] = ["timestamp-query"];

async function findAdapter(software: boolean): Promise<GPUAdapter | null> {
  if (!navigator.gpu) return null;
  return await navigator.gpu.requestAdapter(
    software ? { forceFallbackAdapter: true } : { powerPreference: "high-performance" },
  ).catch(() => null);
}

function describe(adapter: GPUAdapter): AdapterDescription {
  const { description, vendor, isFallbackAdapter } = adapter.info;
  const limits: Record<string, number> = {};
  for (const name in adapter.limits) {
    const value = adapter.limits[name as keyof GPUSupportedLimits];
    if (typeof value === "number") limits[name] = value;
  }
  return {
    description: description || vendor || "unnamed adapter",
    software: isFallbackAdapter,
    limits,
    features: [...adapter.features],
  };
}

/** Describes the adapter that {@linkcode openAdapter} would take, or gives null when there is none. */
export async function describeAdapter(): Promise<AdapterDescription | null> {
  const adapter = await findAdapter(false);
  return adapter && describe(adapter);
}

/**
 * Refuses an adapter that cannot bind the buffers of every kernel, before the first launch would.
 *
 * @throws {Error} If it binds fewer than {@linkcode MAX_BUFFERS}: adapter, found, expected, what to do.
 */
export function requireBuffers({ description, limits }: AdapterDescription): void {
  const found = limits.maxStorageBuffersPerShaderStage;
  if (found >= MAX_BUFFERS) return;
  throw new Error(
    `webgpu: ${description} binds ${found} storage buffers in a kernel, expected at least ${MAX_BUFFERS}; ` +
      "use --device cpu or FAR_DEVICE=cpu",
  );
}

/**
 * Opens the fastest adapter (or a software one) with the limits that it really has.
 *
 * @throws {Error} If there is no adapter, or it refuses, or it binds too few buffers: one line.
 */
export async function openAdapter(
  software: boolean,
): Promise<{ gpu: GPUDevice; description: AdapterDescription }> {
  const adapter = await findAdapter(software);
  if (!adapter) {
    throw new Error(
      "webgpu: found no adapter, expected a Vulkan, Metal or DirectX 12 driver; use --device cpu or FAR_DEVICE=cpu",
    );
  }
  const description = describe(adapter);
  requireBuffers(description);
  const requiredLimits: Record<string, number> = {};
  for (const name of WANTED_LIMITS) requiredLimits[name] = description.limits[name];
  try {
    const gpu = await adapter.requestDevice({
      requiredLimits,
      requiredFeatures: WANTED_FEATURES.filter((feature) => adapter.features.has(feature)),
    });
    return { gpu, description };
  } catch (error) {
    throw new Error(`webgpu: ${description.description} could not be opened: ${oneLine(error)}`);
  }
}

/** A driver's or compiler's message on one line of bounded length. */
export function oneLine(error: unknown): string {
  const text = error instanceof Error || error instanceof GPUError ? error.message : String(error);
  const line = text.replace(/[\u2500-\u257f]+/g, " ").replace(/\s+/g, " ").trim();
  return line.length > 400 ? `${line.slice(0, 400)}…` : line;
}

const PROBE = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(1)
fn main() {
  var n = 0u;
  for (var i = 0u; i < 70000u; i++) { n += 1u + (n >> 31u); }
  y[0] = n;
}`;

/**
 * Runs a loop of 70,000 iterations and tells whether the driver stopped it early without a word, as Mesa 22.3's
 * llvmpipe does after 65,535. Neither the adapter's name nor its limits tell.
 */
export async function truncatesLoops(gpu: GPUDevice): Promise<boolean> {
  const pipeline = gpu.createComputePipeline({
    layout: "auto",
    compute: { module: gpu.createShaderModule({ code: PROBE }) },
  });
  const y = gpu.createBuffer({ size: 16, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC });
  const out = gpu.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = gpu.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(
    0,
    gpu.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: [{ binding: 0, resource: { buffer: y } }],
    }),
  );
  pass.dispatchWorkgroups(1);
  pass.end();
  encoder.copyBufferToBuffer(y, 0, out, 0, 16);
  gpu.queue.submit([encoder.finish()]);
  await out.mapAsync(GPUMapMode.READ);
  const counted = new Uint32Array(out.getMappedRange())[0];
  y.destroy();
  out.destroy();
  return counted !== 70000;
}
