import { assert, assertEquals } from "@std/assert";
import * as far from "../mod.ts";

Deno.test("mod.ts has the paper's names and a namespace for everything else", () => {
  const names = Object.keys(far),
    spaces = ["data", "dcae", "io", "jobs", "metrics", "model", "ops", "train", "world"];
  assertEquals(names.filter((n) => typeof far[n as keyof typeof far] === "object"), spaces);
  const paper = [
    ...["drawNoise", "eulerSchedule", "far", "farConfig", "farShapes", "flowMatchingLoss", "frameCausalMask"],
    ...["patchify", "ropeTable", "sample", "unpatchify"],
  ];
  const around = [
    ...[
      "Tensor",
      "adamw",
      "checkpoint",
      "decodeClip",
      "disposeAll",
      "ema",
      "encodeClip",
      "loadModel",
      "loadParams",
    ],
    ...[
      "normal",
      "openDevice",
      "randomParams",
      "readClip",
      "rollout",
      "scope",
      "streamOf",
      "uniform",
      "valueAndGrad",
    ],
  ];
  for (const name of [...paper, ...around]) assertEquals(names.includes(name), true, name);
  assert(
    names.length <= 45,
    `mod.ts exports ${names.length} names, expected some 35: the rest belongs in namespaces`,
  );
});

/** Runs a program in an empty folder, without a configuration, with `mod` standing for the address of mod.ts. */
async function runAlone(program: string): Promise<string> {
  const folder = Deno.makeTempDirSync();
  try {
    const mod = JSON.stringify(new URL("../mod.ts", import.meta.url).href);
    Deno.writeTextFileSync(`${folder}/use.ts`, `import * as far from ${mod};\n${program}`);
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--check", "--no-config", "--allow-read", "--allow-env", "use.ts"],
      cwd: folder,
    }).output();
    assertEquals(success, true, new TextDecoder().decode(stderr));
    return new TextDecoder().decode(stdout);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("mod.ts computes when imported from an empty folder without an import map", async () => {
  const printed = await runAlone(`
    const { device } = await far.openDevice({ device: "cpu", threads: 1 });
    const x = far.Tensor.from(device, Float32Array.of(1, 2), [1, 2]);
    const w = far.Tensor.from(device, Float32Array.of(3, 4, 5, 6), [2, 2]);
    await far.ops.linear(x, w).print();
    const config = far.farConfig("FAR_B_Long", { num_layers: 1, in_channels: 4, out_channels: 4 });
    const params = far.randomParams(device, far.farShapes(config), 0);
    for await (const { frame, latents } of far.sample({ device, params, config, frameShape: [1, 4, 4, 4], predict: 2, steps: 2 })) {
      console.log(frame, latents.length, latents.every(Number.isFinite));
    }
    device.close();`);
  assertEquals(printed, "Tensor [1, 2] f32 on cpu, 11 to 17, mean 14\n[[11, 17]]\n0 64 true\n1 64 true\n");
});

Deno.test("a model of one's own learns by flowMatchingLoss: its velocity is any function of the noisy latents", async () => {
  const printed = await runAlone(`
    const { device } = await far.openDevice({ device: "cpu", threads: 1 }), { ops } = far;
    const shape = [8, 4, 2, 4, 4];
    // Every frame is the same: the velocity from it follows from the noisy latents and the noise level.
    const latents = far.Tensor.from(device, new Float32Array(1024).fill(1), shape);
    const random = (size: number, shape: number[], what: string) =>
      far.Tensor.from(device, far.normal(far.streamOf(0, what), size).map((v) => v / 8), shape);
    const params = { inward: random(32 * 9, [32, 9], "in"), outward: random(8 * 32, [8, 32], "out") };
    const velocity = (p: typeof params) => (noisy: far.Tensor, timesteps: Float32Array) => {
      const tokens = far.patchify(noisy, 2); // [B·F·4, 8]
      const level = far.Tensor.from(device, timesteps.map((t) => t / 1000), [32, 1, 1]);
      const x = ops.concat([tokens, ops.broadcast(level, [32, 4, 1]).reshape([128, 1])], 1); // [B·F·4, 9]
      const hidden = ops.activation(ops.matmul(x, ops.permute(p.inward, [1, 0])), "gelu");
      return far.unpatchify(ops.linear(hidden, p.outward), 2, { B: 8, F: 4, H: 4, W: 4 });
    };
    const optimizer = far.adamw(params), losses: number[] = [];
    for (let step = 0; step < 60; step++) {
      const draw = far.drawNoise(shape, far.streamOf(0, \`step \${step}\`));
      const loss = (p: typeof params) => far.flowMatchingLoss(velocity(p), latents, draw);
      const { value, grads } = far.valueAndGrad(loss)(params);
      losses.push((await value.read()).reduce((a, b) => a + b, 0));
      await optimizer.step(params, grads, 0.02);
      far.disposeAll([value, grads]);
    }
    const mean = (part: number[]) => part.reduce((a, b) => a + b, 0) / part.length;
    console.log(mean(losses.slice(0, 3)) > 1.2, mean(losses.slice(-20)) < 0.6);
    device.close();`);
  assertEquals(printed, "true true\n");
});
