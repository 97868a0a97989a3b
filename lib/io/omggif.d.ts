/** The part of npm:omggif that lib/io/gif.ts uses; the package comes without types. */
declare const omggif: {
  GifReader: new (bytes: Uint8Array) => {
    readonly width: number;
    readonly height: number;
    numFrames(): number;
    /** `delay` in hundredths of a second; `disposal` 2 clears the frame's part of the picture, 3 restores it. */
    frameInfo(frame: number): {
      readonly x: number;
      readonly y: number;
      readonly width: number;
      readonly height: number;
      readonly disposal: number;
      readonly delay: number;
      readonly data_offset: number;
      readonly data_length: number;
    };
    /** Draws a frame over what is in `pixels`; throws on damage. */
    decodeAndBlitFrameRGBA(frame: number, pixels: Uint8Array): void;
  };
};
export default omggif;
