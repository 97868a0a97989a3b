/**
 * The transformer of FAR and FAR-Long: one file family for short and long, cached and uncached.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import {
  attention,
  copyStrided,
  gateAdd,
  linear,
  linearQkv,
  normModulate,
  rotary,
  type Visibility,
} from "../ops.ts";
import { layerOf, param, type Params } from "../params.ts";
import { scope, Tensor, unscoped } from "../tensor.ts";
import { checkpoint } from "../autograd.ts";
import type { Modulation } from "./conditioning.ts";
import { type FarConfig, widthOf } from "./config.ts";
import { lastFrameTokens, type Layout, type Part, visibleTable } from "./layout.ts";

/** Keys (rotated) and values of every block, `[S, D]` each. */
export interface KeyStore {
  /** Keys of each block. */
  readonly k: readonly Tensor[];
  /** Values of each block. */
  readonly v: readonly Tensor[];
}

/** A key store for `rows` keys. It lives until {@linkcode freeKeyStore}, whatever scope it is made in. */
export function makeKeyStore(device: Device, config: FarConfig, rows: number): KeyStore {
  const make = () =>
    Array.from({ length: config.layers }, () => Tensor.empty(device, [rows, widthOf(config)]));
  return unscoped(() => ({ k: make(), v: make() }));
}

/** Gives a key store's memory back. */
export function freeKeyStore(store: KeyStore): void {
  for (const t of [...store.k, ...store.v]) t.dispose();
}

/** A layout on the device. */
export interface DeviceLayout {
  readonly layout: Layout;
  /** `[T, headDim]`: cosines of each token's angles, then their sines. */
  readonly angles: Tensor;
  readonly dest: Tensor;
  readonly visible: Visibility;
  /** The same for the last frame's tokens, where they are not all and the last block is to compute only them. */
  readonly lastVisible?: Visibility;
}

/**
 * Uploads a layout.
 *
 * @param frames Which tokens the last block computes, as {@linkcode TransformerCall} will say.
 * @param keyFrames Absolute frame of each key row, for a temporal decay only.
 */
export function uploadLayout(
  device: Device,
  config: FarConfig,
  layout: Layout,
  frames: TransformerCall["frames"],
  keyFrames?: Int32Array,
): DeviceLayout {
  const T = layout.tokens, half = config.headDim / 2, slope = config.slopeScale;
  const angles = new Float32Array(2 * T * half);
  for (let t = 0; t < T; t++) {
    angles.set(layout.cos.subarray(t * half, (t + 1) * half), 2 * t * half);
    angles.set(layout.sin.subarray(t * half, (t + 1) * half), (2 * t + 1) * half);
  }
  const visible = (asking?: Int32Array): Visibility => {
    const table = visibleTable(layout, slope === 0 ? undefined : keyFrames, asking);
    return { table: Tensor.from(device, table), keys: layout.keys, slope };
  };
  const last = lastFrameTokens(layout);
  return {
    layout,
    angles: Tensor.from(device, angles, [T, 2 * half]),
    dest: Tensor.from(device, layout.dest),
    visible: visible(),
    ...(frames === "last" && last.length < T ? { lastVisible: visible(last) } : {}),
  };
}

/** Names of the projections of one kind of token. Distant frames of FAR-Long have their own. */
const PROJECTIONS = {
  window: { qkv: ["to_q", "to_k", "to_v"], norms: ["norm_q", "norm_k"], out: "to_out.0" },
  context: {
    qkv: ["add_q_proj", "add_k_proj", "add_v_proj"],
    norms: ["norm_added_q", "norm_added_k"],
    out: "to_add_out",
  },
} as const;

/** Token embeddings: packed patches of each part to `[T, D]`. */
export function embedTokens(
  params: Params,
  config: FarConfig,
  layout: Layout,
  patches: Partial<Record<Part["kind"], Tensor>>,
): Tensor {
  const device = param(params, "x_embedder.weight").device;
  const out = Tensor.empty(device, [layout.tokens, widthOf(config)]);
  for (const part of layout.parts) {
    const { w, bias } = layerOf(params, part.kind === "context" ? "context_embedder" : "x_embedder");
    linear(patches[part.kind]!, w, { bias, rows: { y: part.row, count: part.count }, out });
  }
  return out;
}

/** The last frame's rows of a part-by-part tensor `[T, …]`: `[B·N, …]`. Itself when there is nothing else. */
export function lastFrameRows(x: Tensor, layout: Layout, clips: number): Tensor {
  const part = layout.parts.at(-1)!, n = part.perFrame, width = x.size / layout.tokens;
  if (layout.tokens === clips * n) return x;
  const clipRows = part.count / clips;
  const y = Tensor.empty(x.device, [clips * n, ...x.shape.slice(1)], x.dtype);
  copyStrided(x, y, {
    sizes: [clips, n * width],
    from: [clipRows * width, 1],
    to: [n * width, 1],
    fromAt: (part.row + clipRows - n) * width,
  });
  return y;
}

/** What {@linkcode transformer} is told besides its tokens. */
export interface TransformerCall {
  readonly layout: DeviceLayout;
  readonly modulation: Modulation;
  /** `[T]` i32: modulation row of each token. */
  readonly rows: Tensor;
  /** Where keys and values stay between calls; without it they last for one block. */
  readonly store?: KeyStore;
  /** Rows of keys when there is no store. */
  readonly keyRows: number;
  /** Under a gradient: keep only each block's input and compute the block again on the way back. */
  readonly checkpoint?: boolean;
  readonly clips: number;
  /** `last`: only the last frame's tokens leave the last block, which then computes no others (inference). */
  readonly frames: "all" | "last";
}

/**
 * All blocks (paper, section 3.1; pre-norm, adaLN with gates): tokens `[T, D]` to hidden states, `[T, D]` or `[B·N, D]`
 * of the last frame, followed by the modulated output norm. Keys and values go into the store.
 */
export function transformer(
  params: Params,
  config: FarConfig,
  tokens: Tensor,
  call: TransformerCall,
): Tensor {
  const D = widthOf(config);
  let x = tokens, rows = call.rows;
  for (let i = 0; i < config.layers; i++) {
    const input = x;
    if (call.checkpoint) {
      x = checkpoint(() => block(params, config, input, rows, call, i)[0], [input, { ...call }]);
    } else [x, rows] = scope(() => block(params, config, input, rows, call, i));
  }
  return normModulate(x, call.modulation.output, rows, { shift: D, scale: 0 });
}

/** Block i: tokens `[T, D]` to tokens, and the modulation rows of those that are left. */
function block(
  params: Params,
  config: FarConfig,
  tokens: Tensor,
  tokenRows: Tensor,
  call: TransformerCall,
  i: number,
): [Tensor, Tensor] {
  const D = widthOf(config), last = i === config.layers - 1, name = `transformer_blocks.${i}`;
  const { layout } = call.layout, { clips } = call;
  const { attention: mod1, mlp: mod2 } = call.modulation.blocks[i];
  let x = tokens, rows = tokenRows, parts = layout.parts, { visible } = call.layout;

  const h = normModulate(x, mod1, rows, { shift: 0, scale: D });
  const qkv = Tensor.empty(x.device, [layout.tokens, 3 * D]);
  let q = Tensor.empty(x.device, [layout.tokens, D]);
  const [k, v] = ["k", "v"].map((n) =>
    call.store?.[n as "k" | "v"][i] ?? Tensor.empty(x.device, [call.keyRows, D])
  );
  for (const part of parts) {
    const names = PROJECTIONS[part.kind], at = { start: part.row, count: part.count };
    const [wq, wk, wv] = names.qkv.map((n) => layerOf(params, `${name}.attn.${n}`));
    linearQkv(h, [wq.w, wk.w, wv.w], [wq.bias, wk.bias, wv.bias], at, qkv);
    const [normQ, normK] = names.norms.map((n) => param(params, `${name}.attn.${n}.weight`));
    rotary(qkv, normQ, normK, { ...call.layout, q, k, v }, at);
  }
  if (call.frames === "last" && last) {
    // Keys and values of all tokens are in the store; from here on only the last frame is wanted.
    const part = parts.at(-1)!, pick = (t: Tensor) => lastFrameRows(t, layout, clips);
    x = pick(x);
    q = pick(q);
    rows = pick(rows);
    visible = call.layout.lastVisible ?? visible;
    parts = [{ ...part, row: 0, count: clips * part.perFrame }];
  }
  const attended = attention(q, k, v, config.headDim, visible);
  const gate = { modulation: mod1, rows, col: 2 * D }, after = Tensor.empty(x.device, x.shape);
  for (const part of parts) {
    if (part.kind === "context" && last) {
      gateAdd(attended, gate, x, { start: part.row, count: part.count }, after); // this block has no to_add_out
    } else {
      const { w, bias } = layerOf(params, `${name}.attn.${PROJECTIONS[part.kind].out}`);
      const at = { x: part.row, y: part.row, count: part.count };
      linear(attended, w, { bias, gate, residual: x, rows: at, out: after });
    }
  }
  const up = layerOf(params, `${name}.mlp.net.0.proj`), down = layerOf(params, `${name}.mlp.net.2`);
  const h2 = normModulate(after, mod2, rows, { shift: 0, scale: D });
  const wide = linear(h2, up.w, { bias: up.bias, act: "gelu" }); // [T, 4D]
  const out = linear(wide, down.w, { bias: down.bias, gate: { ...gate, modulation: mod2 }, residual: after });
  return [out, rows];
}
