import { assert, assertEquals, assertThrows } from "@std/assert";
import { copyStrided, groupMean } from "../lib/ops.ts";
import { decode, encode } from "../lib/dcae/autoencoder.ts";
import { dcaeConfig, dcaeShapes } from "../lib/dcae/config.ts";
import { randomParams } from "../lib/params.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll, scope, Tensor } from "../lib/tensor.ts";
import { TINY_DCAE } from "./cli_helpers.ts";
import { testOnDevices } from "./helpers.ts";

/** 64 channels become 24 on the way down, 24 become 64 on the way up: neither number divides the other. */
const ODD = {
  ...TINY_DCAE,
  encoder_block_out_channels: [8, 16, 24],
  decoder_block_out_channels: [8, 16, 24],
};

testOnDevices(
  "an image is encoded and decoded alike whatever comes with it and before it, odd channels included",
  async (device) => {
    for (const config of [TINY_DCAE, ODD].map((keys) => dcaeConfig(keys))) {
      const params = randomParams(device, dcaeShapes(config), 0);
      const images = normal(streamOf(0, "images"), 3 * 3 * 16 * 16),
        latents = normal(streamOf(0, "latents"), 3 * 4 * 16);
      // What a buffer held before must not show: the pool is filled with other numbers in between.
      const stir = (value: number) => {
        const sizes = [64, 256, 1024, 4096, 16384, 65536];
        disposeAll(sizes.map((size) => Tensor.from(device, new Float32Array(size).fill(value), [size])));
      };
      const run = async (first: number, count: number, value: number) => {
        stir(value);
        const cut = (all: Float32Array, each: number) => all.slice(first * each, (first + count) * each);
        const z = scope(() =>
          encode(params, config, Tensor.from(device, cut(images, 768), [count, 3, 16, 16]))
        );
        stir(-value);
        const y = scope(() =>
          decode(params, config, Tensor.from(device, cut(latents, 64), [count, 4, 4, 4]))
        );
        const read = [await z.read(), await y.read()];
        disposeAll([z, y]);
        return read;
      };
      const together = await run(0, 3, 1e6);
      for (let i = 0; i < 3; i++) {
        const alone = await run(i, 1, 100 * i);
        for (const [k, each] of [64, 768].entries()) {
          const expected = together[k].slice(i * each, (i + 1) * each);
          const worst = alone[k].reduce((m, v, j) => Math.max(m, Math.abs(v - expected[j])), 0);
          assert(worst < 1e-5, `image ${i}, ${k === 0 ? "encode" : "decode"}: differs by ${worst}`);
        }
      }
      assertEquals(await run(0, 3, 7), together, "the same bits");
      disposeAll(params);
    }
  },
);

testOnDevices("a size that is no integer is refused, not rounded", (device) => {
  const x = Tensor.from(device, new Float32Array(12), [4, 3]),
    y = Tensor.from(device, new Float32Array(12), [12]);
  assertThrows(() => groupMean(x, 2), RangeError, "O is 2, expected a divisor of 3 channels");
  assertThrows(
    () => copyStrided(x, y, { sizes: [2.5], from: [1], to: [1] }),
    RangeError,
    "is 2.5, expected an integer",
  );
  disposeAll([x, y]);
  return Promise.resolve();
});
