/**
 * `far.ts train` as a user runs it: killed at any moment it goes on and ends with the same bits; everything that it writes
 * can be read.
 */
import { assert, assertEquals } from "@std/assert";
import { far } from "./cli_helpers.ts";

const ROOT = new URL("../", import.meta.url);
const CONFIG = new URL("data/train_clip.yml", import.meta.url).pathname;

const DENO = Deno.execPath();

/** A folder with the one clip that the box holds. */
const CLIPS = Deno.makeTempDirSync();
Deno.copyFileSync(new URL("../assets/dmlab_24.npz", import.meta.url), `${CLIPS}/dmlab_24.npz`);
globalThis.addEventListener("unload", () => Deno.removeSync(CLIPS, { recursive: true }));

function command(out: string, more: readonly string[] = []): Deno.Command {
  return new Deno.Command(DENO, {
    args: [
      "run",
      "-A",
      "far.ts",
      "train",
      "--config",
      CONFIG,
      "--out",
      out,
      "--device",
      "cpu",
      "--json",
      "--set",
      `datasets.train.data_list=${CLIPS}`,
      ...more,
    ],
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** Runs to the end, or kills the process `delay` ms after it has reported `killAt` steps. Returns the steps it reported. */
async function run(
  out: string,
  kill?: { readonly steps: number; readonly delay: number; readonly signal?: Deno.Signal },
): Promise<{ readonly code: number; readonly steps: number[] }> {
  const child = command(out).spawn(), steps: number[] = [];
  const errors = new Response(child.stderr).text();
  let text = "";
  for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) {
    text += piece;
    const lines = text.split("\n");
    text = lines.pop()!;
    for (const line of lines) {
      const event = JSON.parse(line);
      if (event.event === "step") steps.push(event.step);
      if (kill && steps.length === kill.steps) {
        setTimeout(() => child.kill(kill.signal ?? "SIGKILL"), kill.delay);
      }
    }
  }
  const { code } = await child.status, said = await errors;
  if (code !== 0 && !kill) throw new Error(said);
  return { code, steps };
}

const last = (folder: string) => `${folder}/checkpoints/step-00000014`;

Deno.test({
  name: "a run killed at random moments goes on and ends with the same bits as one that was not",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const folder = Deno.makeTempDirSync();
    try {
      const whole = await run(`${folder}/whole`);
      assertEquals(whole.steps, Array.from({ length: 14 }, (_, i) => i));
      const kills = [0, 1].map(() => ({
        steps: 1 + Math.floor(6 * Math.random()),
        delay: Math.floor(30 * Math.random()),
      }));
      const told = JSON.stringify(kills);
      for (const kill of kills) {
        assert((await run(`${folder}/killed`, kill)).code !== 0, `${told}: ended before the kill`);
      }
      const { steps } = await run(`${folder}/killed`);
      assert(steps[0] > 0 || kills.every((k) => k.steps <= 3), `${told}: started at ${steps[0]}`);
      for (const name of ["model", "ema", "optimizer"]) {
        const [a, b] = ["whole", "killed"].map((run) =>
          Deno.readFileSync(`${last(`${folder}/${run}`)}/${name}.safetensors`)
        );
        assertEquals(a.length, b.length);
        assert(a.every((byte, i) => byte === b[i]), `${told}: ${name} differs`);
      }
      const losses = ["whole", "killed"].map((name) =>
        Deno.readTextFileSync(`${folder}/${name}/log.jsonl`).trim().split("\n").map((l) => {
          const { step, loss } = JSON.parse(l);
          return [step, loss];
        })
      );
      assertEquals(losses[0], losses[1], told);
      const names = [...Deno.readDirSync(`${folder}/killed/checkpoints`)].filter((e) =>
        e.name.startsWith("step-")
      );
      assertEquals(names.length, 3);
      assert(Deno.readTextFileSync(`${folder}/killed/loss.svg`).includes('aria-label="line"'));
      assert(Deno.readTextFileSync(`${folder}/killed/report.html`).includes("14 of 14 steps"));
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "Ctrl-C finishes the step, saves it and ends with code 130",
  ignore: Deno.build.os === "windows",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const folder = Deno.makeTempDirSync();
    try {
      const { code, steps } = await run(folder, { steps: 3, delay: 0, signal: "SIGINT" });
      assertEquals(code, 130);
      const [saved] = [...Deno.readDirSync(`${folder}/checkpoints`)].map((e) => e.name).sort().reverse();
      assertEquals(saved, `step-${String(steps.length).padStart(8, "0")}`);
      assert(
        Deno.readTextFileSync(`${folder}/report.html`).includes(`stopped after ${steps.length} of 14 steps`),
      );
      assertEquals((await run(folder)).steps[0], steps.length);
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  },
});

Deno.test("mixed precision says in one line what it is, and is a change like any other", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    const said = async (...more: string[]) => {
      const sets = [`datasets.train.data_list=${CLIPS}`, ...more].flatMap((s) => ["--set", s]);
      const args = ["train", "--config", CONFIG, "--out", folder, "--device", "cpu", ...sets];
      const { code, stderr } = await far(args, {}, "-P=train");
      assertEquals(code, 0, stderr);
      return stderr.split("\n");
    };
    const first = await said("mixed_precision=bf16", "train.total_iter=2");
    assertEquals(
      first.filter((l) => l.includes("stored as f16 (devices have no bf16)")).length,
      1,
      `${first}`,
    );
    const second = await said("mixed_precision=fp16", "train.total_iter=3");
    assert(!second.some((l) => l.includes("dtype: ")), `${second}`);
    const third = await said("mixed_precision=no", "train.total_iter=4");
    assert(third.some((l) => l.includes('dtype: was "f16", is not set')), third.join("\n"));
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("train refuses what does not fit in one line, with exit code 1 or 2", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    for (
      const [more, expected] of [
        [["--set", "train.learning_rate=1"], "train.learning_rate: there is no such option"],
        [["--set", "datasets.train.type=FolderDatset"], "datasets.train.type: expected UCFDataset"],
        [["--set", "datasets.train.data_cfg.num_frames=40"], "24 frames"],
        [["--init", "no/such/file.pth"], "no/such/file.pth"],
      ] as const
    ) {
      const { code, stderr } = await command(`${folder}/x`, more).output();
      const said = new TextDecoder().decode(stderr).trim();
      assert(code === 1 || code === 2, `${more}: exit code ${code}`);
      assert(said.includes(expected) && said.split("\n").length === 1, `${more}: ${said}`);
      assertEquals([...Deno.readDirSync(folder)].length, 0, "nothing is written");
    }
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
