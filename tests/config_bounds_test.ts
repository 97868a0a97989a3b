import { assert, assertEquals, assertThrows } from "@std/assert";
import { DCAE_MODELS, dcaeConfig } from "../lib/dcae/config.ts";
import { FAR_MODELS, farConfig } from "../lib/far/config.ts";
import { far, inFolder, TINY_DCAE, TINY_FAR, tinyWorld } from "./cli_helpers.ts";

/** Bounds are there so that nothing is built, counted or allocated first: an unbounded size would hang this test. */
const LARGE = [100_000_000, 1e15, 2 ** 53, 1e308, Infinity];

Deno.test("every size of a FAR has bounds, and the message says which key, what was expected and what was found", () => {
  const sizes = [
    ...[
      "patch_size",
      "context_patch_size",
      "in_channels",
      "out_channels",
      "num_layers",
      "num_attention_heads",
    ],
    ...["attention_head_dim", "short_term_ctx_winsize"],
  ];
  for (const key of sizes) {
    for (const value of [...LARGE, 0, -1, 1.5, -Infinity]) {
      assertThrows(
        () => farConfig("FAR_Long", { ...TINY_FAR.config, [key]: value }),
        RangeError,
        `farConfig: FAR_Long: ${key} is ${value}, expected a whole number from 1 to `,
      );
    }
    for (const value of ["12", null, [12], true, NaN, {}]) {
      assertThrows(() => farConfig("FAR", { [key]: value }), TypeError, `${key} is `);
    }
  }
  for (const type of ["label", "action"] as const) {
    const key = type === "label" ? "num_classes" : "num_action_classes";
    for (const value of [...LARGE, 0, -1, 2.5]) {
      assertThrows(
        () => farConfig("FAR", { condition_cfg: { type, [key]: value } }),
        RangeError,
        `condition_cfg.${key} is ${value}, expected a whole number from 1 to 1000000`,
      );
    }
  }
});

Deno.test("sizes of a FAR that make no sense together are refused", () => {
  const cases: [Record<string, unknown>, string][] = [
    [{ axes_dims_rope: [-8, 20, 20] }, "axes_dims_rope is -8, expected a whole number from 0 to 1024"],
    [{ axes_dims_rope: [9, 11, 12] }, "expected even numbers"],
    [{ axes_dims_rope: [8, 12] }, "expected three numbers"],
    [{ attention_head_dim: 48 }, "axes_dims_rope sum to 32, expected attention_head_dim 48"],
    [
      { attention_head_dim: 1024, axes_dims_rope: [0, 0, 1024], num_attention_heads: 1024 },
      "expected at most 65536",
    ],
    [
      { num_layers: 1024, attention_head_dim: 64, axes_dims_rope: [0, 0, 64], num_attention_heads: 1024 },
      "parameters",
    ],
    [{ out_channels: 8 }, "out_channels is 8, expected in_channels 4"],
    [{ patch_size: 3 }, "context_patch_size is 2, expected a multiple of patch_size 3"],
    [{ slope_scale: 1e300 }, "slope_scale is 1e+300"],
    [{ condition_cfg: "label" }, 'condition_cfg is "label", expected a mapping'],
    [
      { condition_cfg: { type: "label", num_classes: 3 } },
      "FAR-Long is conditioned on actions or on nothing",
    ],
    [{ condition_cfg: { type: "action", num_action_classes: 3, num_classes: 3 } }, "does not go with type"],
    [{ constructor: 1 }, "unknown key constructor"],
    [{ toString: 1 }, "unknown key toString"],
  ];
  for (const [wrong, message] of cases) {
    assertThrows(() => farConfig("FAR_Long", { ...TINY_FAR.config, ...wrong }), Error, message);
  }
  assertThrows(() => farConfig("constructor"), TypeError, "unknown key constructor");
  for (const name of Object.keys(FAR_MODELS)) assert(farConfig(name).layers > 0);
  assertEquals(farConfig("FAR_Long", TINY_FAR.config).condition, { type: "action", classes: 3 });
});

Deno.test("every size of a DC-AE has bounds, and its stages have to fit each other", () => {
  const change = (more: Record<string, unknown>) => () => dcaeConfig({ ...TINY_DCAE, ...more });
  for (const value of [...LARGE, 0, -1, 1.5, NaN, "8", null]) {
    for (const key of ["in_channels", "latent_channels", "attention_head_dim"]) {
      assertThrows(change({ [key]: value }), TypeError, `dcaeConfig: ${key} is `);
    }
    for (const side of ["encoder", "decoder"]) {
      assertThrows(
        change({ [`${side}_block_out_channels`]: [8, value, 16] }),
        TypeError,
        "whole numbers from 1 to 16384",
      );
      if (value === 0) continue; // the finest stage may be empty
      assertThrows(
        change({ [`${side}_layers_per_block`]: [value, 1, 1] }),
        TypeError,
        "whole numbers from 0 to 256",
      );
      if (value === null) continue;
      assertThrows(
        change({ [`${side}_qkv_multiscales`]: [[], [], [value === 1.5 ? 4 : value]] }),
        TypeError,
        "odd numbers",
      );
    }
  }
  const many = (value: unknown) => Array(11).fill(value);
  const cases: [Record<string, unknown>, string][] = [
    [{ scaling_factor: 0 }, "scaling_factor is 0, expected a number above 0"],
    [{ scaling_factor: Infinity }, "scaling_factor is Infinity, expected a number above 0"],
    [{ encoder_block_out_channels: [] }, "has 0 stages, expected 2 to 10"],
    [{ encoder_block_out_channels: [8] }, "has 1 stages, expected 2 to 10"],
    [
      { encoder_block_out_channels: many(8), encoder_layers_per_block: many(1) },
      "has 11 stages, expected 2 to 10",
    ],
    [{ encoder_layers_per_block: [0, 0, 1] }, "encoder_layers_per_block has 0 at stage 1"],
    [{ decoder_layers_per_block: [1, 1, 1] }, "other numbers of resolutions"],
    [{ attention_head_dim: 17 }, "attention_head_dim is 17, expected at most the 16 channels"],
    [{ latent_channels: 5 }, "latent_channels is 5, expected a divisor of the encoder's 16 channels"],
    [{ encoder_block_out_channels: [8, 18, 16] }, "has 18, expected multiples of 4"],
    [
      {
        encoder_block_out_channels: [16384, 16384, 16384],
        encoder_layers_per_block: [0, 256, 256],
      },
      "parameters, expected at most 68719476736",
    ],
    [{ constructor: 1 }, "unknown key constructor"],
  ];
  for (const [wrong, message] of cases) assertThrows(change(wrong), Error, message);
  const short = [
    "block_out_channels",
    "block_types",
    "layers_per_block",
    "qkv_multiscales",
    "norm_types",
    "act_fns",
  ];
  const cut = short.map((key) => {
    const list = TINY_DCAE[`decoder_${key}` as keyof typeof TINY_DCAE] as unknown[];
    return [`decoder_${key}`, list.slice(1)];
  });
  assertThrows(
    change({ ...Object.fromEntries(cut), decoder_layers_per_block: [0, 1] }),
    RangeError,
    "has 2 stages, expected as many",
  );
  assertEquals(change({})().encoder.length, 3);
  assert(Object.keys(DCAE_MODELS).length === 3);
});

Deno.test("a configuration of a hundred million layers is refused on the command line, in one line", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/huge.json`;
    Deno.writeTextFileSync(path, JSON.stringify({ type: "FAR", config: { num_layers: 100_000_000 } }));
    for (
      const args of [["info", path], ["predict", ...(await tinyWorld(folder)), "--model", path]]
    ) {
      const { code, stderr } = await far(args);
      assertEquals(code, 1, stderr);
      assertEquals(stderr.trim().split("\n").length, 1, stderr);
      assert(stderr.includes("num_layers is 100000000, expected a whole number from 1 to 1024"), stderr);
    }
  });
});
