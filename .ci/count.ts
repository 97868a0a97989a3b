/**
 * Counts a JUnit report: `deno run --allow-read .ci/count.ts REPORT EXIT_CODE [ignored]` prints passed and failed. An ignored
 * test counts as failed, and with the last word as neither; a run that ended badly although no test failed (a type error, a
 * crash, a timeout) counts as failed.
 *
 * @module
 */
const [report, code, mayIgnore] = Deno.args;
let xml = "";
try {
  xml = Deno.readTextFileSync(report);
} catch {
  // The run ended before it wrote its report: counted below.
}
const cases = xml.match(/<testcase\b(?:[^>]*\/>|[\s\S]*?<\/testcase>)/g) ?? [];
const ignored = cases.filter((c) => c.includes("<skipped"));
const bad = cases.filter((c) =>
  /<(?:failure|error)\b/.test(c) || (mayIgnore !== "ignored" && ignored.includes(c))
);
for (const c of ignored) {
  console.error(
    `ignored${mayIgnore === "ignored" ? "" : ", counted as failed"}: ${/name="([^"]*)"/.exec(c)?.[1]}`,
  );
}
const ended = code !== "0" && bad.length === 0 ? 1 : 0;
if (ended) console.error(`the test run ended with exit code ${code}`);
const good = cases.filter((c) => !bad.includes(c) && !ignored.includes(c));
console.log(good.length, bad.length + ended + (code === "0" && cases.length === 0 ? 1 : 0));
