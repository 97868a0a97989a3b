/**
 * `far.ts info`: what a model is made of and what it costs at a context length.
 *
 * @module
 */
import { DCAE_MODELS } from "../lib/dcae/config.ts";
import { printable } from "../lib/io/errors.ts";
import { dcaeFacts, drawFacts, type Facts, farFacts } from "../lib/pipeline/facts.ts";
import { resolveFar } from "../lib/pipeline/models.ts";
import { choice, integer, path, real, toggle, type Values, verb } from "./args.ts";
import { printJson } from "./report.ts";

const flags = {
  ctx: integer("context frames", { default: 144, min: 0, max: 100_000 }),
  steps: integer("Euler steps per frame", { default: 50, min: 1, max: 1000 }),
  guidance: real("classifier-free guidance; above 1 doubles cache and arithmetic", { default: 1, min: -1 }),
  latent: integer("latent height and width", { default: 8, min: 1, max: 512 }),
  size: integer("frame height and width of an autoencoder, in pixels", { default: 64, min: 8, max: 4096 }),
  "action-classes": integer("actions that the model knows", { min: 1, max: 65536 }),
  window: integer("frames of the short-term window (FAR-Long)", { min: 1, max: 4096 }),
  dtype: choice(["f32", "f16"], "how weights are stored", { default: "f32" }),
  draw: path("folder for drawings of the mask, the token budget and the cache, each as SVG and PNG"),
  json: toggle("print everything as one JSON object"),
};
type InfoFlags = Values<typeof flags>;

async function infoFar(model: string, f: InfoFlags): Promise<Facts> {
  const more: Record<string, unknown> = {}, classes = f["action-classes"];
  if (f.window !== undefined) more.short_term_ctx_winsize = f.window;
  if (classes !== undefined) more.condition_cfg = { type: "action", num_action_classes: classes };
  const config = resolveFar(model, more), use = { ...f, context: f.ctx };
  const { values, lines } = await farFacts(model, config, use);
  if (f.draw === undefined) return { values, lines };
  await drawFacts(f.draw, model.replace(/^.*[/\\]/, ""), config, use);
  return { values, lines: [...lines, `wrote mask, tokens and cache as .svg and .png into ${f.draw}`] };
}

/** `far.ts info`. */
export const infoVerb = verb({
  name: "info",
  summary: "Show a model's parameters, tokens, arithmetic, memory and cache at a context length",
  operands: [{
    name: "MODEL",
    help: "FAR_B, FAR_M, FAR_L, FAR_XL, FAR_B_Long, FAR_M_Long, 8x, 16x, 32x, or a JSON file",
  }],
  flags,
  examples: [
    { does: "the long model with 144 frames of context", line: "info FAR_B_Long --ctx 144" },
    { does: "with drawings", line: "info FAR_B_Long --ctx 144 --draw out/info" },
    { does: "an autoencoder", line: "info 8x --size 64" },
  ],
  run: async ({ flags: f, operands: [model] }) => {
    const dcae = DCAE_MODELS[model];
    const { values, lines } = dcae ? dcaeFacts(model, dcae, f.size, f.dtype) : await infoFar(model, f);
    if (f.json) return printJson(values, 2);
    for (const line of lines) console.log(printable(line));
  },
});
