/**
 * Runs every recorded case under FAR_GOLDEN (default: tests/golden) on every device under test, and prints the worst
 * difference of each, relative to max(1, the largest expected value).
 */
import { isFile } from "../lib/io/paths.ts";
import { openSafetensors } from "../lib/io/safetensors.ts";
import { Differences, type GoldenCase } from "./golden_case.ts";
import { RUNNERS } from "./golden_runners.ts";
import { SETTINGS, sharedDevice, testOf } from "./helpers.ts";
import { openReferenceDevice } from "./reference_device.ts";

const root = Deno.env.get("FAR_GOLDEN") ?? new URL("./golden", import.meta.url).pathname;

function openCase(name: string): GoldenCase {
  const folder = `${root}/${name}`;
  const description = ["config.json", "summary.json", "expected.json"].find((f) => isFile(`${folder}/${f}`));
  if (!description) throw new Error(`${folder}: found no config.json, summary.json or expected.json`);
  const config = JSON.parse(Deno.readTextFileSync(`${folder}/${description}`));
  const io = isFile(`${folder}/io.safetensors`) ? openSafetensors(`${folder}/io.safetensors`) : null;
  return { name, folder, config, io };
}

const names = [...Deno.readDirSync(root)].filter((e) => e.isDirectory).map((e) => e.name).sort();

Deno.test("there are recorded cases", () => {
  if (names.length === 0) throw new Error(`${root}: found no case folders`);
});

for (const name of names) {
  const golden = openCase(name);
  const runners = RUNNERS.filter((r) => r.recognises(golden));
  golden.io?.close();
  if (runners.length === 0) {
    Deno.test(`golden ${name} is recognised`, () => {
      throw new Error(`${root}/${name}: no runner recognises this case`);
    });
    continue;
  }
  const runs = runners.flatMap((runner) =>
    (runner.device ? SETTINGS : ["host" as const]).map((deviceName) => ({ runner, deviceName }))
  );
  for (const { runner, deviceName } of runs) {
    const label = `golden ${name}: ${runner.kind} (${deviceName})`;
    Deno.test({
      ...(deviceName === "host" ? { name: label } : testOf(deviceName, label)),
      sanitizeOps: false,
      sanitizeResources: false,
      fn: async () => {
        const device = deviceName === "host" || Deno.env.get("FAR_REFERENCE")
          ? openReferenceDevice()
          : await sharedDevice(deviceName);
        const opened = openCase(name), differences = new Differences();
        try {
          await runner.run(opened, device, differences);
        } finally {
          opened.io?.close();
        }
        console.log(`  ${name}, ${runner.kind} (${deviceName}): worst ${differences}`);
      },
    });
  }
}
