/**
 * Training runs that are killed: between any two file operations, in the middle of a write, at random moments. The same
 * command then ends with the weights, samples and log of a run that was left alone, and with nothing unfinished beside.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { farConfig } from "../lib/far/config.ts";
import type { Params } from "../lib/params.ts";
import { farObjective, farValidationLoss } from "../lib/train/far_objective.ts";
import { trainRun } from "../lib/train/run.ts";
import { far, inFolder } from "./cli_helpers.ts";
import { type Killable, killedAfter, killedAt, killPoints, tellingPoints } from "./kill_helpers.ts";
import { watchChanges } from "./kill_shim.ts";
import { openReferenceDevice } from "./reference_device.ts";
import { assertSameRun, trainArgs, TRAINING_VERBS } from "./train_cli_setup.ts";
import { madeUp, TINY, tinyConfig } from "./train_setup.ts";

/** Random kills of each verb (soak.ts does more), and one in so many file operations with a process for each. */
const KILLS = 1, EVERY = 18;

/** A kill in this process: from then on no change of the folder gets through, those of cleaning up included. */
class Killed extends Error {}

Deno.test("a run killed at any file operation, or in the middle of a write, is resumed to the same files", () =>
  inFolder(async (folder) => {
    const device = openReferenceDevice(), config = tinyConfig(farConfig("FAR", { ...TINY, num_layers: 1 }));
    const source = madeUp(config.model, [1, 1, 2, 2, 2]);
    const batches = [await source.batch(9)];
    const validation = {
      every: 2,
      measure: async (params: Params) => ({
        validation_loss: await farValidationLoss(device, params, config, batches),
      }),
    };
    const run = (name: string) =>
      trainRun({
        device,
        folder: `${folder}/${name}`,
        config,
        objective: farObjective(device, config, source),
        validation,
        ...{ name: "killed", steps: 4, logEvery: 3, saveEvery: 2, keep: 1 },
      });
    const points: string[] = [], watched = watchChanges(folder, (what) => points.push(what));
    await run("whole");
    watched();
    const chosen = tellingPoints(points.map((p) => p.replaceAll(/\d+-[0-9a-f]{8}/g, "")));
    assert(chosen.length > 80, `${chosen.length} points`);
    for (const at of chosen) {
      const name = `killed at ${at}`, told = `${name}: ${points[at]}`;
      let count = 0;
      const undo = watchChanges(folder, (_, half) => {
        if (count++ < at) return;
        if (count === at + 1) half?.();
        throw new Killed();
      });
      await assertRejects(() => run(name), Error, undefined, told);
      undo();
      await run(name);
      assertSameRun(`${folder}/${name}`, `${folder}/whole`, told);
    }
  }));

for (const verb of TRAINING_VERBS) {
  Deno.test(`${verb}: killed at any file operation, the same command ends with the same run`, () =>
    inFolder(async (folder) => {
      const command = (name: string): Killable => ({
        args: trainArgs(verb, `${folder}/${name}`),
        under: folder,
      });
      const points = await killPoints(command("whole"));
      const second = points.findIndex((p) => p.includes("step-00000004"));
      assert(second > 0, points.join("\n"));
      // The start, and all from the second validation on: a save that removes the one before it.
      const telling = tellingPoints(points).filter((i) => i < 12 || i >= second);
      const chosen = telling.filter((_, n) => n % EVERY === 0);
      for (const i of chosen) {
        const name = `killed at ${i}`, told = `${verb} ${name}: ${points[i]}`;
        await killedAt(command(name), i);
        const { code, stderr } = await far(trainArgs(verb, `${folder}/${name}`), {}, "-A");
        assertEquals(code, 0, `${told}: ${stderr}`);
        assertSameRun(`${folder}/${name}`, `${folder}/whole`, told);
        Deno.removeSync(`${folder}/${name}`, { recursive: true });
      }
    }));

  Deno.test(`${verb}: killed at random moments, the same command ends with the same run`, () =>
    inFolder(async (folder) => {
      const args = (name: string) => trainArgs(verb, `${folder}/${name}`), began = performance.now();
      const { code, stderr } = await far(args("whole"), {}, "-A"), whole = performance.now() - began;
      assertEquals(code, 0, stderr);
      for (let n = 0; n < KILLS; n++) {
        const name = `killed ${n}`, moments: number[] = [];
        // Until it has ended by itself, which it does: every life gets a little further, or has all the time.
        for (let killed = true; killed;) {
          const ms = moments.length < 3 ? whole * Math.random() : 10 * whole;
          moments.push(Math.round(ms));
          killed = await killedAfter(args(name), ms);
        }
        const { code, stderr } = await far(args(name), {}, "-A");
        assertEquals(code, 0, `${verb} killed after ${moments} ms: ${stderr}`);
        assertSameRun(`${folder}/${name}`, `${folder}/whole`, `${verb} killed after ${moments} ms`);
      }
    }));
}
