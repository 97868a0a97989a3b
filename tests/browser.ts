/**
 * Headless Chromium through the DevTools protocol: opens a page from a file and tells what happened in it.
 *
 * @module
 */

/** Names under which Chromium is installed. */
const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** Chromium's program, or undefined where there is none. */
export function findChromium(): string | undefined {
  const folders = (Deno.env.get("PATH") ?? "").split(":").filter((f) => f !== "");
  return folders.flatMap((folder) => NAMES.map((name) => `${folder}/${name}`)).find((path) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  });
}

/** Quiet, and without any connection of its own. */
const FLAGS = [
  ...["--headless", "--no-sandbox", "--disable-quic", "--no-first-run"],
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
  ...["--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-port=0"],
];

/** WebGPU on the processor, which is switched off otherwise. */
const WEBGPU_FLAGS = [
  ...["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"],
  ...["--disable-vulkan-surface"],
];

// deno-lint-ignore no-explicit-any -- messages of the DevTools protocol
type Message = any;

/** A page that is open. */
export interface BrowserPage {
  /** Errors, exceptions and refusals that the page has reported, in words. */
  readonly errors: string[];
  /** Addresses that were asked for, other than the page and `data:`. */
  readonly requests: string[];
  /** Value of an expression in the page; promises are awaited. */
  evaluate<T>(expression: string): Promise<T>;
  /** Presses a key. */
  press(key: string, options?: { readonly shift?: boolean }): Promise<void>;
  /** Any other command of the protocol. */
  send(method: string, params?: Record<string, unknown>): Promise<Message>;
  /** The whole page as PNG. */
  screenshot(): Promise<Uint8Array>;
}

/** Lines of a process's stderr until one matches. */
async function matching(stream: ReadableStream<Uint8Array>, pattern: RegExp): Promise<string> {
  let text = "";
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  while (true) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`Chromium ended: ${text}`);
    text += value;
    const found = pattern.exec(text);
    if (found) {
      // What follows is read too, or the process would wait for room in the pipe.
      (async () => {
        while (!(await reader.read()).done);
      })().catch(() => {});
      return found[1];
    }
  }
}

/** Opens an HTML file or an address, waits until its script has run, and closes everything after `body`. */
export async function withPage<T>(
  file: string,
  body: (page: BrowserPage) => Promise<T>,
  { width = 1280, height = 900, dark = false, script = true, webgpu = false } = {},
): Promise<T> {
  const program = findChromium();
  if (program === undefined) throw new Error(`no Chromium on PATH, expected one of ${NAMES.join(", ")}`);
  const profile = Deno.makeTempDirSync();
  const child = new Deno.Command(program, {
    args: [
      ...FLAGS,
      ...(webgpu ? WEBGPU_FLAGS : ["--disable-gpu"]),
      `--user-data-dir=${profile}`,
      `--window-size=${width},${height}`,
      "about:blank",
    ],
    ...{ stdin: "null", stdout: "null", stderr: "piped" },
  }).spawn();
  let socket: WebSocket | undefined;
  try {
    socket = new WebSocket(await matching(child.stderr, /DevTools listening on (ws:\S+)/));
    const opened = socket;
    await new Promise((resolve, reject) => {
      opened.onopen = resolve;
      opened.onerror = (event) => reject(new Error(`DevTools: ${(event as ErrorEvent).message}`));
    });
    return await body(await openPage(opened, file, { width, height, dark, script }));
  } finally {
    const kill = setTimeout(() => child.kill("SIGKILL"), 10_000);
    if (socket?.readyState === WebSocket.OPEN) {
      const { promise, resolve } = Promise.withResolvers<unknown>();
      socket.onclose = resolve;
      socket.onmessage = null;
      socket.send(JSON.stringify({ id: 0, method: "Browser.close" })); // it stops all of its processes
      await promise;
    } else child.kill();
    await child.status;
    clearTimeout(kill);
    await removeFolder(profile);
  }
}

/** Removes the profile; helpers of the browser may write into it for a moment after its end. */
async function removeFolder(path: string): Promise<void> {
  for (let tries = 0;; tries++) {
    try {
      return Deno.removeSync(path, { recursive: true });
    } catch (error) {
      if (tries === 50) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

async function openPage(
  socket: WebSocket,
  file: string,
  { width, height, dark, script }: { width: number; height: number; dark: boolean; script: boolean },
): Promise<BrowserPage> {
  const waiting = new Map<number, { resolve(value: Message): void; reject(error: Error): void }>();
  const errors: string[] = [], requests: string[] = [], url = new URL(file, "file:///").href;
  let next = 1, loaded = () => {};
  const target: { session?: string } = {};
  const whenLoaded = new Promise<void>((resolve) => loaded = resolve);
  socket.onmessage = ({ data }) => {
    const { id, method, params, result, error } = JSON.parse(data) as Message;
    if (id !== undefined) {
      const own = waiting.get(id)!;
      waiting.delete(id);
      if (error) own.reject(new Error(error.message));
      else own.resolve(result);
    }
    if (method === "Page.loadEventFired") loaded();
    if (method === "Runtime.exceptionThrown") errors.push(params.exceptionDetails.exception.description);
    if (method === "Runtime.consoleAPICalled" && ["error", "warning"].includes(params.type)) {
      errors.push(JSON.stringify(params.args));
    }
    if (method === "Log.entryAdded" && params.entry.level !== "verbose") errors.push(params.entry.text);
    if (
      method === "Network.requestWillBeSent" && !/^data:/.test(params.request.url) &&
      params.request.url !== url
    ) {
      requests.push(params.request.url);
    }
  };
  const send = (method: string, params: Record<string, unknown> = {}) =>
    new Promise<Message>((resolve, reject) => {
      waiting.set(next, { resolve, reject });
      socket.send(
        JSON.stringify({
          id: next++,
          method,
          params,
          ...(target.session ? { sessionId: target.session } : {}),
        }),
      );
    });
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  target.session = (await send("Target.attachToTarget", { targetId, flatten: true })).sessionId;
  for (const domain of ["Page", "Runtime", "Log", "Network"]) await send(`${domain}.enable`);
  await send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: false });
  await send("Emulation.setEmulatedMedia", {
    features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }],
  });
  await send("Emulation.setScriptExecutionDisabled", { value: !script });
  await send("Page.navigate", { url });
  await whenLoaded;
  const page: BrowserPage = {
    errors,
    requests,
    send,
    evaluate: async (expression) => {
      const { result, exceptionDetails } = await send("Runtime.evaluate", {
        ...{ expression, awaitPromise: true, returnByValue: true },
      });
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
      return result.value;
    },
    press: async (key, { shift = false } = {}) => {
      const modifiers = shift ? 8 : 0, code = key === " " ? "Space" : key;
      const text = key.length === 1 ? { text: key } : {};
      await send("Input.dispatchKeyEvent", { type: "keyDown", key, code, modifiers, ...text });
      await send("Input.dispatchKeyEvent", { type: "keyUp", key, code, modifiers });
    },
    screenshot: async () => {
      const { data } = await send("Page.captureScreenshot", { captureBeyondViewport: true });
      return Uint8Array.fromBase64(data);
    },
  };
  if (script) {
    const end = Date.now() + 20_000;
    while (await page.evaluate("document.documentElement.dataset.ready ?? ''") !== "true") {
      if (Date.now() > end) throw new Error(`the page's script did not finish: ${errors.join("; ")}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  return page;
}
