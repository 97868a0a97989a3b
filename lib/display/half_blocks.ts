/**
 * Pictures in a terminal: half blocks, each with two pixels, in 24-bit colour.
 *
 * @module
 */
import { fitFrames, type Frames } from "../io/frames.ts";

/**
 * A frame as lines of text.
 *
 * @param frame One frame.
 * @param columns Most columns; a frame that is wider or higher than fits is made smaller.
 * @param rows Most lines; each shows two rows of pixels.
 */
export function halfBlocks(frame: Frames, columns: number, rows: number): string[] {
  const scale = Math.min(1, columns / frame.width, 2 * rows / frame.height);
  const height = Math.max(2, 2 * Math.floor(frame.height * scale / 2)),
    width = Math.max(1, Math.floor(frame.width * scale));
  const { data } = fitFrames(frame, { height, width }, "stretch");
  const colour = (y: number, x: number) =>
    data.subarray((y * width + x) * 3, (y * width + x) * 3 + 3).join(";");
  return Array.from({ length: height / 2 }, (_, row) => {
    let line = "";
    for (let x = 0; x < width; x++) {
      line += `\x1b[38;2;${colour(2 * row, x)};48;2;${colour(2 * row + 1, x)}m▀`;
    }
    return `${line}\x1b[0m`;
  });
}
