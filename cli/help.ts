/**
 * `--help` and shell completion, made from the declarations of the verbs.
 *
 * @module
 */
import { type Flag, UsageError, type Verb } from "./args.ts";
import { cardNote } from "./card.ts";
import { type Paint, plain } from "./colour.ts";

/** Start of every command line of far.ts in help and examples. */
export const COMMAND = "deno run -P far.ts";

/** Permission sets of verbs that the default one does not suffice for: a download, and a look for ffmpeg. */
const SETS: Readonly<Record<string, string>> = { weights: "net", doctor: "ffmpeg" };

/** Start of a verb's command line, with its permission set. */
export const commandOf = (verb: string): string =>
  verb in SETS ? COMMAND.replace("-P", `-P=${SETS[verb]}`) : COMMAND;

/** Exit codes of every verb. */
export const EXIT_CODES: Readonly<Record<number, string>> = {
  0: "done",
  1: "failed: a file, a device or the work itself; one line says why",
  2: "usage: an unknown verb or flag, or a value that it does not take",
  129: "ended with its terminal (SIGHUP); what was finished is kept",
  130: "interrupted by Ctrl-C (SIGINT); what was finished is kept",
  143: "ended by SIGTERM; what was finished is kept",
};

const WIDTH = 100;

/** Breaks words into lines of at most `WIDTH` columns, later lines indented. */
function wrap(words: string, indent: number): string {
  const lines: string[] = [];
  let line = "";
  for (const word of words.split(/\s+/)) {
    if (line !== "" && line.length + word.length + 1 > WIDTH - indent) {
      lines.push(line);
      line = "";
    }
    line += (line === "" ? "" : " ") + word;
  }
  return [...lines, line].join(`\n${" ".repeat(indent)}`);
}

function columns(rows: readonly (readonly [string, string])[], paint: Paint): string {
  const width = Math.min(30, Math.max(0, ...rows.map(([left]) => left.length)) + 2);
  return rows.map(([left, right]) => {
    const gap = left.length + 2 > width ? `\n  ${" ".repeat(width)}` : " ".repeat(width - left.length);
    return `  ${paint("name", left)}${gap}${wrap(right, width + 2)}`;
  }).join("\n");
}

function flagRow(name: string, flag: Flag<unknown>, verb: string): readonly [string, string] {
  const left = flag.kind === "toggle" ? `--${name}` : `--${name} ${flag.value}`;
  const range = flag.min !== undefined && flag.max !== undefined
    ? `${flag.min} to ${flag.max}`
    : flag.min !== undefined
    ? `at least ${flag.min}`
    : "";
  const standard = flag.kind === "toggle" || flag.default === undefined || flag.many
    ? ""
    : `default ${flag.default}`;
  const notes = [range, standard, cardNote(verb, name)].filter((s) => s !== "").join(", ");
  return [left, notes === "" ? flag.help : `${flag.help} (${notes})`];
}

/** The text of `far.ts VERB --help`. */
export function verbHelp(verb: Verb, paint: Paint = plain): string {
  const head = (text: string) => paint("heading", text);
  const operands = (verb.operands ?? []).map((o) => {
    const name = o.many ? `${o.name}...` : o.name;
    return o.optional ? `[${name}]` : name;
  });
  const parts = [
    `${head(verb.summary)}\n\n${head("Usage:")} ${
      [commandOf(verb.name), verb.name, ...operands].join(" ")
    } [flags]`,
    ...(verb.about ?? "").split("\n\n").filter((p) => p !== "").map((p) => wrap(p, 0)),
  ];
  if (verb.operands?.length) {
    const rows = verb.operands.map((o) =>
      [o.name, o.choices ? `${o.help} (${o.choices.join(", ")})` : o.help] as const
    );
    parts.push(`${head("Operands:")}\n${columns(rows, paint)}`);
  }
  const rows = Object.entries(verb.flags).map(([name, flag]) => flagRow(name, flag, verb.name));
  parts.push(`${head("Flags:")}\n${columns([...rows, ["--help", "print this"]], paint)}`);
  const examples = verb.examples.map((e) => `  # ${e.does}\n  ${commandOf(verb.name)} ${e.line}`);
  parts.push(`${head("Examples:")}\n${examples.join("\n")}`);
  parts.push(`${head("Exit codes:")}\n${columns(Object.entries(EXIT_CODES), paint)}`);
  return parts.join("\n\n");
}

/** The text of `far.ts --help`. */
export function overview(verbs: readonly Verb[], paint: Paint = plain): string {
  const head = (text: string) => paint("heading", text);
  return [
    head("FAR: long-context autoregressive video prediction and generation (arXiv 2503.19325)"),
    `${head("Usage:")} ${COMMAND} VERB [flags]`,
    `${head("Verbs:")}\n${columns(verbs.map((v) => [v.name, v.summary] as const), paint)}`,
    `Every verb explains itself: ${COMMAND} predict --help`,
    wrap(
      "The word world names the bundled model (--model world) and walks with small steps through the built-in world " +
        "(evaluate world); grid names walks by turns of 90 degrees and whole cells, on which the model was trained. grid:N and " +
        "world:N are clips, the N-th test walk, in every verb that takes one.",
      0,
    ),
    `${head("Environment:")}\n${columns(Object.entries(ENVIRONMENT), paint)}`,
    `${head("Exit codes:")}\n${columns(Object.entries(EXIT_CODES), paint)}`,
  ].join("\n\n");
}

/** Environment variables that far.ts reads, with what they do. Everything else is ignored. */
export const ENVIRONMENT: Readonly<Record<string, string>> = {
  FAR_DEVICE: "webgpu, cpu or auto, where --device is not given",
  FAR_BLAS: "auto, off or the path of a library, where --blas is not given",
  FAR_FFMPEG: "path of an ffmpeg binary, or none: video is then read in-process",
  FFMPEG_BIN: "the same, where FAR_FFMPEG is not set",
  FAR_OFFLINE: "1 forbids downloads",
  FAR_CACHE: "folder of pulled checkpoints, and of what was timed on this machine",
  FAR_WEIGHTS_URL: "base URL of the model zoo, where --url is not given",
  FAR_TOKEN: "token for the model zoo",
  HF_TOKEN: "the same, where FAR_TOKEN is not set",
  FAR_DEBUG: "1 prints the stack of an error",
  NO_COLOR: "anything turns colours off",
  FORCE_COLOR: "anything but 0 turns colours on where there is no terminal",
};

/**
 * A completion script for a shell.
 *
 * @throws {UsageError} For a shell that is not bash, zsh or fish.
 */
export function completionScript(verbs: readonly Verb[], shell: string): string {
  const flagWords = (verb: Verb) => [...Object.keys(verb.flags), "help"].map((n) => `--${n}`).join(" ");
  const choices = (verb: Verb) => Object.entries(verb.flags).filter(([, f]) => f.choices);
  const names = verbs.map((v) => v.name).join(" ");
  if (shell === "fish") {
    const seen = (verb: Verb) => `contains -- ${verb.name} (commandline -opc)`;
    const none = verbs.map((v) => `not ${seen(v)}`).join("; and ");
    return [
      "# far.ts completion fish | source      (for a command or function named far)",
      ...verbs.map((v) =>
        `complete -c far -n '${none}' -f -a ${v.name} -d '${v.summary.replaceAll("'", "")}'`
      ),
      ...verbs.flatMap((v) =>
        Object.entries(v.flags).map(([name, flag]) =>
          `complete -c far -n '${seen(v)}' -l ${name} -d '${flag.help.replaceAll("'", "")}'` +
          (flag.kind === "toggle"
            ? ""
            : flag.choices
            ? ` -x -a '${flag.choices.join(" ")}'`
            : flag.file
            ? " -r"
            : " -x")
        )
      ),
    ].join("\n");
  }
  if (shell !== "bash" && shell !== "zsh") {
    throw new UsageError(`far.ts completion: expected bash or zsh or fish, found ${shell}`);
  }
  return [
    `# ${
      shell === "zsh"
        ? "autoload -U +X compinit && compinit && autoload -U +X bashcompinit && bashcompinit; "
        : ""
    }` +
    `eval "$(far completion ${shell})"   (for a command, alias or function named far)`,
    ...(shell === "zsh" ? ["autoload -U +X bashcompinit && bashcompinit"] : []),
    "_far() {",
    "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} verb=${COMP_WORDS[1]} flags= values=",
    `  if [ "$COMP_CWORD" -eq 1 ]; then COMPREPLY=($(compgen -W "${names}" -- "$word")); return; fi`,
    '  case "$verb" in',
    ...verbs.map((v) =>
      `    ${v.name}) flags="${flagWords(v)}"` +
      (choices(v).length === 0 ? "" : '; case "$before" in ' +
        choices(v).map(([name, f]) => `--${name}) values="${f.choices!.join(" ")}" ;;`).join(" ") + " esac") +
      " ;;"
    ),
    "  esac",
    '  if [ -n "$values" ]; then COMPREPLY=($(compgen -W "$values" -- "$word"))',
    '  elif [ "${word#-}" != "$word" ]; then COMPREPLY=($(compgen -W "$flags" -- "$word"))',
    '  else COMPREPLY=($(compgen -f -- "$word")); fi',
    "}",
    "complete -o filenames -F _far far",
  ].join("\n");
}
