/**
 * Shared by the tests of the jobs of lib/pipeline.
 *
 * @module
 */
import { loadModel, type Model } from "../lib/pipeline/model.ts";
import { type Stage, unwatched, type Watch } from "../lib/pipeline/watch.ts";
import { inFolder, tinyWorld } from "./cli_helpers.ts";
import { withEnvironment } from "./io_helpers.ts";

/** Runs the body with a tiny model and a clip of eight frames in a folder of its own, and a cache of its own. */
export async function withModel(
  body: (folder: string, model: Model, clip: string) => Promise<void>,
): Promise<void> {
  await inFolder((folder) =>
    withEnvironment("FAR_CACHE", `${folder}/cache`, async () => {
      const [clip] = await tinyWorld(folder);
      const chosen = { model: `${folder}/far.json`, vae: `${folder}/dcae.json`, randomWeights: true };
      using model = await loadModel({ ...chosen, device: "cpu" });
      await body(folder, model, clip);
    })
  );
}

/** An observer that stops the work at its n-th pause, and remembers what it was told. */
export function stoppingAt(pauses: number) {
  const said: string[] = [], stages: { what: string; from: number; last: number }[] = [];
  const watch: Watch = {
    ...unwatched(),
    say: (line) => void said.push(line),
    stage(what, _total, _unit, from = 0): Stage {
      const seen = { what, from, last: from };
      stages.push(seen);
      return { update: (done) => void (seen.last = done), [Symbol.dispose]() {} };
    },
    pause: () => --pauses === 0 ? Promise.reject(new Error("stopped")) : Promise.resolve(),
  };
  return { watch, said, stages };
}

export const bytesOf = (folder: string, name: string) => Deno.readFileSync(`${folder}/${name}`);
export const namesIn = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
