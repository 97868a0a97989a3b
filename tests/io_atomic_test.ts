import { assert, assertEquals, assertRejects } from "@std/assert";
import { writeAtomic, writeAtomicAt, writeFolderAtomic } from "../lib/io/atomic.ts";
import { FileAccessError } from "../lib/io/errors.ts";
import { fromFloat32 } from "../lib/io/host.ts";
import { writeSafetensors } from "../lib/io/safetensors.ts";
import { assertOneLine, inFolder } from "./io_helpers.ts";
import { toolTest } from "./tools.ts";

function names(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();
}

/** A deno process that imports our module and runs `body`. */
function child(body: string): Deno.ChildProcess {
  const module = new URL("../lib/io/atomic.ts", import.meta.url).href;
  return new Deno.Command(Deno.execPath(), {
    args: ["eval", `import { writeAtomic } from ${JSON.stringify(module)};\n${body}`],
    stdout: "piped",
    stderr: "null",
  }).spawn();
}

Deno.test("writeAtomic() writes text, bytes and pieces, makes missing folders and replaces the old file", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/a/b/x.txt`;
    await writeAtomic(path, "one");
    await writeAtomic(path, new Uint8Array([50]));
    assertEquals(Deno.readTextFileSync(path), "2");
    await writeAtomic(path, async (file) => {
      file.write(new Uint8Array([104]));
      await Promise.resolve();
      assertEquals(file.position, 1);
      assertEquals(Deno.readTextFileSync(path), "2", "the old content stands until the new one is whole");
      file.write(new Uint8Array([105]));
    });
    assertEquals(Deno.readTextFileSync(path), "hi");
    assertEquals(names(`${folder}/a/b`), ["x.txt"]);
  });
});

Deno.test("a write that fails leaves the old content and no temporary file, and its own error comes through", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/x.txt`;
    await writeAtomic(path, "old");
    const own = new RangeError("mine");
    const failing = (at: string) =>
      writeAtomic(at, (file) => {
        file.write(new Uint8Array(10));
        throw own;
      });
    assertEquals(await assertRejects(() => failing(path)), own);
    assertEquals(await assertRejects(() => failing(`${folder}/new.txt`)), own);
    await assertRejects(() => writeAtomicAt(path, () => Promise.reject(own)), RangeError, "mine");
    // A program that returned without having written anything is a failure too.
    await assertRejects(() => writeAtomicAt(path, () => {}), FileAccessError, "nothing was written");
    assertEquals(names(folder), ["x.txt"]);
    assertEquals(Deno.readTextFileSync(path), "old");
  });
});

Deno.test("a path below a file, a folder as file and a device are refused in one line", async () => {
  await inFolder(async (folder) => {
    await writeAtomic(`${folder}/file`, "x");
    const refused = async (write: () => Promise<void>, ...parts: string[]) => {
      assertOneLine(await assertRejects(write), ...parts);
      assertEquals(names(folder), ["file"]);
    };
    await refused(
      () => writeAtomic(`${folder}/file/below.txt`, "x"),
      `${folder}/file/below.txt: cannot write: `,
      "a file",
    );
    await refused(() => writeAtomic(`${folder}/file/deep/below.txt`, "x"), "cannot write: ", "a file");
    await refused(() => writeFolderAtomic(`${folder}/file/below`, () => {}), "cannot write: ", "a file");
    await refused(() => writeAtomic(folder, "x"), "exists and is not a regular file");
    await refused(() => writeFolderAtomic(`${folder}/file`, () => {}), "exists and is not a folder");
    if (Deno.build.os !== "windows") {
      await refused(() => writeAtomic("/dev/null", "x"), "exists and is not a regular file");
      assert(Deno.statSync("/dev/null").isCharDevice);
    }
  });
});

Deno.test("a full disk is named, and the old file stays", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/x.safetensors`;
    const small = { x: fromFloat32(new Float32Array([1]), [1]) };
    await writeSafetensors(path, small);
    const before = Deno.readFileSync(path);
    const full = Object.assign(new Error("write failed"), { code: "ENOSPC" });
    const error = await assertRejects(() =>
      writeAtomic(path, () => {
        throw full;
      })
    );
    assertOneLine(error, `${path}: cannot write: no space left on the device`);
    assertEquals(Deno.readFileSync(path), before);
    assertEquals(names(folder), ["x.safetensors"]);
  });
});

/** Mounts a file system of 1 MiB, where that is allowed. */
async function mountSmall(folder: string): Promise<boolean> {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return false;
  const mount = new Deno.Command("mount", {
    args: ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder],
    stderr: "null",
  });
  try {
    return (await mount.output()).success;
  } catch {
    return false;
  }
}

toolTest(
  ["mount"],
  "a disk that fills up while a file is written is named, and nothing is left behind",
  async () => {
    await inFolder(async (folder) => {
      if (!await mountSmall(folder)) return; // the test above covers the message where mounting is not allowed
      try {
        const path = `${folder}/x.safetensors`;
        await writeSafetensors(path, { x: fromFloat32(new Float32Array([1]), [1]) });
        const before = Deno.readFileSync(path);
        const large = { x: fromFloat32(new Float32Array(1_000_000), [1_000_000]) };
        const error = await assertRejects(() => writeSafetensors(path, large));
        assertOneLine(error, `${path}: cannot write: no space left on the device`);
        assertEquals(Deno.readFileSync(path), before);
        assertEquals(names(folder), ["x.safetensors"]);
      } finally {
        await new Deno.Command("umount", { args: [folder] }).output();
      }
    });
  },
);

Deno.test("a process killed while it writes leaves the old file whole; what it left is swept away later", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/x.txt`;
    await writeAtomic(path, "old");
    const process = child(`
      await writeAtomic(${JSON.stringify(path)}, async (file) => {
        file.write(new Uint8Array(1000));
        console.log("writing");
        await new Promise((resolve) => setTimeout(resolve, 60_000));
      });`);
    const reader = process.stdout.getReader();
    await reader.read();
    await writeAtomic(path, "in between");
    assertEquals(names(folder).length, 2, "it belongs to a process that still writes");
    process.kill("SIGKILL");
    await process.status;
    await reader.cancel();
    assertEquals(Deno.readTextFileSync(path), "in between");
    const left = names(folder).filter((name) => name.endsWith(".tmp"));
    assertEquals(left.length, 1);
    await writeAtomic(path, "newer");
    assertEquals(names(folder), ["x.txt"]);
  });
});

Deno.test("a process that exits while it writes removes its temporary file", async () => {
  await inFolder(async (folder) => {
    const process = child(`
      await writeAtomic(${JSON.stringify(`${folder}/x.txt`)}, (file) => {
        file.write(new Uint8Array(1000));
        Deno.exit(3);
      });`);
    assertEquals((await process.status).code, 3);
    await process.stdout.cancel();
    assertEquals(names(folder), []);
  });
});

Deno.test("of two writers at once one wins with its whole content", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/x.bin`;
    await Promise.all([1, 2, 3, 4].map((value) =>
      writeAtomic(path, async (file) => {
        for (let i = 0; i < 10; i++) {
          file.write(new Uint8Array(100).fill(value));
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
      })
    ));
    const content = Deno.readFileSync(path);
    assertEquals(content, new Uint8Array(1000).fill(content[0]));
    assertEquals(names(folder), ["x.bin"]);
  });
});

Deno.test({
  name: "a symbolic link is followed, not replaced",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    await inFolder(async (folder) => {
      await writeAtomic(`${folder}/real/x.txt`, "old");
      Deno.symlinkSync(`${folder}/real/x.txt`, `${folder}/link.txt`);
      await writeAtomic(`${folder}/link.txt`, "new");
      assert(Deno.lstatSync(`${folder}/link.txt`).isSymlink);
      assertEquals(Deno.readTextFileSync(`${folder}/real/x.txt`), "new");
    });
  },
});

Deno.test("writeFolderAtomic() writes a new folder as a whole, or not at all, and replaces none", async () => {
  await inFolder(async (folder) => {
    const path = `${folder}/run`;
    await writeFolderAtomic(path, async (temp) => {
      await Deno.writeTextFile(`${temp}/a`, "1");
      assertEquals(names(folder).filter((name) => !name.endsWith(".tmp")), []);
    });
    const full = await assertRejects(() => writeFolderAtomic(path, () => {}));
    assertOneLine(full, `${path}: cannot write: exists and is not empty`);
    assertEquals(names(path), ["a"]);
    Deno.mkdirSync(`${folder}/empty`);
    await assertRejects(
      () =>
        writeFolderAtomic(`${folder}/empty`, (temp) => {
          Deno.writeTextFileSync(`${temp}/c`, "3");
          throw new RangeError("stopped");
        }),
      RangeError,
      "stopped",
    );
    assertEquals(names(`${folder}/empty`), []);
    await writeFolderAtomic(`${folder}/empty`, (temp) => Deno.writeTextFileSync(`${temp}/b`, "2"));
    assertEquals(names(`${folder}/empty`), ["b"]);
    assertEquals(names(folder), ["empty", "run"]);
  });
});
