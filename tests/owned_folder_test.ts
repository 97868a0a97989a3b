import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { FileAccessError } from "../lib/io/errors.ts";
import { FolderLockedError, LOCK_FILE } from "../lib/io/folder_lock.ts";
import { type Claim, MARKER_FILE, OwnedFolder, OwnershipError } from "../lib/io/owned_folder.ts";
import { inFolder } from "./io_helpers.ts";

const CLAIM: Claim = { kind: "made", flag: "--out" };
const WORKING = ["state.bin", "piece-*.bin", "result.txt", "more/*.txt"];

/** All files below a folder with their content, and links with where they lead. */
function contentOf(folder: string, below = ""): Record<string, string> {
  const found: Record<string, string> = {};
  for (const { name, isDirectory, isSymlink } of Deno.readDirSync(`${folder}/${below}`)) {
    const inner = below === "" ? name : `${below}/${name}`, path = `${folder}/${inner}`;
    if (isSymlink) found[inner] = `-> ${Deno.readLinkSync(path)}`;
    else if (!isDirectory) found[inner] = Deno.readTextFileSync(path);
    else Object.assign(found, { [`${inner}/`]: "" }, contentOf(folder, inner));
  }
  return found;
}

/** Writes a complete result. */
async function makeResult(path: string, text = "one", fingerprint: unknown = { text }): Promise<void> {
  using folder = await OwnedFolder.claim(path, CLAIM);
  assert(!await folder.begin(fingerprint, { working: WORKING }));
  Deno.writeTextFileSync(folder.part("state.bin"), "state");
  Deno.writeTextFileSync(folder.part("result.txt"), text);
  await folder.place(["result.txt"]);
}

/** Expects a refusal that leaves a folder as it is, byte for byte. */
async function refused(
  folder: string,
  path: string,
  words: string,
  claim = CLAIM,
  kind: typeof OwnershipError = OwnershipError,
) {
  const before = contentOf(folder);
  const error = await assertRejects(() => OwnedFolder.claim(path, claim), kind);
  assertStringIncludes(error.message, words);
  assert(!error.message.includes("\n"));
  assertEquals(contentOf(folder), before);
}

Deno.test("a claimed folder gets its result in one step, and nothing but result and marker stays", async () => {
  await inFolder(async (folder) => {
    const out = `${folder}/a/b/out`;
    await makeResult(out);
    assertEquals(Object.keys(contentOf(out)).sort(), [MARKER_FILE, "result.txt"]);
    await makeResult(out, "two");
    assertEquals(contentOf(out)["result.txt"], "two");
    using again = await OwnedFolder.claim(out, CLAIM);
    assertEquals(again.files, ["result.txt"]);
  });
});

Deno.test("a folder that was claimed and got nothing is gone afterwards, with all that was made for it", async () => {
  await inFolder(async (folder) => {
    (await OwnedFolder.claim(`${folder}/a/b`, CLAIM))[Symbol.dispose]();
    assertEquals(contentOf(folder), {});
    Deno.mkdirSync(`${folder}/empty`);
    (await OwnedFolder.claim(`${folder}/empty`, CLAIM))[Symbol.dispose]();
    assertEquals(contentOf(folder), { "empty/": "" });
  });
});

Deno.test("foreign folders are refused and stay as they are", async () => {
  await inFolder(async (folder) => {
    Deno.mkdirSync(`${folder}/thesis/figures`, { recursive: true });
    await refused(folder, `${folder}/thesis`, "holds figures/");
    Deno.writeTextFileSync(`${folder}/thesis/result.json`, "{}");
    await refused(folder, `${folder}/thesis`, "and 1 more, expected a new folder");
    Deno.symlinkSync(`${folder}/thesis`, `${folder}/link`);
    await refused(folder, `${folder}/link`, "--out");
    Deno.mkdirSync(`${folder}/odd`);
    Deno.writeTextFileSync(`${folder}/odd/\x1b[31mred\nfar: done`, "");
    await refused(folder, `${folder}/odd`, '"\\u001b[31mred\\nfar: done"');
    await refused(folder, `${folder}/thesis`, "figures", { ...CLAIM, others: "keep" });
  });
});

Deno.test("an own folder with something foreign in it is refused, wherever it lies, and so is another kind", async () => {
  await inFolder(async (folder) => {
    const out = `${folder}/out`;
    for (const name of ["notes.txt", "part/notes.txt", "deep/er/x.txt", ".hidden", "part/piece-1.bin"]) {
      await makeResult(out);
      const path = `${out}/${name}`;
      Deno.mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
      Deno.writeTextFileSync(path, "mine");
      await refused(
        folder,
        out,
        `holds ${name} beside an earlier result of made, which did not write it`,
      );
      Deno.removeSync(out, { recursive: true });
    }
    await makeResult(out);
    await refused(folder, out, "holds what made wrote", { ...CLAIM, kind: "other" });
    Deno.writeTextFileSync(`${out}/.DS_Store`, "");
    await makeResult(out, "two"); // what desktops leave on their own counts for nothing
    assertEquals(contentOf(out)["result.txt"], "two");
  });
});

Deno.test("links are refused, inside the folder and as the folder, and what they lead to is untouched", async () => {
  await inFolder(async (folder) => {
    const out = `${folder}/out`;
    Deno.writeTextFileSync(`${folder}/movie.txt`, "mine");
    Deno.mkdirSync(`${folder}/elsewhere`);
    for (
      const [name, target] of [["result.txt", "movie.txt"], ["part", "elsewhere"], [MARKER_FILE, "movie.txt"]]
    ) {
      await makeResult(out);
      if (name !== "part") Deno.removeSync(`${out}/${name}`);
      Deno.symlinkSync(`${folder}/${target}`, `${out}/${name}`);
      await refused(folder, out, name);
      Deno.removeSync(out, { recursive: true });
    }
    await makeResult(out);
    Deno.symlinkSync(`${folder}/movie.txt`, `${out}/${LOCK_FILE}`);
    await refused(folder, out, LOCK_FILE);
    Deno.symlinkSync(`${folder}/nowhere`, `${folder}/dangling`);
    await assertRejects(
      () => OwnedFolder.claim(`${folder}/dangling`, CLAIM),
      FileAccessError,
      "link that leads nowhere",
    );
    Deno.removeSync(`${out}/${LOCK_FILE}`);
    Deno.symlinkSync(out, `${folder}/to_out`);
    await makeResult(`${folder}/to_out`, "through the link");
    assertEquals(contentOf(out)["result.txt"], "through the link");
  });
});

Deno.test("a forged or damaged marker removes nothing", async () => {
  await inFolder(async (folder) => {
    const out = `${folder}/out`;
    Deno.mkdirSync(out);
    Deno.writeTextFileSync(`${folder}/movie.txt`, "mine");
    const marker = { kind: "made", files: [] as unknown[], run: null, placing: null as unknown };
    const forged = [
      "",
      "[]",
      "{",
      JSON.stringify({ ...marker, files: ["../movie.txt"] }),
      JSON.stringify({ ...marker, files: ["/etc/passwd"] }),
      JSON.stringify({ ...marker, files: ["a/../../movie.txt"] }),
      JSON.stringify({ ...marker, files: [1] }),
      JSON.stringify({ ...marker, placing: ["../movie.txt"] }),
      JSON.stringify({ ...marker, run: { fingerprint: 1, working: ["../../*"] } }),
    ];
    for (const text of forged) {
      Deno.writeTextFileSync(`${out}/${MARKER_FILE}`, text);
      await refused(folder, out, "is damaged");
    }
  });
});

Deno.test("a folder that the job reads, one inside it and one around it are refused", async () => {
  await inFolder(async (folder) => {
    const out = `${folder}/out`;
    await makeResult(out);
    for (const [path, source] of [[out, out], [out, `${out}/result.txt`], [`${out}/deeper`, out]]) {
      await refused(folder, path, "which is read", { ...CLAIM, sources: [source] });
    }
    Deno.symlinkSync(`${out}/result.txt`, `${folder}/source.txt`);
    await refused(folder, out, "which is read", { ...CLAIM, sources: [`${folder}/source.txt`] });
    using _ = await OwnedFolder.claim(out, { ...CLAIM, sources: [`${folder}/nowhere`, "world:3"] });
  });
});

Deno.test("a second claim is refused while the first one stands, with the process that holds it", async () => {
  await inFolder(async (folder) => {
    const out = `${folder}/out`;
    {
      using first = await OwnedFolder.claim(out, CLAIM);
      await first.begin(1, { working: WORKING });
      const error = await assertRejects(() => OwnedFolder.claim(out, CLAIM), FolderLockedError);
      assertStringIncludes(error.message, `process ${Deno.pid}`);
    }
    // The lock of a process that has ended counts for nothing; one from another machine may still be held.
    const holder = { pid: 4_000_000, host: Deno.hostname(), since: "2026-01-01" };
    Deno.writeTextFileSync(`${out}/${LOCK_FILE}`, JSON.stringify(holder));
    (await OwnedFolder.claim(out, CLAIM))[Symbol.dispose]();
    Deno.writeTextFileSync(`${out}/${LOCK_FILE}`, JSON.stringify({ ...holder, host: "elsewhere" }));
    const error = await assertRejects(() => OwnedFolder.claim(out, CLAIM), FolderLockedError);
    assertStringIncludes(error.message, "process 4000000 on elsewhere");
    assertStringIncludes(error.message, `remove ${Deno.realPathSync(out)}/${LOCK_FILE}`);
  });
});

Deno.test("an interrupted run is resumed with the same fingerprint, else refused with the first difference, or restarted", async () => {
  await inFolder(async (folder) => {
    const out = `${folder}/out`, settings = { flags: { steps: 4, seed: 0 }, files: ["a", "b"] };
    await makeResult(out, "earlier");
    {
      using run = await OwnedFolder.claim(out, CLAIM);
      assert(!await run.begin(settings, { working: WORKING }));
      Deno.writeTextFileSync(run.part("piece-1.bin"), "1");
    }
    assertEquals(contentOf(out)["result.txt"], "earlier");
    {
      using run = await OwnedFolder.claim(out, CLAIM);
      assert(await run.begin(structuredClone(settings), { working: WORKING }));
      assertEquals(Deno.readTextFileSync(run.part("piece-1.bin")), "1");
    }
    for (
      const [other, words] of [
        [{ ...settings, flags: { steps: 5, seed: 0 } }, "another flags.steps (4, now 5)"],
        [{ ...settings, files: ["a", "c"] }, 'another files.1 ("b", now "c")'],
        [{ ...settings, late: true }, "another late (nothing, now true)"],
        [{ flags: settings.flags }, 'another files (["a","b"], now nothing)'],
      ] as const
    ) {
      using run = await OwnedFolder.claim(out, CLAIM);
      const error = await assertRejects(() => run.begin(other, { working: WORKING }), OwnershipError);
      assertStringIncludes(error.message, words);
      assertStringIncludes(error.message, "repeat that command to resume it, give --restart to discard it");
      assertEquals(Deno.readTextFileSync(run.part("piece-1.bin")), "1");
    }
    using run = await OwnedFolder.claim(out, CLAIM);
    assert(!await run.begin({ other: 1 }, { working: WORKING, restart: true }));
    assertEquals(contentOf(out)["part/piece-1.bin"], undefined);
  });
});

Deno.test("a result that a killed process was putting in place is completed by the next claim", async () => {
  await inFolder(async (folder) => {
    const out = `${folder}/out`;
    await makeResult(out, "one");
    for (const moved of [0, 1, 2, 3]) {
      {
        using run = await OwnedFolder.claim(out, CLAIM);
        await run.begin({ moved }, { working: WORKING });
        Deno.mkdirSync(run.part("more"), { recursive: true });
        for (const name of ["more/a.txt", "more/b.txt", "result.txt"]) {
          Deno.writeTextFileSync(run.part(name), `${moved}`);
        }
        Deno.writeTextFileSync(run.part("state.bin"), "state");
        Deno.writeTextFileSync(`${out}/.${MARKER_FILE}.1-0123abcd.tmp`, "half a mark");
      }
      const path = `${out}/${MARKER_FILE}`, marker = JSON.parse(Deno.readTextFileSync(path));
      const placing = ["more/a.txt", "more/b.txt", "result.txt"];
      Deno.writeTextFileSync(
        path,
        JSON.stringify({ ...marker, files: [...new Set([...marker.files, ...placing])], placing }),
      );
      Deno.mkdirSync(`${out}/more`, { recursive: true });
      for (const name of placing.slice(0, moved)) Deno.renameSync(`${out}/part/${name}`, `${out}/${name}`);
      (await OwnedFolder.claim(out, CLAIM))[Symbol.dispose]();
      const { [MARKER_FILE]: mark, ...rest } = contentOf(out), text = `${moved}`;
      assertEquals(rest, { "more/": "", "more/a.txt": text, "more/b.txt": text, "result.txt": text });
      assertEquals(JSON.parse(mark).fingerprint, { moved });
    }
    await makeResult(out, "without more");
    assertEquals(Object.keys(contentOf(out)).sort(), [MARKER_FILE, "result.txt"]);
  });
});

Deno.test("paths that cannot become a folder are refused at once", async () => {
  await inFolder(async (folder) => {
    Deno.writeTextFileSync(`${folder}/file`, "mine");
    for (
      const [path, words] of [
        [`${folder}/file`, "exists and is not a folder"],
        [`${folder}/file/below`, "a part of the path is a file"],
        [`${folder}/${"x".repeat(300)}`, "file name too long"],
      ]
    ) {
      const error = await assertRejects(() => OwnedFolder.claim(path, CLAIM), FileAccessError);
      assertStringIncludes(error.message, words);
    }
    assertEquals(contentOf(folder), { file: "mine" });
  });
});

Deno.test("a file that somebody puts in the place of a result during the run is not replaced", async () => {
  await inFolder(async (folder) => {
    const out = `${folder}/out`;
    using run = await OwnedFolder.claim(out, CLAIM);
    await run.begin(1, { working: WORKING });
    Deno.writeTextFileSync(run.part("result.txt"), "result");
    Deno.writeTextFileSync(`${out}/result.txt`, "mine");
    const error = await assertRejects(() => run.place(["result.txt"]), OwnershipError);
    assertStringIncludes(error.message, "result.txt has appeared during the run");
    assertEquals(Deno.readTextFileSync(`${out}/result.txt`), "mine");
    Deno.removeSync(`${out}/result.txt`);
    await run.place(["result.txt"]);
    assertEquals(Deno.readTextFileSync(`${out}/result.txt`), "result");
  });
});
