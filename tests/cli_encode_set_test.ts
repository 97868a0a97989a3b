import { assert, assertEquals } from "@std/assert";
import { openDevice } from "../kernels/open.ts";
import { latentSet } from "../lib/data/latents.ts";
import { encode } from "../lib/dcae/autoencoder.ts";
import { dcaeConfig, dcaeShapes } from "../lib/dcae/config.ts";
import { randomParams } from "../lib/params.ts";
import { scope, Tensor } from "../lib/tensor.ts";
import { openNpz } from "../lib/io/npz.ts";
import { far, inFolder, killedEarly, tinyWorld } from "./cli_helpers.ts";

/** Option file of a folder of clips. */
function options(folder: string): string {
  const file = `${folder}/set.yml`;
  Deno.writeTextFileSync(
    file,
    `name: set
datasets:
  train:
    type: FolderDataset
    data_list: ${folder}/clips
    split: training
    data_cfg: { num_frames: 4, resolution: 16, part: train, shares: [0, 0] }
models: { model_cfg: { transformer: { init_cfg: { type: FAR_B } } } }
train: { total_iter: 1 }
`,
  );
  return file;
}

const bytesOf = (folder: string) =>
  [...Deno.readDirSync(folder)].map((e) => e.name).sort().map((name) =>
    [name, [...Deno.readFileSync(`${folder}/${name}`)]] as const
  );

Deno.test("encode turns a data set into shards; killed, it resumes and writes the same bytes", async () => {
  await inFolder(async (folder) => {
    await tinyWorld(folder);
    Deno.mkdirSync(`${folder}/clips`);
    for (let i = 0; i < 6; i++) Deno.copyFileSync(`${folder}/clip.npz`, `${folder}/clips/${i}.npz`);
    const args = [
      "encode",
      options(folder),
      "--vae",
      `${folder}/dcae.json`,
      "--random-weights",
      "--device",
      "cpu",
    ];
    const whole = await far([...args, "--to", `${folder}/whole`]);
    assertEquals(whole.code, 0, whole.stderr);

    await killedEarly([...args, "--to", `${folder}/killed`], "-P");
    const again = await far([...args, "--to", `${folder}/killed`]);
    assertEquals(again.code, 0, again.stderr);
    assertEquals(bytesOf(`${folder}/killed`), bytesOf(`${folder}/whole`));

    const set = latentSet(`${folder}/whole`), { latents, actions } = await set.read(5);
    assertEquals([set.length, latents?.shape.slice(0, 1), actions?.length], [6, [8], 8]);
    const { device } = await openDevice({ device: "cpu" });
    const config = dcaeConfig(JSON.parse(Deno.readTextFileSync(`${folder}/dcae.json`)));
    using clip = openNpz(`${folder}/clip.npz`);
    const video = clip.read("video").data, planes = new Float32Array(8 * 3 * 256);
    for (let f = 0; f < 8; f++) {
      for (let i = 0; i < 256; i++) {
        for (let c = 0; c < 3; c++) {
          planes[(f * 3 + c) * 256 + i] = video[(f * 256 + i) * 3 + c] / 255 * 2 - 1;
        }
      }
    }
    const params = randomParams(device, dcaeShapes(config), 0);
    const z = await scope(() => encode(params, config, Tensor.from(device, planes, [8, 3, 16, 16]))).read();
    device.close();
    assertEquals(latents!.data.length, z.length);
    const worst = z.reduce(
      (m, v, i) => Math.max(m, Math.abs(v - latents!.data[i]) / Math.max(1, Math.abs(v))),
      0,
    );
    assert(worst < 1e-3, `latents differ by ${worst}; they are stored as f16`);

    const other = await far([...args, "--to", `${folder}/x`, "--set", "datasets.train.type=LatentDataset"]);
    assert(other.code !== 0 && other.stderr.trim().split("\n").length === 1, other.stderr);
  });
});
