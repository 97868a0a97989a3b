import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import { download } from "../cli/download.ts";
import { Progress } from "../cli/progress.ts";
import { ZOO } from "../lib/pipeline/zoo.ts";
import { fromFloat32, toFloat32 } from "../lib/io/host.ts";
import { openTensorFile } from "../lib/io/open.ts";
import { openPth } from "../lib/io/pth.ts";
import { writePth } from "../lib/io/pth_write.ts";
import { writeSafetensors } from "../lib/io/safetensors.ts";
import { farConfig, farShapes } from "../lib/far/config.ts";
import { checkShapes } from "../lib/params.ts";
import { exists, far, inFolder, TINY_FAR } from "./cli_helpers.ts";

const CONTENT = new Uint8Array(300_000).map((_, i) => (i * 31) % 251);
const SHA8 = createHash("sha256").update(CONTENT).digest("hex").slice(0, 8);

/** A server whose answers a test decides; counts the bytes it sent. */
function serve(answer: (request: Request, from: number) => Response) {
  const ranges: (string | null)[] = [];
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, (request) => {
    const range = request.headers.get("range");
    ranges.push(range);
    return answer(request, Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0));
  });
  return { url: `http://127.0.0.1:${server.addr.port}`, ranges, stop: () => server.shutdown() };
}

/** A body that ends with an error after some bytes. */
function broken(bytes: Uint8Array): ReadableStream<Uint8Array<ArrayBuffer>> {
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

const headers = (from: number, total: number, more: Record<string, string> = {}) => ({
  "content-length": String(total - from),
  "content-range": `bytes ${from}-${total - 1}/${total}`,
  etag: '"v1"',
  ...more,
});

const rest = (from: number, content: Uint8Array = CONTENT) =>
  new Response(content.slice(from), { status: from > 0 ? 206 : 200, headers: headers(from, content.length) });

const quiet = new Progress("quiet");
const fetchTo = (folder: string, url: string, more = {}) =>
  download({
    url: `${url}/file`,
    path: `${folder}/file`,
    progress: quiet,
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

Deno.test("weights list shows every published model; its names carry their digits", async () => {
  const { code, stdout } = await far(["weights", "list"], { FAR_CACHE: "none" });
  assertEquals(code, 0);
  for (const model of ZOO) assert(stdout.includes(model.name) && stdout.includes(model.sha8));
  assertEquals(new Set(ZOO.map((m) => m.sha8)).size, ZOO.length);
});

Deno.test("weights pull downloads, refuses another file, and offline says so", async () => {
  await inFolder(async (folder) => {
    const server = serve((_, from) => rest(from));
    const args = ["weights", "pull", "FAR_B_BAIR_Uncond64", "--into", folder, "--url", server.url];
    const wrong = await far([...args], {}, `-P=weights`);
    // Another host than the zoo's is not in the permission set: the message says what to add.
    assertEquals(wrong.code, 2);
    assertMatch(wrong.stderr, /add --allow-net=127\.0\.0\.1:\d+$/);
    const offline = await far([...args, "--offline"]);
    assertEquals(offline.code, 1);
    assertMatch(offline.stderr, /downloads are off/);
    const pulled = await far(args, {}, "-A");
    assertEquals(pulled.code, 1);
    assertMatch(
      pulled.stderr,
      /expected 259121728 to 1103595776 bytes, the server announces 300000$/,
    );
    assertEquals([...Deno.readDirSync(folder)].length, 0);
    await server.stop();
    const unknown = await far(["weights", "pull", "FAR_B_BIAR_Uncond64"]);
    assertEquals(unknown.code, 2);
    assertMatch(unknown.stderr, /did you mean "FAR_B_BAIR_Uncond64"/);
  });
});

Deno.test("pull says how much of the SHA-256 it compared, and eight forged digits are not enough for a short file", async () => {
  await inFolder(async (folder) => {
    // Found by trying 330 million texts: its SHA-256 begins as that of FAR_B_BAIR_Uncond64 should.
    const forged = new TextEncoder().encode("far-329537034");
    const whole = createHash("sha256").update(forged).digest("hex");
    assertEquals(whole.slice(0, 8), "1983191b");
    const server = serve((_, from) => rest(from, forged));
    const args = ["weights", "pull", "FAR_B_BAIR_Uncond64", "--into", folder, "--url", server.url];
    const env = { HF_TOKEN: "secret-2", FAR_TOKEN: "secret-3" };
    const short = await far(args, env, "-A");
    assertEquals(short.code, 1);
    assertMatch(
      short.stderr,
      /HF_TOKEN is not sent to http:\/\/127.*: it belongs to https:\/\/huggingface\.co/,
    );
    assertMatch(short.stderr, /expected 259121728 to 1103595776 bytes, the server announces 13$/);
    assert(!short.stderr.includes("secret"));
    assertEquals([...Deno.readDirSync(folder)].length, 0);
    for (
      const [sha256, message] of [
        ["1983191b", /--sha256: expected 64 hexadecimal digits, found 1983191b/],
        ["0".repeat(64), /--sha256: begins with 00000000, but the file's name says 1983191b/],
      ] as const
    ) {
      const ran = await far([...args, "--sha256", sha256], {}, "-A");
      assertEquals(ran.code, 2);
      assertMatch(ran.stderr, message);
    }
    const wrong = await far([...args, "--sha256", `1983191b${"0".repeat(56)}`], {}, "-A");
    assertEquals(wrong.code, 1);
    assertMatch(
      wrong.stderr,
      /the server sent another file: SHA-256 begins with 1983191b[0-9a-f]{56}, expected 1983191b0{56}/,
    );
    const pulled = await far([...args, "--sha256", whole.toUpperCase()], {}, "-A");
    assertEquals(pulled.code, 0, pulled.stderr);
    assertMatch(pulled.stderr, /its SHA-256 is the one that was asked for/);
    assertEquals(Deno.readFileSync(`${folder}/FAR_B_BAIR_Uncond64-1983191b.pth`), forged);
    const there = await far([...args.slice(0, 5), "--json"], {}, "-A");
    assertEquals(JSON.parse(there.stdout).checked_bits, 32);
    assertMatch(
      (await far(args.slice(0, 5), {}, "-A")).stderr,
      /32 of the 256 bits of its SHA-256 were checked, .* it is 1983191b/,
    );
    await server.stop();
    const fresh = [
      "weights",
      "pull",
      "DCAE_BAIR_Res64",
      "--into",
      folder,
      "--url",
      "https://me:pass1@example.org",
    ];
    const refused = await far(fresh, {}, "-A");
    assertEquals(refused.code, 2);
    assert(!refused.stderr.includes("pass1"), refused.stderr);
  });
});

Deno.test("convert keeps every value where the type allows it, inspect and verify tell what is there", async () => {
  await inFolder(async (folder) => {
    const values = Float32Array.from({ length: 12 }, (_, i) => (i - 6) / 8);
    await writePth(`${folder}/a.pth`, {
      "x.weight": fromFloat32(values, [3, 4]),
      count: { shape: [], dtype: "I64", data: new Uint8Array(8) },
    });
    const convert = async (from: string, to: string, ...more: string[]) => {
      const { code, stderr } = await far(
        ["weights", "convert", `${folder}/${from}`, `${folder}/${to}`, ...more],
        {},
        "-P=weights",
      );
      assertEquals(code, 0, stderr);
    };
    await convert("a.pth", "b.safetensors", "--dtype", "bf16");
    await convert("b.safetensors", "c.pth", "--dtype", "f16");
    await convert("c.pth", "d.safetensors", "--dtype", "f32");
    using end = openTensorFile(`${folder}/d.safetensors`);
    assertEquals(toFloat32(end.read("x.weight")), values); // eighths fit every type
    using middle = openPth(`${folder}/c.pth`);
    assertEquals([middle.tensors.get("x.weight")!.dtype, middle.tensors.get("count")!.dtype], ["F16", "I64"]);

    const inspected = await far(["weights", "inspect", `${folder}/a.pth`, "--stats", "--json"]);
    const report = JSON.parse(inspected.stdout);
    assertEquals([report.format, report.parameters, report.fits], ["pth", 13, []]);
    assertEquals([report.tensors[0].min, report.tensors[0].max, report.tensors[0].bad], [-0.75, 0.625, 0]);

    const bytes = Deno.readFileSync(`${folder}/a.pth`);
    const sha8 = createHash("sha256").update(bytes).digest("hex").slice(0, 8);
    Deno.writeFileSync(`${folder}/a-${sha8}.pth`, bytes);
    Deno.writeFileSync(`${folder}/a-00000000.pth`, bytes);
    assertEquals((await far(["weights", "verify", `${folder}/a-${sha8}.pth`])).code, 0);
    const bad = await far(["weights", "verify", `${folder}/a-00000000.pth`]);
    assertEquals(bad.code, 1);
    assertMatch(bad.stderr, new RegExp(`SHA-256 begins with ${sha8}, expected 00000000`));
  });
});

Deno.test("a tensor called as something that every object has is no part of a model", async () => {
  await inFolder(async (folder) => {
    const shapes = farShapes(farConfig(TINY_FAR.type, TINY_FAR.config)), path = `${folder}/far.safetensors`;
    const zeros = (shape: readonly number[]) =>
      fromFloat32(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    const tensors = Object.entries(shapes).map(([name, shape]) => [name, zeros(shape)] as const);
    for (const name of ["constructor", "toString", "__proto__"]) {
      await writeSafetensors(path, [...tensors, [name, zeros([2])]]);
      using file = openTensorFile(path);
      assertThrows(() => checkShapes(file, shapes), Error, `${name} is not part of the model`);
    }
    await writeSafetensors(path, tensors);
    using file = openTensorFile(path);
    checkShapes(file, shapes);
  });
});

Deno.test("inspect finds the model that a checkpoint fits", async () => {
  await inFolder(async (folder) => {
    const shapes = farShapes(farConfig("FAR_B", { condition_cfg: { type: "label", num_classes: 5 } }));
    const { writeSafetensors } = await import("../lib/io/safetensors.ts");
    // Halves of zeros: the shapes are what counts.
    const tensors = Object.entries(shapes).map(([name, shape]) =>
      [name, {
        shape,
        dtype: "F16" as const,
        data: new Uint8Array(2 * shape.reduce((a, b) => a * b, 1)),
      }] as const
    );
    await writeSafetensors(`${folder}/b.safetensors`, tensors);
    const { stdout } = await far(["weights", "inspect", `${folder}/b.safetensors`]);
    assertMatch(stdout, /fits FAR_B with 5 labels/);
  });
});

Deno.test("inspect counts parameters, not the statistics of batch norm", async () => {
  await inFolder(async (folder) => {
    await writePth(`${folder}/norm.pth`, {
      "norm.weight": fromFloat32(new Float32Array(4), [4]),
      "norm.running_mean": fromFloat32(new Float32Array(4), [4]),
      "norm.num_batches_tracked": { shape: [], dtype: "I64", data: new Uint8Array(8) },
    });
    const { stdout } = await far(["weights", "inspect", `${folder}/norm.pth`, "--json"]);
    const { parameters, tensors } = JSON.parse(stdout);
    assertEquals([parameters, tensors.length], [4, 3]);
  });
});
