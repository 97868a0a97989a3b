/**
 * A picture of attention over frames.
 *
 * @module
 */
import { html, raw } from "./html.ts";
import type { MediaBundle } from "./showing.ts";

/** Attention to display: the shares of each head of each block, `[layers, heads, frames]`. */
export interface ShownAttention {
  readonly layers: number;
  readonly heads: number;
  readonly frames: number;
  readonly shares: Float32Array;
}

const CELL = 10, LEFT = 64, WIDTH = 720;

/**
 * An SVG of blocks and heads by frames; the darker, the larger a frame's share (its square root, so that small ones show).
 *
 * @param marked Frames with a mark above them, such as those that show the same place.
 */
export function attentionPicture(map: ShownAttention, marked: readonly number[] = []): string {
  const { layers, heads, frames, shares } = map, rows = layers * heads;
  const top = 30, width = (WIDTH - LEFT) / frames, height = top + rows * CELL + layers * 4 + 22;
  const parts: string[] = [];
  const x = (frame: number) => (LEFT + frame * width).toFixed(2);
  for (let layer = 0; layer < layers; layer++) {
    const from = top + layer * (heads * CELL + 4);
    parts.push(`<text x="4" y="${from + heads * CELL / 2 + 4}">block ${layer}</text>`);
    for (let head = 0; head < heads; head++) {
      for (let f = 0; f < frames; f++) {
        const share = shares[(layer * heads + head) * frames + f];
        if (share < 0.002) continue;
        const y = from + head * CELL, ink = Math.sqrt(share).toFixed(2);
        parts.push(
          `<rect x="${x(f)}" y="${y}" width="${width.toFixed(2)}" height="${CELL - 1}" opacity="${ink}"/>`,
        );
      }
    }
  }
  for (const f of marked) {
    parts.push(`<rect x="${x(f)}" y="${top - 8}" width="${width.toFixed(2)}" height="5" fill="#d55e00"/>`);
  }
  const axis = top + layers * (heads * CELL + 4) + 14, ends = [0, Math.floor(frames / 2), frames - 1];
  for (const f of ends) parts.push(`<text x="${x(f)}" y="${axis}" text-anchor="middle">${f}</text>`);
  const title = marked.length > 0
    ? "share of attention per frame; orange: the same place"
    : "share of attention per frame";
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH + 16} ${height}" width="${
    WIDTH + 16
  }" ` +
    `height="${height}" font-family="sans-serif" font-size="11" fill="#0072b2" role="img" aria-label="${title}">` +
    `<rect width="100%" height="100%" fill="white"/><text x="${LEFT}" y="14" fill="#333">${title}</text>` +
    `${parts.join("").replaceAll("<text ", '<text fill="#333" ')}</svg>`;
}

/** How a notebook shows attention. */
export function attentionBundle(map: ShownAttention): MediaBundle {
  const { layers, heads, frames } = map,
    text = `attention of ${layers} blocks of ${heads} heads over ${frames} frames`;
  return { "text/html": html`<div>${raw(attentionPicture(map))}</div>`.text, "text/plain": text };
}
