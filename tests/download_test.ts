import { assert, assertEquals, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import { download } from "../lib/pipeline/download.ts";
import { unwatched } from "../lib/pipeline/watch.ts";
import { broken, CONTENT, headers, rest, serve, SHA8 } from "./download_server.ts";
import { exists } from "./cli_helpers.ts";
import { inFolder } from "./io_helpers.ts";

const fetchTo = (folder: string, url: string, more = {}) =>
  download({
    url: `${url}/file`,
    path: `${folder}/file`,
    watch: unwatched(),
    waitSeconds: 0.01,
    check: (path) =>
      createHash("sha256").update(Deno.readFileSync(path)).digest("hex").startsWith(SHA8)
        ? undefined
        : "the server sent another file",
    ...more,
  });

Deno.test("a download that drops again and again is resumed", async () => {
  await inFolder(async (folder) => {
    const server = serve((_, from) =>
      from < 200_000
        ? new Response(broken(CONTENT.slice(from, from + 70_000)), {
          status: from > 0 ? 206 : 200,
          headers: headers(from, CONTENT.length),
        })
        : rest(from)
    );
    await fetchTo(folder, server.url);
    await server.stop();
    assertEquals(Deno.readFileSync(`${folder}/file`), CONTENT);
    assert(server.ranges.length >= 4, `${server.ranges}`);
    assertEquals(server.ranges[0], null);
    assert(server.ranges.slice(1).every((range) => range !== null), `started over: ${server.ranges}`);
    assertEquals([...Deno.readDirSync(folder)].length, 1);
  });
});

Deno.test("another process resumes the part that the first one left", async () => {
  await inFolder(async (folder) => {
    const first = serve((_, from) =>
      new Response(broken(CONTENT.slice(from, 120_000)), {
        status: from > 0 ? 206 : 200,
        headers: headers(from, CONTENT.length),
      })
    );
    const port = new URL(first.url).port;
    await assertRejects(
      () => fetchTo(folder, first.url, { attempts: 1 }),
      Error,
      "gave up after 1 connection",
    );
    await first.stop();
    assertEquals(Deno.statSync(`${folder}/file.partial`).size, 120_000);
    assert(!exists(`${folder}/file`));
    const ranges: (string | null)[] = [];
    const second = Deno.serve({ port: Number(port), hostname: "127.0.0.1", onListen() {} }, (request) => {
      ranges.push(request.headers.get("range"));
      return rest(120_000);
    });
    await fetchTo(folder, first.url);
    await second.shutdown();
    assertEquals(ranges, ["bytes=120000-"]);
    assertEquals(Deno.readFileSync(`${folder}/file`), CONTENT);
  });
});

Deno.test("a file that changed on the server meanwhile is downloaded from its start", async () => {
  await inFolder(async (folder) => {
    let connections = 0;
    const server = serve((request, from) => {
      if (++connections === 1) {
        return new Response(broken(new Uint8Array(50_000)), {
          headers: headers(from, 400_000, { etag: '"old"' }),
        });
      }
      assertEquals(request.headers.get("if-range"), '"old"');
      return rest(0); // 200: the whole new file
    });
    await fetchTo(folder, server.url);
    await server.stop();
    assertEquals(Deno.readFileSync(`${folder}/file`), CONTENT);
  });
});

Deno.test("a server that sends another file is found out, and nothing is left", async () => {
  await inFolder(async (folder) => {
    const server = serve((_, from) => rest(from, CONTENT.map((b) => b ^ 1)));
    await assertRejects(() => fetchTo(folder, server.url), Error, "the server sent another file");
    await server.stop();
    assertEquals([...Deno.readDirSync(folder)].length, 0);
  });
});

Deno.test("a server that lies about the length is found out", async () => {
  await inFolder(async (folder) => {
    // Range answers announce more than comes, then less than comes.
    const short = serve((_, from) =>
      from === 0
        ? new Response(broken(CONTENT.slice(0, 100_000)), { headers: headers(0, CONTENT.length) })
        : new Response(CONTENT.slice(from), {
          status: 206,
          headers: { "content-range": `bytes ${from}-999999/1000000`, etag: '"v1"' },
        })
    );
    await assertRejects(
      () => fetchTo(folder, short.url),
      Error,
      "300000 bytes before, the server now says 1000000",
    );
    await short.stop();
    assertEquals([...Deno.readDirSync(folder)].length, 0);
    const wrongStart = serve((_, from) =>
      from === 0
        ? new Response(broken(CONTENT.slice(0, 100_000)), { headers: headers(0, CONTENT.length) })
        : new Response(CONTENT.slice(5), { status: 206, headers: headers(5, CONTENT.length) })
    );
    await assertRejects(
      () => fetchTo(folder, wrongStart.url),
      Error,
      "asked for byte 100000 on, the server sent from 5",
    );
    await wrongStart.stop();
  });
});

Deno.test("refusals say what to do: token, address, web page", async () => {
  await inFolder(async (folder) => {
    for (
      const [response, message] of [
        [() => new Response("", { status: 401 }), "set HF_TOKEN for huggingface.co, or FAR_TOKEN beside"],
        [() => new Response("", { status: 404 }), "there is no such file (404)"],
        [() => new Response("<html>", { headers: { "content-type": "text/html" } }), "found a web page"],
      ] as const
    ) {
      const server = serve(response);
      await assertRejects(() => fetchTo(folder, server.url), Error, message);
      await server.stop();
      assertEquals([...Deno.readDirSync(folder)].length, 0);
    }
  });
});

Deno.test("a server that says nothing for too long is given up, and a busy one is asked again", async () => {
  await inFolder(async (folder) => {
    const silent = serve(() => new Response(new ReadableStream({ pull: () => new Promise(() => {}) })));
    await assertRejects(
      () => fetchTo(folder, silent.url, { attempts: 2, stallSeconds: 0.2 }),
      Error,
      "no byte for 0.2 s",
    );
    silent.stop().catch(() => {});
    let asked = 0;
    const busy = serve((_, from) => ++asked < 3 ? new Response("", { status: 503 }) : rest(from));
    await fetchTo(folder, busy.url);
    await busy.stop();
    assertEquals(Deno.readFileSync(`${folder}/file`), CONTENT);
  });
});

const SECRET = "secret-1";
const tokenOf = (origin: string) => [{ variable: "FAR_TOKEN", value: SECRET, origin }];

Deno.test("a token goes to its own server only, into no message, and never behind a redirect", async () => {
  await inFolder(async (folder) => {
    const got: Record<string, (string | null)[]> = { first: [], second: [] };
    const note = (name: string, request: Request) => got[name].push(request.headers.get("authorization"));
    const second = serve((request) => (note("second", request), rest(0)));
    let answer = () => new Response("", { status: 403 });
    const first = serve((request) => (note("first", request), answer()));
    const refused = await assertRejects(() =>
      fetchTo(folder, first.url, { tokens: tokenOf(first.url) })
    ) as Error;
    assert(refused.message.includes("FAR_TOKEN does not open this file"), refused.message);
    assert(!refused.message.includes(SECRET), refused.message);
    assertEquals(got.first, [`Bearer ${SECRET}`]);
    // A token of another server, or of another port of this one, stays here.
    for (
      const origin of ["https://huggingface.co", second.url, first.url.replace("127.0.0.1", "localhost")]
    ) {
      await assertRejects(
        () => fetchTo(folder, first.url, { tokens: tokenOf(origin) }),
        Error,
        "set HF_TOKEN",
      );
    }
    assertEquals(got.first.slice(1), [null, null, null]);
    // Redirects are followed, within one server with the token, to another one without.
    answer = () => new Response(null, { status: 302, headers: { location: `${second.url}/elsewhere` } });
    await fetchTo(folder, first.url, { tokens: [...tokenOf(first.url), ...tokenOf(second.url)] });
    assertEquals([got.first.slice(4), got.second], [[`Bearer ${SECRET}`], [null]]);
    assertEquals(Deno.readFileSync(`${folder}/file`), CONTENT);
    let hops = 0;
    answer = () => ++hops < 3 ? new Response(null, { status: 307, headers: { location: "/next" } }) : rest(0);
    await fetchTo(folder, first.url, { tokens: tokenOf(first.url) });
    assertEquals(got.first.slice(5), Array(3).fill(`Bearer ${SECRET}`));
    // Back from elsewhere it is not sent again; circles and other protocols end.
    for (
      const [location, message] of [
        ["/again", "redirects more than 10 times"],
        ["file:///etc/passwd", "redirects from http:// to file://"],
        ["data:text/plain,x", "redirects from http:// to data://"],
        ["http://[", "something that is no address"],
      ]
    ) {
      answer = () => new Response(null, { status: 301, headers: { location } });
      await assertRejects(() => fetchTo(folder, first.url), Error, message);
    }
    await Promise.all([first.stop(), second.stop()]);
  });
});

Deno.test("a token is not sent over a way that others can read", async () => {
  const own = Deno.networkInterfaces().find(({ family, address }) =>
    family === "IPv4" && !address.startsWith("127.")
  );
  if (own === undefined) return; // no address but this machine's own
  await inFolder(async (folder) => {
    const got: (string | null)[] = [];
    const server = Deno.serve({ port: 0, hostname: own.address, onListen() {} }, (request) => {
      got.push(request.headers.get("authorization"));
      return rest(0);
    });
    const url = `http://${own.address}:${server.addr.port}`;
    await fetchTo(folder, url, { tokens: tokenOf(url) });
    await server.shutdown();
    assertEquals(got, [null]);
  });
});

Deno.test("a file of another size is refused: before it comes, as soon as more comes, and when less came", async () => {
  await inFolder(async (folder) => {
    let sent = 0;
    const endless = () => {
      const piece = new Uint8Array(65536);
      return new ReadableStream({ pull: (to) => (sent += piece.length, to.enqueue(piece)) });
    };
    const size = { least: 200_000, most: 400_000 };
    const cases: [(from: number) => Response, string][] = [
      [
        () => rest(0, new Uint8Array(100)),
        "200000 to 400000 bytes, the server announces 100",
      ],
      [() => rest(0, new Uint8Array(500_000)), "200000 to 400000 bytes, the server announces 500000"],
      [() => new Response(endless()), "expected at most 400000 bytes, the server sent more"],
      [
        () => new Response(new Blob([new Uint8Array(1000)]).stream()),
        "at least 200000 bytes, the server sent 1000",
      ],
    ];
    for (const [answer, message] of cases) {
      const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, () => answer(0));
      const url = `http://127.0.0.1:${server.addr.port}`;
      await assertRejects(() => fetchTo(folder, url, { size }), Error, message);
      assertEquals([...Deno.readDirSync(folder)].length, 0);
      await server.shutdown();
    }
    assert(sent < 50e6, `took ${sent} bytes of an endless file`);
    const server = serve((_, from) => rest(from));
    await fetchTo(folder, server.url, { size });
    await server.stop();
    assertEquals(Deno.readFileSync(`${folder}/file`), CONTENT);
  });
});
