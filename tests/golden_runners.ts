/**
 * What to do with each kind of recorded case. A runner recognises a case by its config and tensors alone.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { Device } from "../kernels/device.ts";
import { dcaeConfig, dcaeShapes } from "../lib/dcae/config.ts";
import { conditionEmbedding, ConditionRows, timestepFeatures } from "../lib/far/conditioning.ts";
import { countParameters, type FarConfig, farConfig, farShapes } from "../lib/far/config.ts";
import {
  eulerDelta,
  eulerSchedule,
  mixNoise,
  noiseDraw,
  trainSigmas,
  trainTimesteps,
} from "../lib/far/flow.ts";
import { riflexComponent, ropeFrequencies, ropeTable, yarnRange } from "../lib/far/rope.ts";
import { sample } from "../lib/far/sample.ts";
import { far, type FarInput } from "../lib/far/transformer.ts";
import { elements, type HostDType, toFloat32 } from "../lib/io/host.ts";
import { openPth } from "../lib/io/pth.ts";
import { axpby } from "../lib/ops.ts";
import type { Params } from "../lib/params.ts";
import { disposeAll, scope, Tensor, unscoped } from "../lib/tensor.ts";
import {
  type Differences,
  farOf,
  floats,
  type GoldenCase,
  has,
  ints,
  paramsOf,
  type Runner,
  shapeOf,
  upload,
} from "./golden_case.ts";
import { autoencoderLosses } from "./golden_losses.ts";
import { metrics } from "./golden_metrics.ts";
import { training } from "./golden_train.ts";
import { autoencoder, autoencoderTraining } from "./golden_vae.ts";

/** Conditions as a case records them. */
function conditionsOf(c: GoldenCase, frames?: number): Pick<FarInput, "actions" | "label"> {
  const label = has(c, "label") ? ints(c, "label") : undefined;
  if (!has(c, "action")) return { label };
  const all = ints(c, "action"), [B, F] = shapeOf(c, "action"), keep = frames ?? F;
  const actions = Int32Array.from({ length: B * keep }, (_, i) => all[Math.floor(i / keep) * F + i % keep]);
  return { actions, label };
}

const forward: Runner = {
  kind: "FAR forward",
  device: true,
  recognises: (c) => /^FAR(_Long)?$/.test(c.config.model ?? "") && has(c, "latents", "timestep", "out_train"),
  async run(c, device, differences) {
    const config = farOf(c), params = paramsOf(device, c, farShapes(config));
    const latents = upload(device, c, "latents"), timesteps = floats(c, "timestep");
    const [B, F, C, H, W] = latents.shape, input = { latents, timesteps, ...conditionsOf(c) };
    const evaluate = async (name: string, x: FarInput, output: "all" | "last") => {
      const out = scope(() => far(params, config, x, { output }));
      differences.check(name, await out.read(), floats(c, name), "forward");
      out.dispose();
    };
    await evaluate("out_train", input, "all");
    await evaluate("out_eval", input, "last");
    if (has(c, "out_eval_t1d")) {
      await evaluate("out_eval_t1d", { ...input, timesteps: floats(c, "timestep1d") }, "last");
    }
    if (has(c, "out_train_win")) {
      const win = config.window, frame = C * H * W;
      const tail = (x: ArrayLike<number>, per: number) =>
        Float32Array.from(
          { length: B * win * per },
          (_, i) => x[(Math.floor(i / (win * per)) * F + F - win) * per + i % (win * per)],
        );
      const shorter: FarInput = {
        latents: Tensor.from(device, tail(floats(c, "latents"), frame), [B, win, C, H, W]),
        timesteps: tail(timesteps, 1),
        ...(input.actions ? { actions: tail(input.actions, 1) } : {}),
      };
      await evaluate("out_train_win", shorter, "all");
      shorter.latents.dispose();
    }
    if (has(c, "temb") && has(c, "time_emb")) await checkEmbedding(c, device, config, params, differences);
    disposeAll([params, latents]);
  },
};

/** Condition embeddings of FAR (short), one per frame, against the recorded ones, which are repeated for each token. */
async function checkEmbedding(
  c: GoldenCase,
  device: Device,
  config: FarConfig,
  params: Params,
  differences: Differences,
): Promise<void> {
  const [B, F] = shapeOf(c, "timestep"), [, S, D] = shapeOf(c, "temb"), n = S / F, want = floats(c, "temb");
  const rows = new ConditionRows(), timesteps = floats(c, "timestep"), { actions, label } = conditionsOf(c);
  const at = Array.from(timesteps, (t, i) => rows.row(t, actions?.[i] ?? label?.[Math.floor(i / F)] ?? 0));
  const table = scope(() => conditionEmbedding(device, params, config, rows));
  const got = await table.read();
  table.dispose();
  for (let i = 0; i < B * F; i++) {
    const first = (Math.floor(i / F) * S + (i % F) * n) * D;
    differences.check(
      `temb of frame ${i}`,
      got.subarray(at[i] * D, (at[i] + 1) * D),
      want.subarray(first, first + D),
      "forward",
    );
  }
}

const rollout: Runner = {
  kind: "roll-out",
  device: true,
  recognises: (c) => /^FAR(_Long)?$/.test(c.config.model ?? "") && has(c, "init_noise", "context"),
  async run(c, device, differences) {
    const config = farOf(c), params = paramsOf(device, c, farShapes(config));
    const [B, , C, H, W] = shapeOf(c, "context"), frame = C * H * W, steps = c.config.num_inference_steps;
    const results = new Map<string, Float32Array>();
    for (const name of c.io!.tensors.keys()) {
      const match = /^full_(noctx_)?g(-?[\d.]+)_(cache|nocache)$/.exec(name);
      if (!match) continue;
      const [, noContext, guidance, mode] = match, total = shapeOf(c, name)[1];
      const given = noContext ? 0 : shapeOf(c, "context")[1], predict = total - given;
      const noiseFrames = shapeOf(c, "init_noise")[1], allNoise = floats(c, "init_noise");
      const noise = Float32Array.from(
        { length: B * predict * frame },
        (_, i) => allNoise[Math.floor(i / (predict * frame)) * noiseFrames * frame + i % (predict * frame)],
      );
      const velocities: Tensor[] = [];
      const wanted = c.io!.tensors.has(`${name}.model_out`);
      const frames = sample({
        device,
        params,
        config,
        frameShape: [B, C, H, W],
        context: noContext ? undefined : floats(c, "context"),
        predict,
        ...conditionsOf(c, total),
        steps,
        guidance: Number(guidance),
        noise,
        cache: mode === "cache",
        onVelocity: (v) => wanted && velocities.push(unscoped(() => v.reshape(v.shape))),
      });
      const got = floats(c, name).slice(), context = floats(c, "context");
      for (let b = 0; b < B; b++) {
        got.set(context.subarray(b * given * frame, (b + 1) * given * frame), b * total * frame);
      }
      for await (const { frame: f, latents } of frames) {
        for (let b = 0; b < B; b++) {
          got.set(latents.subarray(b * frame, (b + 1) * frame), (b * total + f) * frame);
        }
      }
      differences.check(name, got, floats(c, name), "rollout");
      results.set(name, got);
      if (wanted) {
        const out = floats(c, `${name}.model_out`), per = out.length / velocities.length;
        for (const [i, v] of velocities.entries()) {
          const values = await v.read(); // without a condition ours is not doubled under guidance
          differences.check(
            `${name}.model_out ${i}`,
            values,
            out.subarray(i * per, i * per + values.length),
            "rollout",
          );
        }
        disposeAll(velocities);
      }
    }
    for (const [name, got] of results) {
      const plain = results.get(name.replace(/_cache$/, "_nocache"));
      if (name.endsWith("_cache") && plain) {
        differences.check(`${name} against no cache`, got, plain, "cached");
      }
    }
    disposeAll(params);
  },
};

const scheduler: Runner = {
  kind: "schedule",
  device: true,
  recognises: (c) => c.config.scheduler_config !== undefined && has(c, "train.timesteps"),
  async run(c, device, differences) {
    differences.check("train.timesteps", trainTimesteps(), floats(c, "train.timesteps"), "exact");
    differences.check("train.sigmas", trainSigmas(), floats(c, "train.sigmas"), "exact");
    const u = floats(c, "sn.u"), latents = upload(device, c, "sn.latents"), clean = new Uint8Array(u.length);
    const draw = noiseDraw([1, u.length], { noise: floats(c, "sn.noise"), u, clean });
    const levels = Array.from(ints(c, "sn.indices"), (i) => trainSigmas()[i]);
    differences.check("sn.sigmas", draw.sigmas, levels, "exact");
    differences.check("sn.noisy", await mixNoise(latents, draw).read(), floats(c, "sn.noisy"), "table");
    for (const name of c.io!.tensors.keys()) {
      const inference = /^inf(\d+)\.(timesteps|sigmas)$/.exec(name), step = /^step(\d+)\.x$/.exec(name);
      if (inference) {
        const schedule = eulerSchedule(Number(inference[1]));
        differences.check(name, schedule[inference[2] as "timesteps" | "sigmas"], floats(c, name), "exact");
      }
      if (step) {
        const K = Number(step[1]),
          schedule = eulerSchedule(K),
          all = floats(c, name),
          v = floats(c, `step${K}.v`);
        const size = all.length / (K + 1);
        let x = Tensor.from(device, all.slice(0, size));
        for (let k = 0; k < K; k++) {
          const velocity = Tensor.from(device, v.slice(k * size, (k + 1) * size));
          x = axpby(x, velocity, 1, eulerDelta(schedule, k));
          differences.check(
            `${name} ${k + 1}`,
            await x.read(),
            all.subarray((k + 1) * size, (k + 2) * size),
            "table",
          );
        }
      }
    }
    const logit = floats(c, "density.normal").map((n) => 1 / (1 + Math.exp(-n)));
    differences.check("density.logit_normal", logit, floats(c, "density.logit_normal"), "table");
  },
};

const rope: Runner = {
  kind: "rotary tables",
  device: false,
  recognises: (c) => c.config.L_train !== undefined && has(c, "flux.ids", "apply.x"),
  run(c, _device, differences) {
    const { dim, theta, L_train: trainLength, info } = c.config;
    const extensions = {
      naive: "none",
      linear_pi: "interpolation",
      ntk: "ntk",
      riflex: "riflex",
      yarn: "yarn",
    } as const;
    for (const name of c.io!.tensors.keys()) {
      const match = /^(\w+)\.L(\d+)\.freqs$/.exec(name);
      if (!match) continue;
      const options = {
        theta,
        extension: extensions[match[1] as keyof typeof extensions],
        trainLength,
        testLength: Number(match[2]),
      };
      const frequencies = ropeFrequencies(dim, options);
      differences.check(name, frequencies, floats(c, name), "table");
      const ids = Array.from({ length: 3 * Number(match[2]) }, (_, i) => i % 3 === 0 ? i / 3 : 0);
      const { cos, sin } = ropeTable(ids, [dim, 0, 0], options), half = dim / 2;
      const twice = (x: Float32Array) =>
        Float32Array.from({ length: 2 * x.length }, (_, i) => x[Math.floor(i / 2)]);
      // RIFLEx multiplies positions and frequencies in f32: at 300 frames the angle is off by 300 * 6e-8.
      const kind = match[1] === "riflex" ? "forward" : "table";
      differences.check(
        `${match[1]}.L${match[2]}.cos`,
        twice(cos),
        floats(c, `${match[1]}.L${match[2]}.cos`),
        kind,
      );
      differences.check(
        `${match[1]}.L${match[2]}.sin`,
        twice(sin),
        floats(c, `${match[1]}.L${match[2]}.sin`),
        kind,
      );
      assertEquals(cos.length, half * Number(match[2]));
    }
    for (const [length, row] of Object.entries<Record<string, never>>(info)) {
      const recorded = row as { yarn?: { low: number; high: number }; riflex_k_1based?: number };
      if (!/^L\d+$/.test(length)) continue;
      const { low, high } = yarnRange(dim, theta, trainLength);
      assertEquals([low, high], [recorded.yarn!.low, recorded.yarn!.high]);
      assertEquals(riflexComponent(dim, theta, trainLength).k, recorded.riflex_k_1based);
    }
    for (const [key, expected] of Object.entries<[number, number]>(info.identify_k_table ?? {})) {
      const [, base, d, N] = /^theta(\d+)_dim(\d+)_N(\d+)$/.exec(key)!.map(Number);
      const { k, period } = riflexComponent(d, base, N);
      assertEquals([k, period], expected, key);
    }
    const width = shapeOf(c, "flux.cos")[1], tokens = shapeOf(c, "flux.ids")[0];
    const axes: [number, number, number] = [width / 4, width * 3 / 8, width * 3 / 8];
    const { cos, sin } = ropeTable(floats(c, "flux.ids"), axes);
    const pairs = (x: Float32Array) =>
      Float32Array.from({ length: 2 * x.length }, (_, i) => x[Math.floor(i / 2)]);
    differences.check("flux.cos", pairs(cos), floats(c, "flux.cos"), "table");
    differences.check("flux.sin", pairs(sin), floats(c, "flux.sin"), "table");
    const x = floats(c, "apply.x"), half = width / 2;
    const y = x.map((v, i) => {
      const at = Math.floor(i / width) % tokens * half + Math.floor(i % width / 2), other = x[i ^ 1];
      return i % 2 === 0 ? v * cos[at] - other * sin[at] : v * cos[at] + other * sin[at];
    });
    differences.check("apply.y", y, floats(c, "apply.y"), "table");
    differences.check("tproj.y", timestepFeatures(floats(c, "tproj.t")), floats(c, "tproj.y"), "table");
  },
};

const checkpoints: Runner = {
  kind: "checkpoint names and shapes",
  device: false,
  recognises: (c) => c.config.param_counts !== undefined,
  run(c) {
    let seen = 0;
    for (const entry of Deno.readDirSync(c.folder)) {
      if (entry.name === "summary.json" || entry.name === "config.json") continue;
      const record = JSON.parse(Deno.readTextFileSync(`${c.folder}/${entry.name}`));
      const autoencoder = record.config._class_name !== undefined ||
        record.config.latent_channels !== undefined;
      const shapes = autoencoder
        ? dcaeShapes(dcaeConfig(record.config))
        : farShapes(farConfig(record.config.type, record.config.config));
      const expected = Object.fromEntries(
        Object.entries<{ shape: number[] }>(record.state_dict).map(([name, t]) => [name, t.shape]),
      );
      assertEquals(
        Object.fromEntries(Object.entries(shapes).map(([n, s]) => [n, [...s]])),
        expected,
        entry.name,
      );
      assertEquals(countParameters(shapes), record.n_params, entry.name);
      seen++;
    }
    assertEquals(seen, Object.keys(c.config.param_counts).length);
  },
};

interface RecordedTensor {
  readonly dtype: string;
  readonly shape: number[];
  readonly first8: number[];
  readonly sum_f64: number;
}

const pth: Runner = {
  kind: "torch.save files",
  device: false,
  recognises: (c) => Object.keys(c.config).some((name) => name.endsWith(".pth")),
  run(c, _device, differences) {
    for (const [name, record] of Object.entries<{ tensors: Record<string, RecordedTensor> }>(c.config)) {
      using file = openPth(`${c.folder}/${name}`);
      assertEquals([...file.tensors.keys()].sort(), Object.keys(record.tensors).sort(), name);
      for (const [key, want] of Object.entries(record.tensors)) {
        const tensor = file.read(key);
        const plain = /^B?F16$/.test(tensor.dtype) ? toFloat32(tensor) : elements(tensor);
        const values = Float64Array.from(plain as ArrayLike<number>, Number);
        assertEquals([...tensor.shape], want.shape, `${name}: ${key}`);
        assertEquals(TORCH_DTYPES[tensor.dtype], want.dtype, `${name}: ${key}`);
        differences.check(`${name}: ${key}`, values.subarray(0, 8), want.first8, "exact");
        // The recorded sum was added in another order.
        differences.check(
          `${name}: sum of ${key}`,
          [values.reduce((a, b) => a + b, 0)],
          [want.sum_f64],
          "table",
        );
      }
    }
  },
};

const TORCH_DTYPES: Readonly<Partial<Record<HostDType, string>>> = {
  F32: "torch.float32",
  F16: "torch.float16",
  BF16: "torch.bfloat16",
  F64: "torch.float64",
  I64: "torch.int64",
  U8: "torch.uint8",
  BOOL: "torch.bool",
};

/** Every kind that is known. */
export const RUNNERS: readonly Runner[] = [
  forward,
  rollout,
  autoencoderLosses,
  autoencoderTraining,
  autoencoder,
  scheduler,
  rope,
  checkpoints,
  pth,
  training,
  metrics,
];
