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
  readonly #saves: (kernel: Kernel) => readonly string[];

  /** @param saves Names of the tensors that a kernel's gradient reads. */
  constructor(tracked: Iterable<Node>, saves: (kernel: Kernel) => readonly string[]) {
    this.tracked = new Set(tracked);
    this.#saves = saves;
  }

  /** Records a launch, unless nothing of it is tracked. */
  record(kernel: Kernel, tensors: Readonly<Record<string, Tensor | null | undefined>>, params: Params): void {
    if (!Object.keys(kernel.inputs).some((name) => tensors[name] && this.tracked.has(tensors[name].node))) {
      return;
    }
    const present = Object.entries(tensors).filter((e): e is [string, Tensor] => Boolean(e[1]));
    const saves = this.#saves(kernel);
    this.entries.push({
      kernel,
      params,
      nodes: Object.fromEntries(present.map(([name, t]) => [name, t.node])),
      shapes: Object.fromEntries(present.map(([name, t]) => [name, t.shape])),
      saved: unscoped(() =>
        Object.fromEntries(
          present.filter(([n]) => saves.includes(n)).map(([n, t]) => [n, t.reshape(t.shape)]),
        )
      ),
    });
    for (const name of Object.keys(kernel.outputs)) if (tensors[name]) this.tracked.add(tensors[name].node);
  }

  /** A tape for running a segment again, with the same tracked memory. */
  again(): Tape {
    return new Tape(this.tracked, this.#saves);
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
