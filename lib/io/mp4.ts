/**
 * mp4 files (H.264, yuv420p), written in-process: the same bytes on every machine, without a program or a permission.
 *
 * @module
 */

/** Requests to the worker: to begin, to take frames, to finish. */
export type Mp4Request =
  | { readonly width: number; readonly height: number; readonly fps: number; readonly quantiser: number }
  | { readonly width: number; readonly height: number; readonly rgb: Uint8Array<ArrayBuffer> }
  | Record<string, never>;

/** Its answer, one message for each request. */
export interface Mp4Answer {
  /** The whole file, at the end. */
  readonly file?: Uint8Array<ArrayBuffer>;
  readonly error?: string;
}

/** Encodes one video. Must be disposed of. */
export class Mp4Encoder implements AsyncDisposable {
  readonly #worker = new Worker(new URL("./mp4_worker.ts", import.meta.url), { type: "module" });
  readonly #size: { readonly width: number; readonly height: number };

  private constructor(size: { readonly width: number; readonly height: number }) {
    this.#size = size;
  }

  /**
   * Starts the encoder.
   *
   * @param size Even sides.
   * @param fps Frames per second.
   * @param quantiser H.264's: 10 (nearly without loss) to 51.
   */
  static async start(
    size: { readonly width: number; readonly height: number },
    fps: number,
    quantiser: number,
  ): Promise<Mp4Encoder> {
    const encoder = new Mp4Encoder(size);
    try {
      await encoder.#ask({ ...size, fps, quantiser });
      return encoder;
    } catch (error) {
      await encoder[Symbol.asyncDispose]();
      throw error;
    }
  }

  #ask(request: Mp4Request, transfer: Transferable[] = []): Promise<Mp4Answer> {
    return new Promise((resolve, reject) => {
      this.#worker.onmessage = ({ data }: MessageEvent<Mp4Answer>) =>
        data.error === undefined
          ? resolve(data)
          : reject(new Error(`mp4: the encoder failed: ${data.error}`));
      this.#worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(`mp4: the encoder cannot be loaded: ${event.message}`));
      };
      this.#worker.postMessage(request, transfer);
    });
  }

  /** Adds frames, `[frames, height, width, 3]`, and waits until they are encoded. */
  async add(rgb: Uint8Array): Promise<void> {
    const own = new Uint8Array(rgb);
    await this.#ask({ ...this.#size, rgb: own }, [own.buffer]);
  }

  /** The file. */
  async finish(): Promise<Uint8Array<ArrayBuffer>> {
    return (await this.#ask({})).file!;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#worker.terminate();
    return Promise.resolve();
  }
}
