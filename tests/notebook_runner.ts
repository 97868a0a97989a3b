/**
 * Runs notebooks: under nbconvert with the Deno kernel, or, where there is no Jupyter, as one module in a process of its own.
 *
 * @module
 */
import { fromFileUrl, join } from "@std/path";

const ROOT = new URL("../", import.meta.url);

/** A cell of a notebook file. */
export interface Cell {
  /** `code` or `markdown`. */
  readonly cell_type: string;
  readonly source: readonly string[] | string;
  readonly metadata: { readonly tags?: readonly string[] };
  readonly outputs?: readonly Output[];
}

interface Output {
  readonly output_type: string;
  readonly data?: Readonly<Record<string, string | readonly string[]>>;
  readonly [more: string]: unknown;
}

/** What a code cell showed, by media type. */
export type Shown = Readonly<Record<string, string>>;

const joined = (text: string | readonly string[]) => typeof text === "string" ? text : text.join("");

/** The cells of a notebook file. */
export const cellsOf = (path: string): readonly Cell[] => JSON.parse(Deno.readTextFileSync(path)).cells;

/** The text of each code cell. */
export const codeOf = (cells: readonly Cell[]): string[] =>
  cells.filter((c) => c.cell_type === "code").map((c) => joined(c.source));

async function run(
  command: string,
  args: readonly string[],
  options: { readonly cwd: string; readonly env?: Record<string, string> },
): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args: [...args], ...options })
    .output();
  const said = new TextDecoder().decode(stderr);
  if (!success) throw new Error(`${command} failed:\n${said}`);
  return new TextDecoder().decode(stdout);
}

/** Runs a notebook under nbconvert in its own folder: for each code cell, what its last display shows. */
export async function underJupyter(path: string): Promise<Shown[]> {
  const home = await Deno.makeTempDir();
  try {
    const kernel = join(home, "kernels", "deno");
    Deno.mkdirSync(kernel, { recursive: true });
    const argv = [Deno.execPath(), "jupyter", "--kernel", "--conn", "{connection_file}"];
    const spec = { argv, display_name: "Deno", language: "typescript" };
    Deno.writeTextFileSync(join(kernel, "kernel.json"), JSON.stringify(spec));
    const patient = fromFileUrl(new URL("nbconvert_config.py", import.meta.url));
    const settings = ["--config", patient, "--ExecutePreprocessor.timeout=240"];
    const names = ["JUPYTER_PATH", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"];
    const env = Object.fromEntries([...names, "IPYTHONDIR"].map((name) => [name, home]));
    const text = await run("jupyter-nbconvert", [
      ...settings,
      ...["--to", "notebook", "--execute", "--stdout", "--log-level=ERROR", path],
    ], { cwd: home, env });
    return (JSON.parse(text).cells as Cell[]).filter((c) => c.cell_type === "code").map(
      ({ outputs = [] }) => {
        const error = outputs.find((o) => o.output_type === "error");
        if (error) throw new Error(JSON.stringify(error));
        const data = outputs.findLast((o) => o.data)?.data ?? {};
        return Object.fromEntries(Object.entries(data).map(([type, value]) => [type, joined(value)]));
      },
    );
  } finally {
    await Deno.remove(home, { recursive: true });
  }
}

/**
 * A cell in two: its statements, and the expression at its end, whose value a notebook shows.
 *
 * The last statement begins at the last line that is neither indented nor closes something; `deno fmt` sees to that.
 */
export function splitCell(code: string): { readonly body: string; readonly last: string | undefined } {
  const lines = code.trimEnd().split("\n");
  const start = lines.findLastIndex((line) => /^[^\s)}\].]/.test(line));
  const last = lines.slice(start).join("\n").replace(/;$/, "");
  const statement =
    /^(const|let|var|using|await using|import|export|function|async function|class|for|if|while|do|try|type|interface|return|throw|\/\/|\/\*)\b/;
  if (statement.test(last) || /^\/[/*]/.test(last)) return { body: code, last: undefined };
  return { body: lines.slice(0, start).join("\n"), last };
}

/** All code cells as one module; `__show(cell, value)` is given the value at the end of each. */
export function asModule(cells: readonly Cell[]): string {
  const parts = codeOf(cells).map((code, i) => {
    const { body, last } = splitCell(code);
    return last === undefined ? body : `${body}\nawait __show(${i}, (\n${last}\n));`;
  });
  return parts.join("\n").replaceAll(
    /from "(\.\.\/[^"]+)"/g,
    (_, to) => `from ${JSON.stringify(new URL(to, new URL("notebooks/", ROOT)).href)}`,
  );
}

const SHOW = `
const __shown: Record<string, string>[] = [];
async function __show(cell: number, value: unknown): Promise<void> {
  const bundle = (value as Record<symbol, () => Record<string, string>> | undefined)?.[Symbol.for("Jupyter.display")];
  __shown[cell] = bundle ? await bundle.call(value) : value === undefined ? {} : { "text/plain": Deno.inspect(value) };
}
`;

/** Runs a notebook's code cells as one module: for each, what it shows. */
export async function asOneModule(path: string): Promise<Shown[]> {
  const folder = await Deno.makeTempDir(), cells = cellsOf(path);
  try {
    const end = 'Deno.writeTextFileSync("shown.json", JSON.stringify(Array.from(__shown, (s) => s ?? {})));';
    Deno.writeTextFileSync(join(folder, "cells.ts"), `${SHOW}${asModule(cells)}\n${end}\n`);
    await run(
      Deno.execPath(),
      ["run", "-A", "--config", fromFileUrl(new URL("deno.json", ROOT)), "cells.ts"],
      { cwd: folder },
    );
    const shown: Shown[] = JSON.parse(Deno.readTextFileSync(join(folder, "shown.json")));
    return codeOf(cells).map((_, i) => shown[i] ?? {});
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Checks the types of notebooks, which the kernel does not. */
export async function checkTypes(paths: readonly string[]): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const files = paths.map((path, i) => {
      Deno.writeTextFileSync(join(folder, `${i}.ts`), `${SHOW}${asModule(cellsOf(path))}\nexport {};\n`);
      return `${i}.ts`;
    });
    await run(Deno.execPath(), ["check", "--config", fromFileUrl(new URL("deno.json", ROOT)), ...files], {
      cwd: folder,
    });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
