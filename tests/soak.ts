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

const [count = "30", ...verbs] = Deno.args;

await inFolder(async (folder) => {
  for (const { verb, to, args } of await cases(folder)) {
    if (verbs.length > 0 && !verbs.includes(verb)) continue;
    const whole = `${folder}/${verb}_whole`, start = performance.now();
    const first = await far([...args, to, whole, "--quiet"], {}, "-A");
    assertEquals(first.code, 0, first.stderr);
    const milliseconds = performance.now() - start;
    let killed = 0;
    for (let i = 0; i < Number(count); i++) {
      const out = `${folder}/${verb}_${i}`, call = [...args, to, out, "--quiet"];
      // Up to three kills of one run, each at a moment of its own.
      for (let again = 0; again <= i % 3; again++) {
        killed += Number(await killedAfter(call, Math.random() * milliseconds));
      }
      const { code, stderr } = await far(call, {}, "-A");
      assertEquals([code, stderr], [0, ""], verb);
      assertEquals(resultOf(out), resultOf(whole), verb);
      assertEquals(hiddenIn(out), []);
      Deno.removeSync(out, { recursive: true });
    }
    console.log(`${verb}: ${count} runs, ${killed} kills, all with the result of an undisturbed run`);
  }
});
