/**
 * Tensors as values: what they print, and who owns their memory.
 */
import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { scope, Tensor, unscoped } from "../lib/tensor.ts";
import { testOnDevices } from "./helpers.ts";

testOnDevices("console.log shows shape, type and device; print shows range and values", async (device) => {
  const where = device.info.name, x = Tensor.from(device, Float32Array.of(0, 1, 2, 3, 4.25, -5), [2, 3]);
  assertEquals(Deno.inspect({ x }), `{ x: Tensor [2, 3] f32 on ${where} }`);
  assertEquals(`${x}`, `Tensor [2, 3] f32 on ${where}`);
  const printed: string[] = [];
  await x.print((text) => printed.push(text));
  assertEquals(printed, [
    `Tensor [2, 3] f32 on ${where}, -5 to 4.25, mean 0.875\n[[0, 1, 2],\n [3, 4.25, -5]]`,
  ]);
  x.dispose();
  assertEquals(`${x}`, `Tensor [2, 3] f32 on ${where}, disposed`);
  await assertRejects(() => x.print(), Error, "used after dispose");
});

testOnDevices("long axes are shortened, and numbers that are not finite are counted", async (device) => {
  using x = Tensor.from(device, Float32Array.from({ length: 1600 }, (_, i) => i < 2 ? NaN : i / 3), [
    2,
    8,
    100,
  ]);
  let text = "";
  await x.print((t) => text = t);
  assertMatch(
    text,
    /, 0\.6667 to 533, mean 266\.8, 2 not finite\n\[\[\[NaN, NaN, 0\.6667, …, 32\.33, 32\.67, 33\],\n/,
  );
  assertEquals(text.match(/…/g)!.length, 2 * 7); // in each half six rows, and the rows between
  using empty = Tensor.empty(device, [0]);
  await empty.print((t) => text = t);
  assertMatch(text, /no finite values\n\[\]$/);
});

testOnDevices("scope frees what it does not return, and refuses an async body", async (device) => {
  const before = device.stats.liveBytes;
  const make = () => Tensor.from(device, Float32Array.of(1, 2));
  let lost: Tensor | undefined;
  const kept = scope(() => {
    lost = make();
    return { a: [make()] };
  });
  assertThrows(() => lost!.storage, Error, "used after dispose");
  assertEquals([...await kept.a[0].read()], [1, 2]);
  kept.a[0].dispose();
  for (const [name, run] of [["scope", scope], ["unscoped", unscoped]] as const) {
    const error = assertThrows(() => run(() => Promise.reject(new Error("later"))), TypeError);
    assertMatch(
      error.message,
      new RegExp(`^${name}: the function returned a promise, expected one that is not async`),
    );
  }
  assertThrows(() => scope(async () => await make().read()), TypeError, "returned a promise");
  assertEquals(device.stats.liveBytes, before); // the tensor of the refused body is freed
});
