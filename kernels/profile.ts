/**
 * Where the time of a run goes: seconds per kernel, of the host, and of waits for the device.
 *
 * @module
 */
import type { Device, Launch, PackRequest, Storage } from "./device.ts";

/**
 * The activity of a span of time: a kernel on the device, the host's part of a launch, a copy, or waiting for the device.
 * On the cpu device a launch is the kernel itself.
 */
export type SpanKind = "kernel" | "launch" | "copy" | "wait";

/** A span of time. */
export interface Span {
  readonly kind: SpanKind;
  /** Kernel, or what was copied or waited for. */
  readonly name: string;
  /** Seconds since the profile was begun. */
  readonly start: number;
  /** Length in seconds. */
  readonly seconds: number;
}

/** All spans of one kind and name. */
export interface ProfileRow {
  readonly kind: SpanKind;
  readonly name: string;
  /** Number of spans. */
  readonly count: number;
  /** Their seconds, added up. */
  readonly seconds: number;
}

/** Spans kept for the trace, some 20 MB of it; the sums go on. */
const MOST_SPANS = 200_000;

/** Collects the spans of a device that {@linkcode profiled} wraps. */
export class Profile {
  readonly #begun = performance.now();
  readonly #rows = new Map<string, { kind: SpanKind; name: string; count: number; seconds: number }>();
  readonly #spans: Span[] = [];
  #dropped = 0;

  /** Seconds since the profile was begun. */
  get now(): number {
    return (performance.now() - this.#begun) / 1000;
  }

  /** Adds a span. */
  add(span: Span): void {
    const key = `${span.kind} ${span.name}`, { kind, name, seconds } = span;
    const row = this.#rows.get(key);
    if (row) {
      row.count++;
      row.seconds += seconds;
    } else this.#rows.set(key, { kind, name, count: 1, seconds });
    if (this.#spans.length < MOST_SPANS) this.#spans.push(span);
    else this.#dropped++;
  }

  /** Sums by kind and name, the largest first. */
  rows(): ProfileRow[] {
    return [...this.#rows.values()].map((row) => ({ ...row })).sort((a, b) => b.seconds - a.seconds);
  }

  /** Seconds of all spans of a kind. */
  seconds(kind: SpanKind): number {
    return this.rows().filter((row) => row.kind === kind).reduce((sum, row) => sum + row.seconds, 0);
  }

  /**
   * The spans in Chrome's trace format, for `chrome://tracing` and Perfetto: one track for the device and one for the host.
   * `otherData.dropped` counts the spans after the first 200,000, which are only in the sums.
   */
  trace(): string {
    const track = (kind: SpanKind) => kind === "kernel" ? 1 : 2;
    const names = [[1, "device"], [2, "host"]].map(([tid, name]) => ({
      ph: "M",
      pid: 1,
      tid,
      name: "thread_name",
      args: { name },
    }));
    const micro = (seconds: number) => Math.round(seconds * 1e7) / 10;
    const events = this.#spans.map(({ kind, name, start, seconds }) => ({
      ph: "X",
      pid: 1,
      tid: track(kind),
      cat: kind,
      name,
      ts: micro(start),
      dur: micro(seconds),
    }));
    return JSON.stringify({ traceEvents: [...names, ...events], otherData: { dropped: this.#dropped } });
  }
}

/** A device that times its own launches, as a GPU does by timestamp queries. */
export interface TimesLaunches {
  /** Gives the spans of all later launches to a profile. False where the device cannot tell. */
  timeLaunches(profile: Profile): boolean;
}

/**
 * The same device, with a profile of what it does. Results keep their bits. A GPU runs each launch in a pass of its own
 * while it is profiled, which takes a little longer.
 *
 * @example
 * ```ts
 * import { openDevice } from "./open.ts";
 * import { Profile, profiled } from "./profile.ts";
 * const profile = new Profile();
 * const device = profiled((await openDevice({ device: "cpu", threads: 1 })).device, profile);
 * await device.sync();
 * console.assert(profile.rows()[0].name === "sync" && profile.rows()[0].count === 1);
 * device.close();
 * ```
 */
export function profiled(device: Device & Partial<TimesLaunches>, profile: Profile): Device {
  return new ProfiledDevice(device, profile);
}

class ProfiledDevice implements Device {
  readonly #device: Device;
  readonly #profile: Profile;
  readonly #launchKind: SpanKind;

  constructor(device: Device & Partial<TimesLaunches>, profile: Profile) {
    [this.#device, this.#profile] = [device, profile];
    const own = device.timeLaunches?.(profile) ?? false;
    this.#launchKind = device.info.name === "cpu" && !own ? "kernel" : "launch";
  }

  get info() {
    return this.#device.info;
  }
  get stats() {
    return this.#device.stats;
  }

  #timed<T>(kind: SpanKind, name: string, body: () => T): T {
    const start = this.#profile.now;
    try {
      return body();
    } finally {
      this.#profile.add({ kind, name, start, seconds: this.#profile.now - start });
    }
  }

  async #waited<T>(name: string, wait: () => Promise<T>): Promise<T> {
    const start = this.#profile.now;
    try {
      return await wait();
    } finally {
      this.#profile.add({ kind: "wait", name, start, seconds: this.#profile.now - start });
    }
  }

  run(launch: Launch): void {
    this.#timed(this.#launchKind, launch.kernel.name, () => this.#device.run(launch));
  }
  write(storage: Storage, data: ArrayBufferView, byteOffset?: number): void {
    this.#timed("copy", "write", () => this.#device.write(storage, data, byteOffset));
  }
  pack(storage: Storage, request: PackRequest): void {
    this.#timed("copy", "pack", () => this.#device.pack(storage, request));
  }
  read(storage: Storage, byteOffset?: number, bytes?: number): Promise<ArrayBuffer> {
    return this.#waited("read", () => this.#device.read(storage, byteOffset, bytes));
  }
  sync(): Promise<void> {
    return this.#waited("sync", () => this.#device.sync());
  }
  flush(): void {
    this.#timed("launch", "submit", () => this.#device.flush());
  }
  alloc(bytes: number): Storage {
    return this.#device.alloc(bytes);
  }
  free(storage: Storage): void {
    this.#device.free(storage);
  }
  setAside(storage: Storage): void {
    this.#timed("copy", "set aside", () => this.#device.setAside(storage));
  }
  trim(): void {
    this.#device.trim();
  }
  close(): void {
    this.#device.close();
  }
}
