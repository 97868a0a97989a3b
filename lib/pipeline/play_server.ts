/**
 * A page to walk in, served to this machine alone.
 *
 * The server listens on 127.0.0.1. Its address carries a random path, so another program or page that finds the port learns
 * nothing; and it answers only under its own name, so a foreign name that is made to point here (DNS rebinding) is refused.
 *
 * @module
 */
import style from "../report/play.css" with { type: "text" };
import page from "../report/play.html" with { type: "text" };
import script from "../report/play.js" with { type: "text" };
import { pngUrl } from "../display/html.ts";
import type { Frames } from "../io/frames.ts";
import { encodePng } from "../io/image_encode.ts";
import { frameText, type Walk } from "./play.ts";

/** Options of {@linkcode servePlay}. */
export interface ServeOptions {
  /** First line of the page. */
  readonly title: string;
  /** A warning on the page; none if empty. */
  readonly stamp?: string;
  /** The port; one that is free unless given. */
  readonly port?: number;
  /** Saves the walk so far; returns the paths. */
  readonly record: () => Promise<readonly string[]>;
}

/** A page that is being served. */
export interface Served extends AsyncDisposable {
  /** Its address. */
  readonly url: string;
}

/** Frames that the page shows when it is opened, the newest last. */
const STRIP = 16;

const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS = {
  "content-security-policy": POLICY,
  "cache-control": "no-store",
  "referrer-policy": "no-referrer", // the address is the secret
  "x-content-type-options": "nosniff",
};

/** Most characters of a request's body; `{"action":123}` is all that anybody sends. */
const BODY = 100;

const respond = (body: string, type: string, status = 200) =>
  new Response(body, { status, headers: { ...HEADERS, "content-type": `${type}; charset=utf-8` } });
const json = (value: unknown) => respond(JSON.stringify(value), "application/json");
const refuse = (status: number, why: string) => respond(why, "text/plain", status);

const urlOf = (frame: Frames) => pngUrl(encodePng(frame));

/** The action in a request's body, or why there is none. */
async function actionIn(request: Request): Promise<number | Response> {
  const length = Number(request.headers.get("content-length") ?? NaN);
  if (!(length <= BODY)) return refuse(413, `expected a body of at most ${BODY} bytes, with its length`);
  try {
    const { action } = JSON.parse(await request.text());
    if (typeof action === "number") return action;
  } catch {
    // told below
  }
  return refuse(400, 'expected {"action":N}');
}

/**
 * Serves the page of a walk until it is disposed of.
 *
 * @param session The walk; every request for a frame makes one.
 * @param options What the page says, and where recordings go.
 * @throws {Deno.errors.AddrInUse} If the port is taken.
 */
export function servePlay(session: Walk, options: ServeOptions): Served {
  const { title, stamp = "", port = 0, record } = options;
  const token = crypto.getRandomValues(new Uint8Array(16)).toHex();
  let busy = false;

  async function act(request: Request): Promise<Response> {
    const action = await actionIn(request);
    if (action instanceof Response) return action;
    if (busy) return refuse(409, "the frame before is still being made");
    busy = true;
    try {
      const { frame, truth, ...numbers } = await session.act(action);
      return json({
        ...numbers,
        text: frameText(numbers),
        frame: urlOf(frame),
        truth: truth && urlOf(truth),
      });
    } catch (error) {
      if (error instanceof RangeError) return refuse(400, error.message);
      throw error;
    } finally {
      busy = false;
    }
  }

  const state = () => {
    const { actions: names, keys, truth } = session, strip = session.last(STRIP).map(urlOf);
    return json({ title, stamp, names, keys, strip, truth: truth && urlOf(truth) });
  };

  const routes: Readonly<Record<string, (request: Request) => Response | Promise<Response>>> = {
    "GET ": () => respond(page, "text/html"),
    "GET play.js": () => respond(script, "text/javascript"),
    "GET play.css": () => respond(style, "text/css"),
    "GET state": state,
    "POST act": act,
    "POST record": async () => json({ files: await record() }),
  };

  const server = Deno.serve({
    ...{ hostname: "127.0.0.1", port, onListen: () => {} },
    onError: (error) => refuse(500, error instanceof Error ? error.message : String(error)),
  }, (request) => {
    const host = request.headers.get("host"), own = server.addr.port;
    if (host !== `127.0.0.1:${own}` && host !== `localhost:${own}`) return refuse(403, "unknown host");
    const { pathname } = new URL(request.url);
    const route = pathname.startsWith(`/${token}/`)
      ? routes[`${request.method} ${pathname.slice(token.length + 2)}`]
      : undefined;
    return route?.(request) ?? refuse(404, "not found");
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}/${token}/`,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}
