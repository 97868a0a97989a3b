/**
 * Gradients: `valueAndGrad` as a pure function over a tape, and checkpointing.
 *
 * @module
 */
import type { Device } from "../kernels/device.ts";
import { launch } from "./launch.ts";
import { accumulate, copy, full } from "./ops.ts";
import type { Params } from "./params.ts";
import { recording, Tape, type TapeEntry, type TapeSegment, withTape } from "./tape.ts";
import { disposeAll, type Node, release, scope, Tensor, tensorsIn, unscoped } from "./tensor.ts";

/** A loss and the gradients of its parameters. */
export interface ValueAndGrad<P extends Params = Params> {
  /** Return value of the loss function; its sum is the loss. */
  readonly value: Tensor;
  /** Gradients by parameter name; exactly zero where the loss does not depend on a parameter. */
  readonly grads: { readonly [K in keyof P]: Tensor };
}

/** Settings of {@linkcode valueAndGrad}. */
export interface GradOptions {
  /** The gradients are those of `scale` times the loss (loss scaling, mean over accumulated batches). Default 1. */
  readonly scale?: number;
  /** Gradients to add to, from an earlier call: gradient accumulation. */
  readonly into?: Params;
}

/**
 * A function that computes a loss and the gradients of the parameters, which are its first argument.
 *
 * The loss may be a tensor of any shape: its sum is differentiated. What it does with `params` decides the gradients;
 * nothing else is remembered between calls.
 *
 * @example
 * ```ts
 * import { openDevice, ops, Tensor, valueAndGrad } from "../mod.ts";
 * const { device } = await openDevice({ device: "cpu" });
 * const params = { w: Tensor.from(device, Float32Array.of(3)) };
 * const square = (p: typeof params) => ops.mul(p.w, p.w);
 * const { value, grads } = valueAndGrad(square)(params);
 * console.assert((await value.read())[0] === 9 && (await grads.w.read())[0] === 6);
 * device.close();
 * ```
 */
export function valueAndGrad<P extends Params, A extends unknown[]>(
  loss: (params: P, ...args: A) => Tensor,
  options: GradOptions = {},
): (params: P, ...args: A) => ValueAndGrad<P> {
  return (params, ...args) => {
    const { value, pullback } = vjp(loss)(params, ...args);
    using ones = unscoped(() => full(value.device, value.shape, options.scale ?? 1));
    return { value, grads: pullback(ones, options.into) };
  };
}

/** A value and the way back from it. */
export interface Vjp<P extends Params = Params> {
  /** Return value of the function. */
  readonly value: Tensor;
  /**
   * Gradients of Σ cotangent · value by parameter name. It can be called once: what the way back needs is freed on the
   * way. Whoever never calls it keeps the activations.
   *
   * @param cotangent Same shape as the value.
   * @param into Gradients to add to, from an earlier call; they come back themselves.
   */
  readonly pullback: (cotangent: Tensor, into?: Params) => { readonly [K in keyof P]: Tensor };
}

/**
 * A function that computes a value now and its vector-Jacobian product later, when the cotangent is known.
 *
 * @param fn Its first argument are the parameters; what it does with them decides the gradients.
 */
export function vjp<P extends Params, A extends unknown[]>(
  fn: (params: P, ...args: A) => Tensor,
): (params: P, ...args: A) => Vjp<P> {
  return (params, ...args) => {
    const tape = new Tape(Object.values(params).map((t) => t.node));
    const value = scope(() => withTape(tape, () => fn(params, ...args)));
    const wanted = new Map(Object.entries(params).map(([name, t]) => [t.node, name]));
    let used = false;
    const pullback: Vjp<P>["pullback"] = (cotangent, into = {}) => {
      if (used) throw new Error("vjp: the pullback was called before; it can be called once");
      used = true;
      const grads = new Map<Node, Tensor>(), kept = Object.values(into);
      for (const [name, t] of Object.entries(into)) grads.set(params[name].node, t);
      scope(() => {
        grads.set(value.node, unscoped(() => scope(() => copy(cotangent).reshape(value.shape))));
        backward(tape, grads, wanted, value.device);
      });
      const result = Object.fromEntries(
        Object.entries(params).map(([name, t]) => [
          name,
          into[name] ?? grads.get(t.node)?.reshape(t.shape) ?? full(t.device, t.shape, 0),
        ]),
      );
      for (const g of grads.values()) if (!kept.includes(g)) g.dispose();
      return result as { readonly [K in keyof P]: Tensor };
    };
    return { value, pullback };
  };
}

/** Walks a tape backwards. Gradients of memory in `keep` stay in the map; others are freed as soon as they are used. */
function backward(
  tape: Tape,
  grads: Map<Node, Tensor>,
  keep: ReadonlyMap<Node, unknown>,
  device: Device,
): void {
  const writers = new Map<Node, number>(); // launches still to come that wrote a piece of this memory
  const outputsOf = (e: TapeEntry | TapeSegment) =>
    "body" in e
      ? [e.output]
      : e.kernel.buffers.filter((b) => b.output).map((b) => e.nodes[b.name]).filter((n) => n);
  for (const e of tape.entries) for (const n of outputsOf(e)) writers.set(n, (writers.get(n) ?? 0) + 1);
  for (const e of tape.entries.toReversed()) {
    const outputs = outputsOf(e);
    if (outputs.some((n) => grads.has(n))) {
      scope(() =>
        "body" in e ? segmentBackward(tape, e, grads, keep, device) : entryBackward(tape, e, grads, device)
      );
    }
    if (!("body" in e)) disposeAll(e.saved);
    for (const n of outputs) {
      const left = writers.get(n)! - 1;
      writers.set(n, left);
      if (left > 0 || keep.has(n)) continue;
      grads.get(n)?.dispose();
      grads.delete(n);
    }
  }
  disposeAll([...tape.owned]);
}

function entryBackward(tape: Tape, entry: TapeEntry, grads: Map<Node, Tensor>, device: Device): void {
  const { kernel, nodes, shapes, params, saved } = entry;
  const make = (name: string, zero: boolean): Tensor => {
    const t = unscoped(() => zero ? full(device, shapes[name], 0) : Tensor.empty(device, shapes[name]));
    grads.set(nodes[name], t);
    return t.reshape(shapes[name]);
  };
  const wants = (name: string) => nodes[name] !== undefined && tape.tracked.has(nodes[name]);
  const sum = (name: string) => grads.get(nodes[name])?.reshape(shapes[name]) ?? make(name, true);
  kernel.gradient!.backward<Tensor>({
    params,
    launch,
    zeros: (shape) => full(device, shape, 0),
    empty: (shape) => Tensor.empty(device, shape),
    flat: (tensor) => tensor.reshape([tensor.size]),
    saved: (name) => saved[name],
    grad: (name) => (grads.get(nodes[name]) ?? full(device, shapes[name], 0)).reshape(shapes[name]),
    wants,
    sum,
    fresh: (name) => grads.has(nodes[name]) ? null : make(name, false),
    add: (name, gradient, alpha = 1) => {
      if (wants(name)) accumulate(sum(name), gradient, alpha);
    },
    give: (name, gradient) => {
      if (!wants(name)) return;
      if (grads.has(nodes[name])) accumulate(sum(name), gradient);
      else grads.set(nodes[name], unscoped(() => gradient.reshape(gradient.shape)));
    },
  });
}

function segmentBackward(
  tape: Tape,
  segment: TapeSegment,
  grads: Map<Node, Tensor>,
  keep: ReadonlyMap<Node, unknown>,
  device: Device,
): void {
  const again = tape.again();
  const output = withTape(again, segment.body);
  const seed = grads.get(segment.output)!;
  grads.set(output.node, unscoped(() => seed.reshape(output.shape)));
  // What the segment used belongs to the outer tape: its gradients must outlive this walk.
  const outer = new Map([...keep, ...segment.uses.map((t) => [t.node, true] as const)]);
  backward(again, grads, outer, device);
}

/**
 * Gradient checkpointing: computes `body` without keeping what its gradient needs, and computes it again on the way
 * back. Outside {@linkcode valueAndGrad} it just runs `body`.
 *
 * @param body Pure; called twice. It may use parameters and the tensors in `uses`, nothing else that is tracked.
 * @param uses Every other tensor that `body` reads, alone or inside arrays and plain objects; they are kept alive.
 */
export function checkpoint(body: () => Tensor, uses: unknown): Tensor {
  const tape = recording();
  if (!tape) return body();
  const output = withTape(null, () => scope(body));
  for (const t of release(uses, tape.depth)) tape.owned.add(t);
  tape.entries.push({ body, output: output.node, uses: tensorsIn(uses) });
  tape.tracked.add(output.node);
  return output;
}
