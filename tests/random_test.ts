/**
 * Random streams: their distributions, within bounds that follow from the number of values, and where they resume.
 */
import { assert, assertEquals, assertLess } from "@std/assert";
import { permutation, RandomStream } from "../lib/data/random_stream.ts";
import { normal, streamOf, uniform } from "../lib/random.ts";

/** A share of `count` draws is within 4.5 standard errors: one correct test of 150,000 would fail. */
function assertShare(found: number, expected: number, count: number, what: string): void {
  const bound = 4.5 * Math.sqrt(expected * (1 - expected) / count);
  assert(Math.abs(found - expected) <= bound, `${what}: found ${found}, expected ${expected} ± ${bound}`);
}

/** Number of times that each value occurs. */
const counts = (values: Iterable<number>) => {
  const found = new Map<number, number>();
  for (const v of values) found.set(v, (found.get(v) ?? 0) + 1);
  return found;
};

Deno.test("a key of a key is the key of the whole purpose", () => {
  assertEquals(streamOf(streamOf(3, "step 5"), "noise"), streamOf(3, "noise of step 5"));
  const first = (...purposes: [number, string][]) =>
    purposes.map(([seed, p]) => uniform(streamOf(seed, p), 1)[0]);
  assertEquals(new Set(first([0, "a"], [1, "a"], [0, "b"], [2 ** 40, "a"])).size, 4);
});

Deno.test("number i of a stream does not depend on how many were drawn before it", () => {
  const key = streamOf(1, "parts");
  assertEquals(uniform(key, 5, 7), uniform(key, 12).slice(7));
  assertEquals(normal(key, 5, 7), normal(key, 12).slice(7));
  const stream = new RandomStream(key), all = Array.from({ length: 600 }, () => stream.next());
  assertEquals(all, [...uniform(key, 600)]);
  const resumed = new RandomStream(key, 300);
  assertEquals(Array.from({ length: 300 }, () => resumed.next()), all.slice(300));
  assertEquals(resumed.position, 600);
});

Deno.test("uniform numbers fill [0, 1) evenly", () => {
  const n = 20_000, sorted = uniform(streamOf(2, "u"), n).sort();
  assert(sorted[0] >= 0 && sorted[n - 1] < 1);
  const distance = sorted.reduce((worst, x, i) => Math.max(worst, (i + 1) / n - x, x - i / n), 0);
  assertLess(distance, 2.15 / Math.sqrt(n)); // Kolmogorov's bound for one failure in 5,000
});

Deno.test("below, chance and pick have the probabilities that they say", () => {
  const stream = new RandomStream(streamOf(3, "x")), n = 7000;
  const integers = counts(Array.from({ length: n }, () => stream.below(7)));
  assertEquals([...integers.keys()].sort(), [0, 1, 2, 3, 4, 5, 6]);
  for (const [value, times] of integers) assertShare(times / n, 1 / 7, n, `below: ${value}`);
  const picked = counts(Array.from({ length: n }, () => stream.pick([5, 8])));
  assertShare(picked.get(5)! / n, 1 / 2, n, "pick");
  for (const p of [0.03, 0.5, 0.9]) {
    const hits = Array.from({ length: n }, () => stream.chance(p)).filter(Boolean).length;
    assertShare(hits / n, p, n, `chance ${p}`);
  }
});

Deno.test("every order is as likely in a shuffle and in a permutation", () => {
  const stream = new RandomStream(streamOf(4, "x")), n = 6000;
  const orders: Readonly<Record<string, (i: number) => ArrayLike<number>>> = {
    shuffled: () => stream.shuffled([0, 1, 2]),
    permutation: (i) => permutation(streamOf(5, `order ${i}`), 3),
  };
  for (const [name, order] of Object.entries(orders)) {
    const found = counts(Array.from({ length: n }, (_, i) => Number(Array.from(order(i)).join(""))));
    assertEquals([...found.keys()].sort((a, b) => a - b), [12, 21, 102, 120, 201, 210]);
    for (const [digits, times] of found) assertShare(times / n, 1 / 6, n, `${name}: ${digits}`);
  }
});
