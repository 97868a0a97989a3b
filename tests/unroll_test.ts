import { assertEquals, assertThrows } from "@std/assert";
import { unroll } from "../kernels/webgpu/unroll.ts";

const words = (wgsl: string) => unroll(wgsl).replace(/\s+/g, " ").trim();

Deno.test("a marked loop is written out, a block per iteration, and others stay", () => {
  const loop = (mark: string) => `for (var i = 1u; i < 3u; i++) {${mark}\n  c[i] += x.i + ii;\n}\n`;
  assertEquals(words(loop(" // unroll")), "{ c[1u] += x.i + ii; } { c[2u] += x.i + ii; }");
  assertEquals(unroll(loop("")), loop(""));
});

Deno.test("inner loops, steps, constants and the counters of outer loops", () => {
  assertEquals(
    words(`const N = 6u;
for (var i = 0u; i < N - 4u; i++) { // unroll
  for (var j = 2u * i; j < N / 2u + 1u; j += 2u) { // unroll
    f(i, j);
  }
}
`),
    "const N = 6u; { { f(0u, 0u); } { f(0u, 2u); } } { { f(1u, 2u); } }",
  );
});

Deno.test("a bound that is no constant, a body that leaves its loop and a loop without end are refused", () => {
  const loop = (bound: string, body: string) =>
    `for (var i = 0u; i < ${bound}; i++) { // unroll\n${body}\n}\n`;
  assertThrows(() => unroll(loop("p.K", "f(i);")), Error, "unroll: found the bound p.K");
  assertThrows(() => unroll(loop("2u << 1u", "f(i);")), Error, "unroll: found << in the bound");
  assertThrows(() => unroll(loop("2u", "if (i == x) { break; }")), Error, "leaves its body early");
  assertThrows(() => unroll(loop("2u", "{ f(i);")), Error, "unroll: a loop has no end");
});
