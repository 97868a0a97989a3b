/**
 * `far.ts train` as a user runs it: signals, mixed precision, refusals. train_kill_test.ts kills it, train_resume_test.ts
 * resumes it.
 */
import { assert, assertEquals } from "@std/assert";
import { far } from "./cli_helpers.ts";
import { CLIPS } from "./train_cli_setup.ts";

const ROOT = new URL("../", import.meta.url);
const CONFIG = new URL("data/train_clip.yml", import.meta.url).pathname;

const DENO = Deno.execPath();

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

/** Runs to the end, or sends a signal when it has reported so many steps. Returns the steps that it reported. */
async function run(
  out: string,
  stop?: { readonly steps: number; readonly signal: Deno.Signal },
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
      if (stop && event.event === "step" && steps.length === stop.steps) child.kill(stop.signal);
    }
  }
  const { code } = await child.status, said = await errors;
  if (code !== 0 && !stop) throw new Error(said);
  return { code, steps };
}

for (const [signal, expected] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]] as const) {
  Deno.test({
    name:
      `${signal} finishes the step, saves it and ends with code ${expected}; the same command resumes after it`,
    ignore: Deno.build.os === "windows",
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      const folder = Deno.makeTempDirSync();
      try {
        const { code, steps } = await run(folder, { steps: 3, signal });
        assertEquals(code, expected);
        const [saved] = [...Deno.readDirSync(`${folder}/checkpoints`)].map((e) => e.name).sort().reverse();
        assertEquals(saved, `step-${String(steps.length).padStart(8, "0")}`);
        const report = () => Deno.readTextFileSync(`${folder}/report.html`);
        assert(report().includes(`stopped after ${steps.length} of 14 steps`));
        assertEquals((await run(folder)).steps[0], steps.length);
        assert(report().includes("14 of 14 steps"));
        const names = [...Deno.readDirSync(`${folder}/checkpoints`)].map((e) => e.name);
        assertEquals(names.length, 3, `${names}`);
        assert(Deno.readTextFileSync(`${folder}/loss.svg`).includes('aria-label="line"'));
      } finally {
        Deno.removeSync(folder, { recursive: true });
      }
    },
  });
}

Deno.test("mixed precision says in one line what it is, and a run keeps it", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    const said = async (...more: string[]) => {
      const sets = [`datasets.train.data_list=${CLIPS}`, ...more].flatMap((s) => ["--set", s]);
      const args = ["train", "--config", CONFIG, "--out", folder, "--device", "cpu", ...sets];
      const { code, stderr } = await far(args, {}, "-P");
      return { code, lines: stderr.split("\n") };
    };
    const first = await said("mixed_precision=bf16", "train.total_iter=2");
    assertEquals(first.code, 0, `${first.lines}`);
    const told = first.lines.filter((l) => l.includes("stored as f16 (devices have no bf16)"));
    assertEquals(told.length, 1, `${first.lines}`);
    const longer = await said("mixed_precision=bf16", "train.total_iter=3");
    assertEquals(longer.code, 0, `${longer.lines}`);
    const other = await said("mixed_precision=no", "train.total_iter=4");
    assert(
      other.code !== 0 && other.lines.at(-1)!.includes('mixed_precision "bf16", found "no"'),
      `${other.lines}`,
    );
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
