/**
 * Patchify and unpatchify: the order of tokens and features, and their use inside the model.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { patchify, unpatchify } from "../lib/far/patchify.ts";
import { far } from "../lib/far/transformer.ts";
import { randomParams } from "../lib/params.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll, scope, Tensor } from "../lib/tensor.ts";
import { testOnDevices } from "./helpers.ts";

const counting = (n: number) => Float32Array.from({ length: n }, (_, i) => i);

testOnDevices("a token is a patch: channel, then row, then column", async (device) => {
  using latents = Tensor.from(device, counting(32), [1, 1, 2, 4, 4]);
  using tokens = patchify(latents, 2);
  assertEquals(tokens.shape, [4, 8]);
  const rows = await tokens.read();
  assertEquals([...rows.subarray(0, 8)], [0, 1, 4, 5, 16, 17, 20, 21]);
  assertEquals([...rows.subarray(8, 16)], [2, 3, 6, 7, 18, 19, 22, 23]);
  assertEquals([...rows.subarray(16, 24)], [8, 9, 12, 13, 24, 25, 28, 29]);
});

testOnDevices(
  "patchify takes a range of frames and repeats clips; unpatchify puts all back",
  async (device) => {
    using latents = Tensor.from(device, counting(2 * 3 * 2 * 4 * 8), [2, 3, 2, 4, 8]);
    for (const p of [1, 2, 4]) {
      using tokens = patchify(latents, p), back = unpatchify(tokens, p, { B: 2, F: 3, H: 4, W: 8 });
      assertEquals(back.shape, latents.shape);
      assertEquals(await back.read(), await latents.read());
      using some = patchify(latents, p, { frames: [1, 3], clips: 4 });
      const all = await tokens.read(), frame = 64, clip = 3 * frame;
      const want = [0, 1, 0, 1].flatMap((b) => [...all.subarray(b * clip + frame, (b + 1) * clip)]);
      assertEquals([...await some.read()], want);
    }
    assertThrows(() => patchify(latents, 3), RangeError, "height 4, expected a multiple of the patch size 3");
  },
);

testOnDevices(
  "the model: without attention and MLP, a latent changes the velocity of its own patch alone",
  async (device) => {
    const sizes = {
      num_layers: 1,
      num_attention_heads: 1,
      attention_head_dim: 16,
      axes_dims_rope: [4, 6, 6],
    };
    const config = farConfig("FAR_Long", {
      ...sizes,
      ...{ in_channels: 2, out_channels: 2, patch_size: 2, context_patch_size: 4, short_term_ctx_winsize: 2 },
    });
    const params = { ...randomParams(device, farShapes(config), 5) };
    for (const name of ["norm1", "norm2"]) { // gates of zero: blocks hand their tokens on
      for (const kind of ["weight", "bias"]) {
        const key = `transformer_blocks.0.${name}.linear.${kind}`, { shape, size } = params[key];
        params[key].dispose();
        params[key] = Tensor.from(device, new Float32Array(size), shape);
      }
    }
    const shape = [2, 3, 2, 8, 8], latents = normal(streamOf(6, "latents"), 2 * 3 * 2 * 64);
    const run = async (values: Float32Array) => {
      const x = Tensor.from(device, values, shape);
      using y = scope(() => far(params, config, { latents: x, timesteps: new Float32Array(6).fill(300) }));
      x.dispose();
      assertEquals(y.shape, shape);
      return await y.read();
    };
    const before = await run(latents);
    for (const [clip, frame, channel, row, column] of [[0, 0, 1, 5, 2], [1, 1, 0, 3, 6], [1, 2, 1, 0, 7]]) {
      const changed = latents.slice();
      changed[(((clip * 3 + frame) * 2 + channel) * 8 + row) * 8 + column] += 1;
      const patch = frame === 0 ? 4 : 2, touched: number[][] = []; // frame 0 is long-term
      for (const [i, v] of (await run(changed)).entries()) {
        const at = [Math.floor(i / 384), Math.floor(i / 128) % 3, Math.floor(i / 8) % 8, i % 8];
        if (v !== before[i]) touched.push(at);
      }
      const corner = [row, column].map((v) => v - v % patch);
      for (const [b, f, y, x] of touched) {
        assertEquals([b, f, y - y % patch, x - x % patch], [clip, frame, ...corner]);
      }
      assertEquals(touched.length, 2 * patch * patch); // every element of both channels
    }
    disposeAll(params);
  },
);
