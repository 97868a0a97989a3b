/**
 * Counts a JUnit report: `deno run --allow-read .ci/count.ts REPORT EXIT_CODE` prints passed and failed. An ignored test
 * counts as failed, and so does a run that ended badly although no test failed (a type error, a crash, a timeout).
 *
 * @module
 */
const [report, code] = Deno.args;
let xml = "";
try {
  xml = Deno.readTextFileSync(report);
} catch {
  // The run ended before it wrote its report: counted below.
}
const cases = xml.match(/<testcase\b(?:[^>]*\/>|[\s\S]*?<\/testcase>)/g) ?? [];
const bad = cases.filter((c) => /<(?:failure|error|skipped)\b/.test(c));
for (const c of bad.filter((c) => c.includes("<skipped"))) {
  console.error(`ignored, counted as failed: ${/name="([^"]*)"/.exec(c)?.[1]}`);
}
const ended = code !== "0" && bad.length === 0 ? 1 : 0;
if (ended) console.error(`the test run ended with exit code ${code}`);
console.log(cases.length - bad.length, bad.length + ended + (code === "0" && cases.length === 0 ? 1 : 0));
