/**
 * Seconds from the command line to the first predicted frame of the bundled model, mark by mark.
 *
 *     deno run -A bench/startup.ts [--runs 9] [--other PATH] [--arguments "--device cpu"] [--save]
 *
 * Runs `deno run -P far.ts predict --json` and notes when its events arrive:
 *
 * - `process`: an empty program has ended; `help`: `far.ts --help` has;
 * - `estimate`: clip read, weights checked, device open, cost known;
 * - `encoder`: the autoencoder's encoder is loaded; `encoded`: all 144 frames of context are latents;
 * - `transformer`: its weights are loaded; `frame`: the first predicted frame is there. The run is then ended.
 *
 * Kernel rates are in the cache, as after any first run. `--other` names another checkout of the repository; the two run in
 * turns, and the median of the ratios of neighbouring runs is reported. `--save` writes bench/results/startup.json.
 *
 * @module
 */
import { environment, option } from "./environment.ts";
import { median, saveResults } from "./peer_process.ts";

const MARKS = ["process", "help", "estimate", "encoder", "encoded", "transformer", "frame"] as const;
type Marks = Record<typeof MARKS[number], number>;

/** As on the model's card; other commits have other defaults. */
const CALL = ["world:0", "--ctx", "144", "--pred", "156", "--steps", "1", "--json"];

const HERE = new URL("..", import.meta.url).pathname;

/** An event of `far.ts --json`. */
interface Event {
  readonly event: string;
  readonly stage?: string;
  readonly done?: number;
}

function markOf({ event, stage, done = 0 }: Event): keyof Marks | undefined {
  if (event === "estimate") return "estimate";
  if (stage === "encode") return event === "start" ? "encoder" : event === "end" ? "encoded" : undefined;
  if (stage !== "predict") return undefined;
  return event === "start" ? "transformer" : event === "progress" && done >= 1 ? "frame" : undefined;
}

/** Seconds until a command of a checkout has ended. */
async function secondsOf(checkout: string, args: readonly string[]): Promise<number> {
  const start = performance.now();
  const { success, stderr } = await new Deno.Command(Deno.execPath(), { args: [...args], cwd: checkout })
    .output();
  if (!success) throw new Error(`${checkout}: ${new TextDecoder().decode(stderr)}`);
  return (performance.now() - start) / 1000;
}

/** One start of a checkout's `far.ts predict`. */
async function start(checkout: string, folder: string, more: readonly string[]): Promise<Marks> {
  const empty = `${folder}/empty.ts`, work = `${folder}/work`;
  await Deno.mkdir(work);
  await Deno.writeTextFile(empty, "");
  const marks: Partial<Marks> = {
    process: await secondsOf(checkout, ["run", empty]),
    help: await secondsOf(checkout, ["run", "-P", "far.ts", "--help"]),
  };
  const begin = performance.now();
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-P", "far.ts", "predict", ...CALL, "--out", `${work}/out`, ...more],
    cwd: checkout,
    env: { FAR_CACHE: `${folder}/cache` },
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let text = "";
  for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) {
    const seconds = (performance.now() - begin) / 1000;
    const lines = (text + piece).split("\n");
    text = lines.pop()!;
    for (const line of lines) {
      const mark = markOf(JSON.parse(line));
      if (mark !== undefined) marks[mark] ??= seconds;
    }
    if (marks.frame !== undefined) break;
  }
  child.kill("SIGKILL");
  await child.status;
  if (marks.frame === undefined) throw new Error(`${checkout}: ended before its first frame`);
  await Deno.remove(work, { recursive: true }); // with what the run keeps beside its result folder
  return marks as Marks;
}

/** Takes the runs of some checkouts in turns. */
async function measure(
  checkouts: readonly string[],
  runs: number,
  more: readonly string[],
): Promise<Marks[][]> {
  const folders = await Promise.all(checkouts.map(() => Deno.makeTempDir()));
  const all: Marks[][] = checkouts.map(() => []);
  try {
    // The first run fills the caches of Deno, of the rates and of the system.
    for (let run = -1; run < runs; run++) {
      for (const [i, checkout] of checkouts.entries()) {
        const marks = await start(checkout, folders[i], more);
        if (run >= 0) all[i].push(marks);
      }
    }
  } finally {
    for (const folder of folders) await Deno.remove(folder, { recursive: true });
  }
  return all;
}

const summary = (runs: readonly Marks[]) =>
  Object.fromEntries(MARKS.map((mark) => {
    const seconds = runs.map((marks) => marks[mark]), round = (s: number) => Math.round(s * 1000) / 1000;
    return [mark, { median: round(median(seconds)), least: round(Math.min(...seconds)) }];
  }));

if (import.meta.main) {
  const other = option("other"), runs = Number(option("runs") ?? 9);
  const more = option("arguments")?.split(" ") ?? [];
  const [here, there] = await measure([HERE, ...(other === undefined ? [] : [other])], runs, more);
  const ratios = there &&
    Object.fromEntries(
      MARKS.map((
        mark,
      ) => [mark, Math.round(100 * median(here.map((m, i) => m[mark] / there[i][mark]))) / 100]),
    );
  const results = {
    environment: { ...await environment(), load: Math.round(Deno.loadavg()[0]) },
    runs,
    arguments: more,
    seconds: summary(here),
    ...(there && { other: { seconds: summary(there), ratios } }),
  };
  console.log(JSON.stringify(results, null, 2));
  if (Deno.args.includes("--save")) await saveResults("startup", results);
}
