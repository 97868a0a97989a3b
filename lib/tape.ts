/**
 * The tape: which launches led to a value, and what their gradients need of them.
 *
 * @module
 */
import type { Kernel, Params } from "../kernels/spec.ts";
import { type Node, scopeDepth, Tensor, unscoped } from "./tensor.ts";

/** One recorded launch. */
export interface TapeEntry {
  readonly kernel: Kernel;
  readonly params: Params;
  /** Memory of every input and output by name. */
  readonly nodes: Readonly<Record<string, Node>>;
  /** Tensors that the gradient reads. */
  readonly saved: Readonly<Record<string, Tensor>>;
  /** Shapes of every input and output by name. */
  readonly shapes: Readonly<Record<string, readonly number[]>>;
}

/** A stretch of computation that is run again when its gradient is wanted. */
export interface TapeSegment {
  readonly body: () => Tensor;
  readonly output: Node;
  readonly uses: readonly Tensor[];
}

/** Records launches that depend on tracked memory. */
export class Tape {
  /** Launches and segments in order. */
  readonly entries: (TapeEntry | TapeSegment)[] = [];
  /** Memory whose gradient is wanted or leads to one that is. */
  readonly tracked: Set<Node>;
  /** Tensors that segments read; they live as long as the tape. */
  readonly owned: Set<Tensor> = new Set();
  /** Scopes that were open when the tape began. */
  readonly depth: number = scopeDepth();

  constructor(tracked: Iterable<Node>) {
    this.tracked = new Set(tracked);
  }

  /**
   * Records a launch, unless nothing of it is tracked.
   *
   * @param tensors In the order of the kernel's buffers.
   * @throws {Error} If the kernel has no gradient, or none for such a launch.
   */
  record(kernel: Kernel, tensors: readonly (Tensor | null | undefined)[], params: Params): void {
    const { name, buffers, gradient } = kernel;
    if (!buffers.some((b, i) => !b.output && tensors[i] && this.tracked.has(tensors[i].node))) return;
    if (!gradient) throw new Error(`${name}: has no gradient; give the kernel a gradient rule`);
    if (gradient.when && !gradient.when(params)) {
      throw new Error(
        `${name}: has no gradient with ${JSON.stringify(params)}; launch it in parts under a gradient`,
      );
    }
    const nodes: Record<string, Node> = {}, shapes: Record<string, readonly number[]> = {};
    const saved: Record<string, Tensor> = {};
    unscoped(() => {
      for (const [i, b] of buffers.entries()) {
        const t = tensors[i];
        if (!t) continue;
        nodes[b.name] = t.node;
        shapes[b.name] = t.shape;
        if (gradient.saves.includes(b.name)) saved[b.name] = t.reshape(t.shape);
        if (b.output) this.tracked.add(t.node);
      }
    });
    this.entries.push({ kernel, params, nodes, shapes, saved });
  }

  /** A tape for running a segment again, with the same tracked memory. */
  again(): Tape {
    return new Tape(this.tracked);
  }
}

let current: Tape | null = null;

/** The tape that launches are recorded on, if any. */
export const recording = (): Tape | null => current;

/** Runs `body` with launches recorded on `tape` (or on none). */
export function withTape<T>(tape: Tape | null, body: () => T): T {
  const outer = current;
  current = tape;
  try {
    return body();
  } finally {
    current = outer;
  }
}
