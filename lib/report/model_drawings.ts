/**
 * Drawings of a model at a context length: the attention mask, the token budget, the levels of the cache.
 *
 * @module
 */
import type { FarConfig } from "../far/config.ts";
import { longTermFrames, tokensPerFrame } from "../far/layout.ts";
import { frameCausalMask } from "../far/mask.ts";
import type { Colour } from "../io/font.ts";
import type { Drawing, Label, Line, Rect } from "./drawing.ts";
import { textWidth } from "./drawing.ts";

const LONG_TERM: Colour = [235, 150, 60],
  SHORT_TERM: Colour = [70, 130, 200],
  NOISY: Colour = [200, 60, 90],
  HIDDEN: Colour = [232, 232, 232];
const GRID: Colour = [200, 200, 200], UNIFORM: Colour = [170, 170, 170];

/** Subject of a drawing: a clip of `frames` frames, the noisy one last, with latents of `height` by `width`. */
export interface Subject {
  readonly name: string;
  readonly config: FarConfig;
  readonly frames: number;
  readonly height: number;
  readonly width: number;
}

const legend = (
  entries: readonly (readonly [Colour, string])[],
  x: number,
  y: number,
): { rects: Rect[]; labels: Label[] } => {
  const rects: Rect[] = [], labels: Label[] = [];
  for (const [colour, text] of entries) {
    rects.push({ x, y, width: 8, height: 8, colour });
    labels.push({ x: x + 12, y, text });
    x += 12 + textWidth(text) + 16;
  }
  return { rects, labels };
};

/** Drawing of the keys that each token sees; sides are as long as frames have tokens. */
export function maskDrawing(s: Subject): Drawing {
  const perFrame = tokensPerFrame(s.config, s.height, s.width), outside = longTermFrames(s.config, s.frames);
  const longTerm = { frames: outside, tokens: perFrame.longTerm }, first = outside * perFrame.longTerm;
  const { ranges } = frameCausalMask({ frames: s.frames - outside, tokens: perFrame.shortTerm, longTerm });
  const tokens = ranges.length / 4, side = 420, left = 24, top = 40, unit = side / tokens;
  const rects: Rect[] = [{ x: left, y: top, width: side, height: side, colour: HIDDEN }];
  for (let row = 0; row < tokens; row += row < first ? perFrame.longTerm : perFrame.shortTerm) {
    const rows = row < first ? perFrame.longTerm : perFrame.shortTerm, noisy = row === tokens - rows;
    const [a, b, c, d] = ranges.subarray(4 * row, 4 * row + 4);
    for (const [from, to] of [[a, b], [c, d]]) {
      if (to <= from) continue;
      rects.push({
        x: left + from * unit,
        y: top + row * unit,
        width: (to - from) * unit,
        height: rows * unit,
        colour: noisy ? NOISY : from < first ? LONG_TERM : SHORT_TERM,
      });
    }
  }
  const entries: (readonly [Colour, string])[] = [[SHORT_TERM, "short-term keys"], [
    NOISY,
    "seen by the noisy frame",
  ], [
    HIDDEN,
    "hidden",
  ]];
  if (first > 0) entries.unshift([LONG_TERM, "long-term keys"]);
  const below = legend(entries, left, top + side + 14);
  return {
    title: `Frame-causal mask of ${s.name}, ${s.frames} frames`,
    width: side + 2 * left,
    height: top + side + 34,
    rects: [...rects, ...below.rects],
    lines: [],
    labels: [
      { x: left, y: 8, text: `${s.name}: frame-causal mask, ${s.frames} frames, ${tokens} tokens` },
      { x: left, y: 24, text: "rows: queries, columns: keys, long-term frames first" },
      ...below.labels,
    ],
  };
}

/** Tokens of a clip of `frames` frames. */
export function tokensOf(config: FarConfig, frames: number, height: number, width: number): number {
  const tokens = tokensPerFrame(config, height, width), outside = longTermFrames(config, frames);
  return outside * tokens.longTerm + (frames - outside) * tokens.shortTerm;
}

/** Tokens over frames, beside those of a uniform patch size (paper, Figure 6a). */
export function budgetDrawing(s: Subject): Drawing {
  const left = 60, top = 40, width = 420, height = 260;
  const most = Math.max(s.frames, 2), uniform = { ...s.config, long: false };
  const limit = tokensOf(uniform, most, s.height, s.width);
  const place = (frames: number, tokens: number): readonly [number, number] => [
    left + width * frames / most,
    top + height - height * tokens / limit,
  ];
  const curve = (config: FarConfig, colour: Colour): Line => ({
    points: Array.from({ length: most }, (_, i) => place(i + 1, tokensOf(config, i + 1, s.height, s.width))),
    colour,
  });
  const steps = [0, 0.25, 0.5, 0.75, 1];
  const rects: Rect[] = steps.map((share) => ({
    x: left,
    y: top + height * (1 - share),
    width,
    height: 0.5,
    colour: GRID,
  }));
  const labels: Label[] = steps.flatMap((share) => {
    const tokens = String(Math.round(limit * share)), frames = String(Math.round(most * share));
    return [
      { x: left - 6 - textWidth(tokens), y: top + height * (1 - share) - 4, text: tokens },
      { x: left + width * share - textWidth(frames) / 2, y: top + height + 6, text: frames },
    ];
  });
  const own = tokensOf(s.config, most, s.height, s.width);
  const entries: (readonly [Colour, string])[] = s.config.long
    ? [[SHORT_TERM, `${s.name}: ${own} tokens`], [UNIFORM, `one patch size: ${limit} tokens`]]
    : [[SHORT_TERM, `${s.name}: ${own} tokens`]];
  const below = legend(entries, left, top + height + 24);
  return {
    title: `Token budget of ${s.name}`,
    width: left + width + 24,
    height: top + height + 44,
    rects: [...rects, ...below.rects],
    lines: s.config.long
      ? [curve(uniform, UNIFORM), curve(s.config, SHORT_TERM)]
      : [curve(s.config, SHORT_TERM)],
    labels: [{ x: left, y: 8, text: `${s.name}: tokens over frames` }, ...labels, ...below.labels],
  };
}

/** One bar per frame, as high as its tokens: what lies in L2, what in L1, and the frame being denoised. */
export function cacheDrawing(s: Subject): Drawing {
  const { shortTerm, longTerm } = tokensPerFrame(s.config, s.height, s.width);
  const outside = longTermFrames(s.config, s.frames);
  const left = 24, top = 40, width = 480, height = 160, step = width / s.frames;
  const rects: Rect[] = Array.from({ length: s.frames }, (_, f) => {
    const tokens = f < outside ? longTerm : shortTerm, tall = Math.max(1, height * tokens / shortTerm);
    return {
      x: left + f * step,
      y: top + height - tall,
      width: Math.max(0.5, step * 0.85),
      height: tall,
      colour: f === s.frames - 1 ? NOISY : f < outside ? LONG_TERM : SHORT_TERM,
    };
  });
  const window = s.frames - 1 - outside;
  const entries: (readonly [Colour, string])[] = [
    [SHORT_TERM, `L1: ${window} x ${shortTerm}`],
    [NOISY, `noisy: ${shortTerm}`],
  ];
  if (outside > 0) entries.unshift([LONG_TERM, `L2: ${outside} x ${longTerm}`]);
  const below = legend(entries, left, top + height + 26);
  return {
    title: `Cache levels of ${s.name}, ${s.frames} frames`,
    width: width + 2 * left,
    height: top + height + 46,
    rects: [...rects, ...below.rects],
    lines: [],
    labels: [
      { x: left, y: 8, text: `${s.name}: cached tokens of each frame` },
      { x: left, y: top + height + 6, text: "frame 0" },
      {
        x: left + width - textWidth(`frame ${s.frames - 1}`),
        y: top + height + 6,
        text: `frame ${s.frames - 1}`,
      },
      ...below.labels,
    ],
  };
}
