/** Colours of a palette, `[red, green, blue]` each. */
export type Palette = number[][];

/** Writes one GIF, frame by frame. */
export interface Encoder {
  /** Appends a frame of palette indices; `delay` in milliseconds. */
  writeFrame(
    index: Uint8Array,
    width: number,
    height: number,
    options: { palette: Palette; delay: number; repeat?: number; transparent?: boolean },
  ): void;
  /** Appends the trailer. */
  finish(): void;
  /** Returns the bytes written since the last reset, as a view. */
  bytesView(): Uint8Array<ArrayBuffer>;
  /** Where the bytes gather. */
  readonly stream: { reset(): void };
}

/** The part of npm:gifenc that lib/io/image_encode.ts uses; the package comes without types. */
declare const gifenc: {
  GIFEncoder(): Encoder;
  quantize(rgba: Uint8Array, colours: number): Palette;
  applyPalette(rgba: Uint8Array, palette: Palette): Uint8Array;
};
export default gifenc;
