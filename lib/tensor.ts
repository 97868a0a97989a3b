/**
 * Tensors: a shape, a dtype and a block of device memory, freed by scopes.
 *
 * @module
 */
import type { Device, PackRequest, Storage } from "../kernels/device.ts";
import type { DType } from "../kernels/spec.ts";
import { JUPYTER, type MediaBundle } from "./display/showing.ts";
import { tensorBundle } from "./display/values.ts";
import { rangeText, valuesText } from "./tensor_text.ts";

/** Sizes of a tensor, outermost first. */
export type Shape = readonly number[];

/** Bytes of one element. */
export const DTYPE_BYTES: Readonly<Record<DType, number>> = { f32: 4, f16: 2, i32: 4 };

/** Number of elements of a shape. */
export function sizeOf(shape: Shape): number {
  return shape.reduce((n, s) => n * s, 1);
}

/** A block of device memory and how many tensors look at it. */
class Handle {
  refs = 1;
  constructor(readonly device: Device, readonly storage: Storage) {}
}

/** The identity of a tensor's memory: tensors that share memory share their node. Never used for two allocations. */
export type Node = object;

const scopes: Set<Tensor>[] = [];

/**
 * A dense row-major array on a device.
 *
 * Memory belongs to the pool of the device: call `dispose`, write `using`, or make tensors inside {@linkcode scope}.
 * Only `read` waits for the device.
 */
export class Tensor {
  /** Sizes, outermost first. */
  readonly shape: Shape;
  /** Element type; f16 is storage only. */
  readonly dtype: DType;
  readonly #handle: Handle;
  #disposed = false;

  private constructor(handle: Handle, shape: Shape, dtype: DType) {
    this.shape = shape;
    this.dtype = dtype;
    this.#handle = handle;
    scopes.at(-1)?.add(this);
  }

  /** A tensor with undefined contents. */
  static empty(device: Device, shape: Shape, dtype: DType = "f32"): Tensor {
    const bytes = Math.max(4, Math.ceil(sizeOf(shape) * DTYPE_BYTES[dtype] / 4) * 4);
    return new Tensor(new Handle(device, device.alloc(bytes)), shape, dtype);
  }

  /**
   * A tensor with the given values. For f16 pass a `Float16Array` or the raw 16-bit patterns.
   *
   * @throws {RangeError} If the number of values is not that of the shape.
   */
  static from(
    device: Device,
    values: Float32Array | Int32Array | Float16Array | Uint16Array,
    shape: Shape = [values.length],
  ): Tensor {
    if (values.length !== sizeOf(shape)) {
      throw new RangeError(
        `Tensor.from: found ${values.length} values, expected ${sizeOf(shape)} for [${shape}]`,
      );
    }
    const dtype = values instanceof Float32Array ? "f32" : values instanceof Int32Array ? "i32" : "f16";
    const tensor = Tensor.empty(device, shape, dtype);
    if (values.byteLength % 4 === 0) device.write(tensor.storage, values);
    else {
      const even = new Uint8Array(values.byteLength + 2);
      even.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      device.write(tensor.storage, even);
    }
    return tensor;
  }

  /** The device that holds the values. */
  get device(): Device {
    return this.#handle.device;
  }

  /**
   * The device memory, for launches.
   *
   * @throws {Error} If the tensor was disposed.
   */
  get storage(): Storage {
    if (this.#disposed) throw new Error(`Tensor [${this.shape}]: used after dispose`);
    return this.#handle.storage;
  }

  /** The identity of the memory. */
  get node(): Node {
    return this.#handle;
  }

  /** Number of elements. */
  get size(): number {
    return sizeOf(this.shape);
  }

  /**
   * The same memory under another shape.
   *
   * @throws {RangeError} If the sizes differ.
   */
  reshape(shape: Shape): Tensor {
    if (sizeOf(shape) !== this.size) {
      throw new RangeError(
        `reshape: found [${this.shape}] (${this.size}), expected ${sizeOf(shape)} for [${shape}]`,
      );
    }
    void this.storage; // throws after dispose
    this.#handle.refs++;
    return new Tensor(this.#handle, shape, this.dtype);
  }

  /** Lays a weight out for speed where the device has such a layout; `read` still gives the row-major values. */
  pack(kind: PackRequest["kind"]): this {
    this.device.pack(this.storage, { kind, shape: this.shape, dtype: this.dtype });
    return this;
  }

  /** Waits for the device and copies the values out: f32 and f16 as floats, i32 as integers. */
  async read(): Promise<Float32Array> {
    const buffer = await this.device.read(this.storage);
    if (this.dtype === "f32") return new Float32Array(buffer, 0, this.size);
    if (this.dtype === "f16") return Float32Array.from(new Float16Array(buffer, 0, this.size));
    return Float32Array.from(new Int32Array(buffer, 0, this.size));
  }

  /** Returns the text that `console.log` shows: shape, type and device. Values are on the device; see {@linkcode print}. */
  toString(): string {
    const shape = `Tensor [${this.shape.join(", ")}] ${this.dtype} on ${this.device.info.name}`;
    return this.#disposed ? `${shape}, disposed` : shape;
  }

  /** For `console.log` and `Deno.inspect`. */
  [Symbol.for("Deno.customInspect")](): string {
    return this.toString();
  }

  /** For a notebook: shape, type, range and histogram. Waits for the device. */
  async [JUPYTER](): Promise<MediaBundle> {
    return this.#disposed ? { "text/plain": `${this}` } : tensorBundle(`${this}`, await this.read());
  }

  /**
   * Waits for the device and prints shape, range and values; of an axis longer than six the first and last three.
   *
   * @param write Where the text goes. Default `console.log`.
   */
  async print(write: (text: string) => void = console.log): Promise<void> {
    const values = await this.read();
    write(`${this}, ${rangeText(values)}\n${valuesText(values, this.shape)}`);
  }

  /** Gives the memory back when no other tensor looks at it. Disposing twice does nothing. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    if (--this.#handle.refs === 0) this.#handle.device.free(this.#handle.storage);
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Calls `visit` for every tensor in a value: alone, in arrays or in plain objects. */
function eachTensor(value: unknown, visit: (t: Tensor) => void): void {
  if (value instanceof Tensor) visit(value);
  else if (Array.isArray(value)) value.forEach((v) => eachTensor(v, visit));
  else if (value && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype) {
    Object.values(value).forEach((v) => eachTensor(v, visit));
  }
}

/** Disposes every tensor in a value: alone, in arrays or in plain objects. */
export function disposeAll(value: unknown): void {
  eachTensor(value, (t) => t.dispose());
}

/** Refuses what a body returns if it continues later: its tensors would belong to whatever scope is open then. */
function refusePromise(who: string, result: unknown): void {
  if (typeof (result as PromiseLike<unknown> | null | undefined)?.then !== "function") return;
  Promise.resolve(result).catch(() => {}); // whatever becomes of it, this error is the one to see
  throw new TypeError(
    `${who}: the function returned a promise, expected one that is not async: read tensors outside, and make those that ` +
      "live across an await with `using`",
  );
}

/**
 * Runs `body` and frees every tensor made inside except those it returns (alone, in arrays or in plain objects).
 *
 * @param body Not async: reading is all that waits, and belongs outside.
 * @throws {TypeError} If `body` returns a promise.
 *
 * @example
 * ```ts
 * import { openDevice, scope, Tensor } from "../mod.ts";
 * const { device } = await openDevice({ device: "cpu" });
 * const kept = scope(() => {
 *   Tensor.empty(device, [1024]); // freed at the end of the scope
 *   return Tensor.from(device, Float32Array.of(1, 2, 3));
 * });
 * console.assert((await kept.read())[2] === 3);
 * device.close();
 * ```
 */
export function scope<T>(body: () => T): T {
  const made = new Set<Tensor>();
  scopes.push(made);
  let result: T;
  try {
    result = body();
    refusePromise("scope", result);
  } catch (error) {
    scopes.pop();
    for (const t of made) t.dispose();
    throw error;
  }
  scopes.pop();
  const outer = scopes.at(-1);
  eachTensor(result, (t) => {
    if (made.delete(t)) outer?.add(t);
  });
  for (const t of made) t.dispose();
  return result;
}

/** Number of scopes that are open. */
export const scopeDepth = (): number => scopes.length;

/**
 * Takes the tensors in a value out of the scopes opened since `depth`, so that they live until they are disposed.
 *
 * @returns Those that were in such a scope.
 */
export function release(value: unknown, depth: number): Tensor[] {
  const inner = scopes.slice(depth);
  return tensorsIn(value).filter((t) => inner.map((s) => s.delete(t)).includes(true));
}

/** All tensors in a value: alone, in arrays or in plain objects. */
export function tensorsIn(value: unknown): Tensor[] {
  const found: Tensor[] = [];
  eachTensor(value, (t) => found.push(t));
  return found;
}

/** Runs `body` outside every scope: what it makes lives until it is disposed (weights, caches). Not async, as in {@linkcode scope}. */
export function unscoped<T>(body: () => T): T {
  const saved = scopes.splice(0);
  try {
    const result = body();
    refusePromise("unscoped", result);
    return result;
  } finally {
    scopes.push(...saved);
  }
}
