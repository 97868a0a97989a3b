/**
 * A server that sends a file as a test decides.
 *
 * @module
 */
import { createHash } from "node:crypto";

export const CONTENT = new Uint8Array(300_000).map((_, i) => (i * 31) % 251);
export const SHA8 = createHash("sha256").update(CONTENT).digest("hex").slice(0, 8);

/** A server whose answers a test decides; counts the bytes it sent. */
export function serve(answer: (request: Request, from: number) => Response) {
  const ranges: (string | null)[] = [];
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, (request) => {
    const range = request.headers.get("range");
    ranges.push(range);
    return answer(request, Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0));
  });
  return { url: `http://127.0.0.1:${server.addr.port}`, ranges, stop: () => server.shutdown() };
}

/** A body that ends with an error after some bytes. */
export function broken(bytes: Uint8Array): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream({
    start(controller) {
      controller.enqueue(bytes.slice());
    },
    pull: async (controller) => {
      await new Promise((resolve) => setTimeout(resolve, 200));
      controller.error(new Error("dropped"));
    },
  });
}

export const headers = (from: number, total: number, more: Record<string, string> = {}) => ({
  "content-length": String(total - from),
  "content-range": `bytes ${from}-${total - 1}/${total}`,
  etag: '"v1"',
  ...more,
});

export const rest = (from: number, content: Uint8Array = CONTENT) =>
  new Response(content.slice(from), { status: from > 0 ? 206 : 200, headers: headers(from, content.length) });
