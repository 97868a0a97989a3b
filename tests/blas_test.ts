/**
 * What holds where a BLAS of the system computes the products of the cpu device. kernels_test.ts checks every kernel there.
 */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { deviceOf } from "../kernels/device.ts";
import { attention } from "../kernels/attention.ts";
import { CASES } from "../kernels/cases.ts";
import { loadBlas, usualPlaces } from "../kernels/cpu/blas.ts";
import { chooseBlas } from "../kernels/cpu/choose_blas.ts";
import { openCpuDevice } from "../kernels/cpu/device.ts";
import type { Device } from "../kernels/device.ts";
import { linear } from "../kernels/linear.ts";
import { far } from "./cli_helpers.ts";
import { checkKernel, generator, outputsOf } from "./helpers.ts";
import { BLAS, needs, SERIAL_BLAS } from "./tools.ts";

/** A test that needs a library. Threads outlive a test's promises, so resources are not counted. */
function test(name: string, fn: () => Promise<void> | void): void {
  Deno.test({ ...needs(["blas"], name), fn, sanitizeOps: false, sanitizeResources: false });
}

const open = (threads: number) => openCpuDevice({ threads, blas: BLAS });
const pageOfMemory = () => new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
const kernels = new WebAssembly.Module(
  await Deno.readFile(new URL("../kernels/cpu/kernels.wasm", import.meta.url)),
);

test("with a BLAS, every kernel gives the same bits on one, two and three threads", async () => {
  const devices = await Promise.all([1, 2, 3].map(open));
  for (const each of CASES) {
    const results = [];
    for (const device of devices) results.push(await outputsOf(device, each, true));
    assertEquals(results[1], results[0], each.kernel.name);
    assertEquals(results[2], results[0], each.kernel.name);
  }
  devices.forEach((d) => d.close());
});

test("a BLAS computes what WebAssembly does but for the last bits, so both ran", async () => {
  const blas = await open(1), wasm = await openCpuDevice({ threads: 1 });
  const floats = async (device: Device) => {
    const each = CASES.find((c) => c.kernel === linear && c.params.K === 3072)!;
    return new Float32Array((await outputsOf(device, each))[0].buffer);
  };
  const a = await floats(blas), b = await floats(wasm);
  assert(a.some((x, i) => x !== b[i]), "not one bit differs: the BLAS was not called");
  a.forEach((x, i) => assert(Math.abs(x - b[i]) < 1e-3, `${x} and ${b[i]}`));
  blas.close();
  wasm.close();
});

function numbers(device: Device, data: Float32Array) {
  const storage = device.alloc(data.byteLength);
  device.write(storage, data);
  return storage;
}

test("a row of a linear layer has the same bits whatever the values beside it, and nearly so alone", async () => {
  const device = await open(2), random = generator(5);
  const values = (count: number) => Float32Array.from({ length: count }, () => random() * 4 - 2);
  const M = 301, N = 200, K = 300, data = values(M * K), row = 270;
  const w = numbers(device, values(N * K)), y = device.alloc(4 * M * N);
  const project = async (xRow: number, rows: number) => {
    const x = numbers(device, data), p = { M: rows, N, K, G: 0, xRow, yRow: xRow, gateCol: 0 };
    const params = { ...p, act: 2, hasBias: 0, hasGate: 0, hasResidual: 0, half: 0 };
    device.run({ kernel: linear, buffers: [x, w, null, null, null, null, y], params });
    return new Float32Array(await device.read(y, row * N * 4, 4 * N));
  };
  const together = await project(0, M);
  // A library takes other loops for other numbers of rows: the last bits of a row alone may differ.
  const alone = await project(row, 1);
  alone.forEach((x, i) => assert(Math.abs(x - together[i]) < 1e-4, `${x} and ${together[i]}`));
  data.forEach((_, i) => Math.floor(i / K) !== row && (data[i] = random() * 100));
  assertEquals(new Uint8Array((await project(0, M)).buffer), new Uint8Array(together.buffer));
  device.close();
});

test("keys and values that no query sees may hold NaN", async () => {
  const device = await open(1), random = generator(6);
  const T = 70, S = 500, D = 64, hidden = (s: number) => s >= 100 && s < 130 || s >= 480;
  const values = () => Float32Array.from({ length: S * D }, () => random() * 2 - 1);
  const q = numbers(device, values()), k = values(), v = values(), y = device.alloc(4 * T * D);
  const ranges = numbers(device, new Float32Array(4 * T));
  device.write(ranges, Int32Array.from({ length: 4 * T }, (_, i) => [0, 100, 130, 480 - (i >> 2)][i % 4]));
  const attend = async () => {
    const params = { T, D, A: 1, scale: 0.125, slope: 0, hd: 64, hasSlope: 0, hasLse: 0 };
    device.run({
      kernel: attention,
      buffers: [q, numbers(device, k), numbers(device, v), ranges, y, null],
      params,
    });
    return new Float32Array(await device.read(y, 0, 4 * T * D));
  };
  const clean = await attend();
  for (let i = 0; i < S * D; i++) if (hidden(Math.floor(i / D))) k[i] = v[i] = NaN;
  assertEquals(await attend(), clean);
  assert(clean.every(Number.isFinite));
  device.close();
});

test("a BLAS finds its matrices after the memory has grown, beyond 2 GiB too", async () => {
  const device = await open(2);
  const room = device.alloc(2 ** 31 + 2 ** 20); // addresses beyond 2^31 are negative where they are signed
  for (const each of CASES.filter((c) => c.kernel === linear)) await checkKernel(device, each);
  device.free(room);
  device.close();
});

test("the library is part of the device that a run's fingerprint names, threads are not", async () => {
  const [one, two, none] = await Promise.all([open(1), open(2), openCpuDevice({ threads: 2 })]);
  assertEquals(deviceOf(one), deviceOf(two));
  assert(one.info.blas!.includes(BLAS!));
  const name = one.info.blas!.replace(` (${BLAS})`, "");
  assertMatch(name, /\d/);
  assertEquals(deviceOf(one), `${deviceOf(none)}, ${name}`.replace("thread,", "threads,"));
  [one, two, none].forEach((d) => d.close());
});

test("a library that is slower than WebAssembly is refused: in one line if it was named", () => {
  const slow = () => ({ blas: 3, wasm: 40 }), memory = pageOfMemory();
  const { blas, report } = chooseBlas("auto", kernels, memory, 2, slow);
  assertEquals(blas, null);
  assertMatch(report, /^off: .+ is slower than WebAssembly$/);
  const error = assertThrows(() => chooseBlas(BLAS!, kernels, memory, 2, slow), Error);
  assertMatch(
    error.message,
    /^--blas .+ is slower than WebAssembly \(3\.0 GFLOP\/s per thread, WebAssembly 40\.0\); use --blas off/,
  );
  assert(chooseBlas("auto", kernels, memory, 2, () => ({ blas: 41, wasm: 40 })).blas);
});

Deno.test({
  ...needs(["serialBlas"], "a build of OpenBLAS for one caller is refused for two threads and taken for one"),
  fn: () => {
    const error = assertThrows(() => loadBlas(SERIAL_BLAS, pageOfMemory(), 2), Error);
    assertMatch(
      error.message,
      /^\/.+ is a build of OpenBLAS for one caller: use --threads 1, or a build with threads/,
    );
    assertMatch(loadBlas(SERIAL_BLAS, pageOfMemory(), 1).name, /^OpenBLAS \d/);
  },
});

test("two threads that call the BLAS at the same time do not disturb each other", async () => {
  const device = await open(2), random = generator(8), M = 64, N = 3072, K = 128;
  const values = (count: number) => Float32Array.from({ length: count }, () => random() * 4 - 2);
  const x = numbers(device, values(M * K)), w = numbers(device, values(N * K)), y = device.alloc(4 * M * N);
  const p = { M, N, K, G: 0, xRow: 0, yRow: 0, gateCol: 0 };
  const params = { ...p, act: 0, hasBias: 0, hasGate: 0, hasResidual: 0, half: 0 };
  let first: Uint32Array | undefined;
  for (let run = 0; run < 1000; run++) {
    device.run({ kernel: linear, buffers: [x, w, null, null, null, null, y], params });
    const bits = new Uint32Array(await device.read(y));
    first ??= bits;
    assert(bits.every((b, i) => b === first![i]), `run ${run} differs from the first`);
  }
  device.close();
});

Deno.test("a file that is no BLAS, or is not there, is refused by name", () => {
  const named = (path: string) => assertThrows(() => loadBlas(path, pageOfMemory(), 1), Error).message;
  assertMatch(named("/nowhere/libopenblas.so"), /^--blas \/nowhere\/libopenblas\.so: .*open/);
  if (Deno.build.os === "linux") {
    assertMatch(named("libc.so.6"), /^--blas libc\.so\.6: has neither cblas_sgemm nor dnnl_sgemm$/);
  }
});

Deno.test("the usual places are named for every system", () => {
  assert(usualPlaces("linux", "aarch64").includes("/usr/lib/aarch64-linux-gnu/libopenblas.so.0"));
  assertMatch(usualPlaces("darwin")[0], /Accelerate$/);
  assert(usualPlaces("windows").every((name) => name.endsWith(".dll")));
});

Deno.test("without permission to call libraries, auto is off and a named library is an error", async () => {
  const auto = await far(["doctor", "--device", "cpu", "--json"]);
  const { device } = JSON.parse(auto.stdout);
  assertEquals(device.blas, "off: needs permission to call libraries, run with -P=blas");
  assertEquals(device.description.split(", ").length, 3);
  const named = await far(["doctor", "--device", "cpu", "--blas", "/lib/libblas.so"]);
  assertEquals(named.code, 1);
  assertMatch(
    named.stderr,
    /--blas \/lib\/libblas\.so: needs permission .*-P=blas, or add --allow-ffi=\/lib/,
  );
});

Deno.test({
  ...needs(
    ["blas"],
    "doctor -P=blas names the library, checks every kernel with it and times both settings",
  ),
  fn: async () => {
    const { code, stdout, stderr } = await far(["doctor", "--device", "cpu", "--json"], {}, "-P=blas");
    assertEquals(code, 0, stderr);
    const found = JSON.parse(stdout);
    assert(found.device.blas.endsWith(`(${BLAS})`), found.device.blas);
    assert(found.linear.withoutBlas > 0.01);
    for (const k of found.kernels) assert(k.worst <= k.bound, JSON.stringify(k));
    const off = await far(["doctor", "--device", "cpu", "--json"], { FAR_BLAS: "off" }, "-P=blas");
    assertEquals(JSON.parse(off.stdout).device.blas, "off");
  },
});

test("permission for one library is enough", async () => {
  const module = new URL("../kernels/cpu/device.ts", import.meta.url).href,
    file = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(
    file,
    `import { openCpuDevice } from "${module}";
     console.log((await openCpuDevice({ threads: 2, blas: "auto" })).info.blas);`,
  );
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-config", "--no-check", "--no-prompt", "--allow-read", `--allow-ffi=${BLAS}`, file],
  }).output();
  await Deno.remove(file);
  assert(new TextDecoder().decode(stdout).trim().endsWith(`(${BLAS})`));
});
