/**
 * The command line: `deno run -P far.ts VERB --help`.
 *
 * @module
 */
import { main } from "./cli/main.ts";

if (import.meta.main) Deno.exit(await main(Deno.args));
