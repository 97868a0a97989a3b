/**
 * The command line: `deno run -P far.ts VERB --help`.
 *
 * @module
 */
import { main } from "./cli/main.ts";
import { report } from "./cli/report.ts";

// What nobody awaited is still one line and an exit code, not a stack.
globalThis.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  Deno.exit(report(event.reason));
});

if (import.meta.main) Deno.exit(await main(Deno.args));
