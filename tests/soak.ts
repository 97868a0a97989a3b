/**
 * Kills verbs at random moments, as often as asked, and runs the same command again: the result must be that of an undisturbed
 * run, and nothing hidden may stay. By hand; the test suite kills at chosen moments.
 *
 *     deno run -A tests/soak.ts [kills per verb, default 30] [verb ...]
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { far, inFolder } from "./cli_helpers.ts";
import { hiddenIn, killedAfter } from "./kill_helpers.ts";
import { cases, resultOf } from "./resume_cases.ts";
import { assertSameRun, trainArgs, TRAINING_VERBS } from "./train_cli_setup.ts";

const [count = "30", ...verbs] = Deno.args;

/** A verb, its words with a folder for the result, and what two results must have in common. */
interface Soaked {
  readonly verb: string;
  readonly call: (out: string) => string[];
  readonly same: (found: string, expected: string) => void;
}

await inFolder(async (folder) => {
  const soaked: Soaked[] = [
    ...(await cases(folder)).map(({ verb, to, args }) => ({
      verb,
      call: (out: string) => [...args, to, out, "--quiet"],
      same: (found: string, expected: string) => {
        assertEquals(resultOf(found), resultOf(expected), verb);
        assertEquals(hiddenIn(found), []);
      },
    })),
    ...TRAINING_VERBS.map((verb) => ({
      verb,
      call: (out: string) => trainArgs(verb, out, "--quiet"),
      same: (found: string, expected: string) => assertSameRun(found, expected, verb),
    })),
  ];
  for (const { verb, call, same } of soaked) {
    if (verbs.length > 0 && !verbs.includes(verb)) continue;
    const whole = `${folder}/${verb}_whole`, start = performance.now();
    const first = await far(call(whole), {}, "-A");
    assertEquals(first.code, 0, first.stderr);
    const milliseconds = performance.now() - start;
    let killed = 0;
    for (let i = 0; i < Number(count); i++) {
      const out = `${folder}/${verb}_${i}`;
      // Up to three kills of one run, each at a moment of its own.
      for (let again = 0; again <= i % 3; again++) {
        killed += Number(await killedAfter(call(out), Math.random() * milliseconds));
      }
      const { code, stderr } = await far(call(out), {}, "-A");
      assertEquals([code, stderr], [0, ""], verb);
      same(out, whole);
      Deno.removeSync(out, { recursive: true });
    }
    console.log(`${verb}: ${count} runs, ${killed} kills, all with the result of an undisturbed run`);
  }
});
