/**
 * A 5x7 bitmap font for labels on sheets and stamps on videos, so that no output needs a font file.
 *
 * @module
 */
import { fillColour, type Frames, makeFrames } from "./frames.ts";

/** Pixels that a letter takes with the gap to the next: 5 and 1 across, 7 and 1 down. */
export const CELL: { readonly width: number; readonly height: number } = { width: 6, height: 8 };

/** Seven rows a letter from the space to the tilde, a base-32 digit a row whose highest bit is the left pixel. */
const GLYPHS = (
  "0000000 4444404 aa00000 aavavaa 4fke5u4 op248j3 cik8lid 4400000 2488842 8422248 04lel40 044v440 0000c48 000e000 " +
  "00000cc 11248gg ehjlphe 4c4444e eh1248v v2421he 26aiv22 vgu11he 68guhhe v124888 ehhehhe ehhf12c 0cc0cc0 0cc0c48 " +
  "248g842 00v0v00 8421248 eh12404 eh1dlle ehhvhhh uhhuhhu ehggghe sihhhis vgguggv vgguggg ehgnhhf hhhvhhh e44444e " +
  "72222ic hikokih ggggggv hrllhhh hhpljhh ehhhhhe uhhuggg ehhhlid uhhukih fgge11u v444444 hhhhhhe hhhhha4 hhhllla " +
  "hha4ahh hhha444 v1248gv e88888e gg84211 e22222e 4ah0000 000000v 8420000 00e1fhf ggmphhu 00egghe 11djhhf 00ehvge " +
  "698s888 0fhhf1e ggmphhh 40c444e 20622ic ggikoki c44444e 00qllhh 00mphhh 00ehhhe 00uhugg 00djf11 00mpggg 00ege1u " +
  "88s8896 00hhhjd 00hhha4 00hhlla 00ha4ah 00hhf1e 00v248v 2448442 4444444 8442448 008l200"
).split(" ");

/** Glyph drawn for a letter that the font lacks. */
const UNKNOWN = GLYPHS["?".charCodeAt(0) - 32];

/** Red, green and blue from 0 to 255. */
export type Colour = readonly [red: number, green: number, blue: number];

/**
 * Draws a line of text onto every frame, in place; what does not fit is cut off.
 *
 * @param on The frames to draw on.
 * @param text One line; letters outside ASCII become question marks.
 * @param at Left and top pixel of the first letter.
 * @param colour The letters' colour.
 * @param scale Pixels of the frame a pixel of the font.
 */
export function drawText(
  on: Frames,
  text: string,
  at: { readonly left: number; readonly top: number },
  colour: Colour = [255, 255, 255],
  scale = 1,
): void {
  [...text].forEach((letter, i) => {
    const glyph = GLYPHS[letter.charCodeAt(0) - 32] ?? UNKNOWN;
    for (let y = 0; y < 7 * scale; y++) {
      const row = parseInt(glyph[Math.floor(y / scale)], 32);
      for (let x = 0; x < 5 * scale; x++) {
        if (!(row >> (4 - Math.floor(x / scale)) & 1)) continue;
        const [top, left] = [at.top + y, at.left + i * CELL.width * scale + x];
        if (top < 0 || left < 0 || top >= on.height || left >= on.width) continue;
        for (let f = 0; f < on.frames; f++) {
          on.data.set(colour, ((f * on.height + top) * on.width + left) * 3);
        }
      }
    }
  });
}

/** Breaks text at spaces, and words that are too long anywhere, so that no line exceeds `columns` letters. */
export function wrapText(text: string, columns: number): string[] {
  const width = Math.max(1, columns);
  const lines: string[] = [];
  for (let word of text.split(/\s+/).filter((part) => part !== "")) {
    const last = lines[lines.length - 1];
    if (last !== undefined && last.length + 1 + word.length <= width) {
      lines[lines.length - 1] = `${last} ${word}`;
      continue;
    }
    for (; word.length > width; word = word.slice(width)) lines.push(word.slice(0, width));
    lines.push(word);
  }
  return lines;
}

/**
 * Frames with a strip of text below them, which hides nothing of the picture: for what must be said on every output, such
 * as that the weights were random.
 *
 * @param frames The frames.
 * @param text What to say; broken into lines that fit the width.
 * @param options Colours, and font scale (1, or 2 from 256 pixels of width on, when absent).
 * @returns Higher frames.
 */
export function stampFrames(
  frames: Frames,
  text: string,
  options: { readonly colour?: Colour; readonly background?: Colour; readonly scale?: number } = {},
): Frames {
  const scale = options.scale ?? (frames.width >= 256 ? 2 : 1);
  const lines = wrapText(text, Math.floor((frames.width - 2 + scale) / (CELL.width * scale)));
  const strip = lines.length * CELL.height * scale + 2;
  const out = makeFrames(frames.frames, frames.height + strip, frames.width);
  const [from, to] = [frames.height * frames.width * 3, out.height * out.width * 3];
  const background = options.background ?? [160, 0, 0];
  for (let f = 0; f < frames.frames; f++) {
    out.data.set(frames.data.subarray(f * from, (f + 1) * from), f * to);
    fillColour(out.data.subarray(f * to + from, (f + 1) * to), background);
  }
  lines.forEach((line, i) => {
    drawText(out, line, { left: 1, top: frames.height + 2 + i * CELL.height * scale }, options.colour, scale);
  });
  return out;
}
