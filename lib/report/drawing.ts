/**
 * Simple drawings that are written as SVG and as PNG from one description.
 *
 * @module
 */
import { CELL, type Colour, drawText } from "../io/font.ts";
import { type Frames, makeFrames } from "../io/frames.ts";

/** A filled rectangle. */
export interface Rect {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly colour: Colour;
}

/** A line of text whose left end and top are given. */
export interface Label {
  readonly x: number;
  readonly y: number;
  readonly text: string;
  readonly colour?: Colour;
}

/** A polyline. */
export interface Line {
  readonly points: readonly (readonly [number, number])[];
  readonly colour: Colour;
}

/** A drawing on white, in pixels from the upper left corner. */
export interface Drawing {
  readonly title: string;
  readonly width: number;
  readonly height: number;
  readonly rects: readonly Rect[];
  readonly lines: readonly Line[];
  readonly labels: readonly Label[];
}

/** Letters of both kinds are this high. */
export const TEXT_HEIGHT: number = CELL.height;
/** Width of a text in the drawing. */
export const textWidth = (text: string): number => text.length * CELL.width;

const INK: Colour = [40, 40, 40];
const css = ([r, g, b]: Colour) => `rgb(${r},${g},${b})`;
const escape = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const at = (value: number) => String(Math.round(value * 100) / 100);

/** The drawing as an SVG document. */
export function toSvg(d: Drawing): string {
  const rects = d.rects.map((r) =>
    `<rect x="${at(r.x)}" y="${at(r.y)}" width="${at(r.width)}" height="${at(r.height)}" fill="${
      css(r.colour)
    }"/>`
  );
  const lines = d.lines.map((l) =>
    `<polyline points="${l.points.map(([x, y]) => `${at(x)},${at(y)}`).join(" ")}" fill="none" stroke="${
      css(l.colour)
    }" stroke-width="2"/>`
  );
  const labels = d.labels.map((l) =>
    `<text x="${at(l.x)}" y="${at(l.y + TEXT_HEIGHT - 1)}" textLength="${
      at(textWidth(l.text))
    }" lengthAdjust="spacingAndGlyphs" fill="${css(l.colour ?? INK)}">${escape(l.text)}</text>`
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${d.width} ${d.height}" width="${d.width}" height="${d.height}" ` +
    `font-family="monospace" font-size="10">`,
    `<title>${escape(d.title)}</title>`,
    `<rect width="${d.width}" height="${d.height}" fill="white"/>`,
    ...rects,
    ...lines,
    ...labels,
    "</svg>\n",
  ].join("\n");
}

/** The drawing as one picture, `scale` pixels a unit. */
export function toPixels(d: Drawing, scale = 2): Frames {
  const out = makeFrames(1, Math.ceil(d.height * scale), Math.ceil(d.width * scale));
  out.data.fill(255);
  const fill = (x0: number, y0: number, x1: number, y1: number, colour: Colour) => {
    for (let y = Math.max(0, y0); y < Math.min(out.height, y1); y++) {
      for (let x = Math.max(0, x0); x < Math.min(out.width, x1); x++) {
        out.data.set(colour, (y * out.width + x) * 3);
      }
    }
  };
  for (const r of d.rects) {
    const [x, y] = [Math.round(r.x * scale), Math.round(r.y * scale)];
    // A thin rectangle is still seen.
    const right = Math.max(x + 1, Math.round((r.x + r.width) * scale));
    fill(x, y, right, Math.max(y + 1, Math.round((r.y + r.height) * scale)), r.colour);
  }
  for (const l of d.lines) {
    l.points.slice(1).forEach(([x1, y1], i) => {
      const [x0, y0] = l.points[i];
      const steps = Math.max(1, Math.ceil(Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0)) * scale));
      for (let s = 0; s <= steps; s++) {
        const x = Math.round((x0 + (x1 - x0) * s / steps) * scale),
          y = Math.round((y0 + (y1 - y0) * s / steps) * scale);
        fill(x - 1, y - 1, x + 2, y + 2, l.colour);
      }
    });
  }
  for (const l of d.labels) {
    const place = { left: Math.round(l.x * scale), top: Math.round(l.y * scale) };
    drawText(out, l.text, place, l.colour ?? INK, scale);
  }
  return out;
}
