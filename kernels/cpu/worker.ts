/**
 * A worker thread of the cpu device: takes tasks of launches until the device is closed.
 *
 * @module
 */
import { workerData } from "node:worker_threads";
import { loadBlas } from "./blas.ts";
import {
  ARGS,
  CONTROL,
  ERROR_TEXT,
  ERROR_UNITS,
  functionsOf,
  instantiate,
  pause,
  type WorkerStart,
} from "./control.ts";

/** Looks at the ticket counter this many times before going to sleep, so that back-to-back launches find it awake. */
const SPIN = 4000;

const { module, memory, thread, blas } = workerData as WorkerStart;
const sgemm = blas === null ? null : loadBlas(blas, memory, 2).sgemm;
const functions = functionsOf(instantiate(module, memory, sgemm)).map(([, f]) => f);
// The first page stays where it is when the memory grows.
const control = new Int32Array(memory.buffer, 0, ARGS / 4);
const text = new Uint16Array(memory.buffer, ERROR_TEXT, ERROR_UNITS + 2);

while (Atomics.load(control, CONTROL.CLOSED) === 0) work();

/** Runs what there is to run, then spins, then sleeps until the next launch. */
function work(): void {
  for (let i = 0; i < SPIN; i++) {
    if (Atomics.load(control, CONTROL.TICKETS) > 0) {
      takeTasks();
      i = 0;
    }
    pause();
  }
  const wake = Atomics.load(control, CONTROL.WAKE);
  Atomics.add(control, CONTROL.SLEEPERS, 1);
  if (Atomics.load(control, CONTROL.TICKETS) <= 0 && Atomics.load(control, CONTROL.CLOSED) === 0) {
    Atomics.wait(control, CONTROL.WAKE, wake);
  }
  Atomics.sub(control, CONTROL.SLEEPERS, 1);
}

function takeTasks(): void {
  for (;;) {
    const ticket = Atomics.sub(control, CONTROL.TICKETS, 1);
    if (ticket <= 0) return;
    const tasks = control[CONTROL.TASKS];
    try {
      const scratch = (control[CONTROL.SCRATCH] >>> 0) + thread * control[CONTROL.SCRATCH_STRIDE];
      functions[control[CONTROL.FN]](ARGS, control[CONTROL.FIRST] + tasks - ticket, scratch);
    } catch (error) {
      report(error);
    }
    if (Atomics.add(control, CONTROL.DONE, 1) + 1 === tasks && Atomics.load(control, CONTROL.WAITING) === 1) {
      Atomics.notify(control, CONTROL.DONE);
    }
  }
}

/** The first error of a launch wins; the calling thread throws it. */
function report(error: unknown): void {
  if (Atomics.compareExchange(control, CONTROL.ERROR, 0, 1) !== 0) return;
  const message = String(error).slice(0, ERROR_UNITS);
  text[0] = message.length;
  for (let i = 0; i < message.length; i++) text[i + 1] = message.charCodeAt(i);
}
