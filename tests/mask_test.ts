/**
 * What may be seen and what may not: by attention with a mask, and by a whole model, whose outputs may change only where the
 * paper lets them.
 */
import { assert, assertAlmostEquals, assertEquals, assertLess, assertThrows } from "@std/assert";
import type { Device } from "../kernels/device.ts";
import { type FarConfig, farConfig, farShapes } from "../lib/far/config.ts";
import { frameCausalMask, maskOfQueries, type MaskOptions } from "../lib/far/mask.ts";
import { sample } from "../lib/far/sample.ts";
import { far } from "../lib/far/transformer.ts";
import { attention, placeMask } from "../lib/ops.ts";
import { type Params, randomParams } from "../lib/params.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll, scope, Tensor } from "../lib/tensor.ts";
import { testOnDevices } from "./helpers.ts";
import { openReferenceDevice } from "./reference_device.ts";

const numbers = (what: string, count: number) => normal(streamOf(21, what), count);

/** A token of a clip: its place in the queries is its place in the keys. */
interface Token {
  readonly clip: number;
  readonly frame: number;
  readonly longTerm: boolean;
}

/** Softmax attention over everything that a token may see, written out. */
function dense(
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
  hd: number,
  tokens: readonly Token[],
  sees: (query: Token, key: Token) => boolean,
  slope: number,
): number[] {
  return tokens.flatMap((query, t) => {
    const out = new Array<number>(hd).fill(0);
    let sum = 0;
    for (const [s, key] of tokens.entries()) {
      if (!sees(query, key)) continue;
      let dot = 0;
      for (let d = 0; d < hd; d++) dot += q[t * hd + d] * k[s * hd + d];
      const w = Math.exp(dot / Math.sqrt(hd) + slope * (key.frame - query.frame));
      sum += w;
      for (let d = 0; d < hd; d++) out[d] += w * v[s * hd + d];
    }
    return out.map((x) => x / sum);
  });
}

/** Tokens in the order of the queries: long-term frames of all clips first. */
function tokensOf({ frames, tokens, longTerm = { frames: 0, tokens: 0 }, clips = 1 }: MaskOptions): Token[] {
  const part = (isLong: boolean, first: number, count: number, each: number) =>
    Array.from({ length: clips * count * each }, (_, i) => ({
      clip: Math.floor(i / (count * each)),
      frame: first + Math.floor(i / each) % count,
      longTerm: isLong,
    }));
  return [
    ...part(true, 0, longTerm.frames, longTerm.tokens),
    ...part(false, longTerm.frames, frames, tokens),
  ];
}

const CASES: Readonly<Record<string, MaskOptions>> = {
  "short-term frames": { frames: 4, tokens: 3 },
  "two clips": { frames: 3, tokens: 2, clips: 2 },
  "long-term frames": { frames: 2, tokens: 4, longTerm: { frames: 3, tokens: 1 } },
  "both, and a temporal decay": {
    frames: 2,
    tokens: 4,
    longTerm: { frames: 3, tokens: 2 },
    clips: 2,
    slope: 0.7,
  },
};

for (const [name, options] of Object.entries(CASES)) {
  testOnDevices(
    `attention with a frame-causal mask sees the past and the own frame: ${name}`,
    async (device) => {
      const tokens = tokensOf(options), hd = 8, T = tokens.length, mask = frameCausalMask(options);
      const [q, k, v] = ["q", "k", "v"].map((what) => numbers(what, T * hd));
      const sees = (query: Token, key: Token) =>
        query.clip === key.clip && key.frame <= query.frame && (key.longTerm || !query.longTerm);
      const want = dense(q, k, v, hd, tokens, sees, options.slope ?? 0);
      const [a, b, c] = [q, k, v].map((x) => Tensor.from(device, x, [T, hd]));
      const placed = placeMask(device, mask);
      for (const given of [mask, placed]) {
        using y = scope(() => attention(a, b, c, hd, given));
        (await y.read()).forEach((x, i) => assertAlmostEquals(x, want[i], 2e-6, `element ${i}`));
      }
      const some = Int32Array.of(T - 1, 1, T >> 1); // the mask of three of the queries
      const rows = Float32Array.from({ length: 3 * hd }, (_, i) => q[some[Math.floor(i / hd)] * hd + i % hd]);
      const picked = Tensor.from(device, rows, [3, hd]);
      using y = scope(() => attention(picked, b, c, hd, maskOfQueries(mask, some)));
      (await y.read()).forEach((x, i) =>
        assertAlmostEquals(x, want[some[Math.floor(i / hd)] * hd + i % hd], 2e-6, `picked ${i}`)
      );
      disposeAll([a, b, c, picked, placed]);
    },
  );
}

testOnDevices(
  "temporal decay: a frame further back weighs less by the factor exp(-slope)",
  async (device) => {
    // With equal scores the weights are 1/4, 1/2 and 1 of three frames: the mean of 7, 0 and 0 is 1.
    const zeros = Tensor.from(device, new Float32Array(24), [3, 8]);
    const v = Tensor.from(device, Float32Array.from({ length: 24 }, (_, i) => i < 8 ? 7 : 0), [3, 8]);
    const mask = frameCausalMask({ frames: 3, tokens: 1, slope: Math.log(2) });
    using y = scope(() => attention(zeros, zeros, v, 8, mask));
    const values = await y.read();
    [7, 7 / 3, 1].forEach((want, frame) => assertAlmostEquals(values[8 * frame], want, 1e-5));
    disposeAll([zeros, v]);
  },
);

Deno.test("attention refuses a mask that does not fit its queries and keys", () => {
  const device = openReferenceDevice();
  const rows = (count: number) => Tensor.from(device, new Float32Array(count * 8), [count, 8]);
  const attend = (options: MaskOptions) => attention(rows(6), rows(6), rows(6), 8, frameCausalMask(options));
  assertEquals(attend({ frames: 3, tokens: 2 }).shape, [6, 8]);
  assertThrows(
    () => attend({ frames: 2, tokens: 2 }),
    RangeError,
    "for 4 queries and 4 keys, expected 6 and 6",
  );
  const mask = frameCausalMask({ frames: 3, tokens: 2, slope: 1 });
  const decay = { ...mask.decay!, keyFrames: new Int32Array(5) };
  assertThrows(
    () => attention(rows(6), rows(6), rows(6), 8, { ...mask, decay }),
    RangeError,
    "decay is for 6 queries and 5 keys, expected 6 and 6",
  );
});

const SIZES = {
  num_layers: 2,
  num_attention_heads: 2,
  attention_head_dim: 16,
  axes_dims_rope: [4, 6, 6],
  in_channels: 3,
  out_channels: 3,
};
const SHORT = farConfig("FAR", SIZES);
const LONG = farConfig("FAR_Long", { ...SIZES, short_term_ctx_winsize: 2, context_patch_size: 2 });
const FRAMES = 5, FRAME = 3 * 4 * 4;

/** Velocity of two clips of five frames, frame by frame. */
async function velocities(
  device: Device,
  params: Params,
  config: FarConfig,
  latents: Float32Array,
  full = false,
): Promise<Float32Array[]> {
  const x = Tensor.from(device, latents, [2, FRAMES, 3, 4, 4]),
    timesteps = new Float32Array(2 * FRAMES).fill(400);
  using y = scope(() => far(params, config, { latents: x, timesteps }, { full }));
  const values = await y.read();
  x.dispose();
  return Array.from({ length: 2 * FRAMES }, (_, i) => values.slice(i * FRAME, (i + 1) * FRAME));
}

for (const [name, config] of [["FAR", SHORT], ["FAR-Long", LONG]] as const) {
  testOnDevices(
    `${name}: a frame changes its own velocity and later ones, never earlier ones or other clips`,
    async (device) => {
      const params = randomParams(device, farShapes(config), 4),
        latents = numbers("clip", 2 * FRAMES * FRAME);
      const before = await velocities(device, params, config, latents);
      for (let clip = 0; clip < 2; clip++) {
        for (let changed = 0; changed < FRAMES; changed++) {
          const other = latents.slice();
          other[(clip * FRAMES + changed) * FRAME + 20] += 1;
          const after = await velocities(device, params, config, other);
          for (let i = 0; i < 2 * FRAMES; i++) {
            const sees = Math.floor(i / FRAMES) === clip && i % FRAMES >= changed;
            // Long-term frames see long-term frames; both see all that is earlier.
            const differs = after[i].some((v, j) => v !== before[i][j]);
            assertEquals(
              differs,
              sees,
              `clip ${clip}, frame ${changed}: frame ${i % FRAMES} of clip ${Math.floor(i / FRAMES)}`,
            );
          }
        }
      }
      disposeAll(params);
    },
  );
}

testOnDevices("full attention (Video DiT): every frame changes every frame of its clip", async (device) => {
  const params = randomParams(device, farShapes(SHORT), 4), latents = numbers("clip", 2 * FRAMES * FRAME);
  const before = await velocities(device, params, SHORT, latents, true);
  const other = latents.slice();
  other[(FRAMES - 1) * FRAME] += 1;
  const after = await velocities(device, params, SHORT, other, true);
  after.forEach((v, i) => assertEquals(v.some((x, j) => x !== before[i][j]), i < FRAMES, `frame ${i}`));
  disposeAll(params);
});

testOnDevices(
  "a model with a steep temporal decay sees its own frame alone, with none all of the past",
  async (device) => {
    for (const config of [SHORT, LONG]) {
      const params = randomParams(device, farShapes(config), 4),
        latents = numbers("clip", 2 * FRAMES * FRAME);
      const other = latents.slice();
      other[20] += 1; // the first frame
      for (const [slopeScale, sees] of [[0, true], [0.5, true], [1000, false]] as const) {
        const [a, b] = [
          await velocities(device, params, { ...config, slopeScale }, latents),
          await velocities(device, params, { ...config, slopeScale }, other),
        ];
        const difference = Math.max(...a[FRAMES - 1].map((v, i) => Math.abs(v - b[FRAMES - 1][i])));
        assertEquals(difference > 0, sees, `slope ${slopeScale}: the last frame moves by ${difference}`);
      }
      disposeAll(params);
    }
  },
);

/** Predicts two frames after four given ones: the latents of both. */
async function predicted(
  device: Device,
  params: Params,
  config: FarConfig,
  context: Float32Array,
  cache = true,
) {
  const frames: Float32Array[] = [], frameShape = [2, 3, 4, 4] as const;
  const options = { device, params, config, frameShape, context, predict: 2, steps: 2, seed: 1, cache };
  for await (const { latents } of sample(options)) frames.push(latents);
  return frames;
}

testOnDevices(
  "sampling with a cache sees what it sees without: every frame of its own clip",
  async (device) => {
    for (const base of [SHORT, LONG]) {
      for (const slopeScale of [0, 0.3]) {
        const config = { ...base, slopeScale }, params = randomParams(device, farShapes(config), 4);
        const context = numbers("context", 2 * 4 * FRAME);
        const [cached, plain] = [
          await predicted(device, params, config, context),
          await predicted(device, params, config, context, false),
        ];
        cached.forEach((frame, f) => frame.forEach((v, i) => assertLess(Math.abs(v - plain[f][i]), 1e-5)));
        for (let changed = 0; changed < 4; changed++) {
          const other = context.slice();
          other[changed * FRAME + 7] += 1; // clip 0
          const after = await predicted(device, params, config, other);
          for (const [f, frame] of after.entries()) {
            const moved = (clip: number) =>
              frame.subarray(clip * FRAME, (clip + 1) * FRAME).some((v, i) =>
                v !== cached[f][clip * FRAME + i]
              );
            assert(moved(0), `context frame ${changed} does not reach predicted frame ${f}`);
            assert(!moved(1), `context frame ${changed} of clip 0 reaches clip 1`);
          }
        }
        disposeAll(params);
      }
    }
  },
);
