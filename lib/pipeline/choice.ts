/**
 * Errors about what a caller chose.
 *
 * @module
 */

/**
 * Something was chosen that does not exist or does not go together. Options are named as in the library; the command line
 * shows its flags instead.
 */
export class ChoiceError extends Error {
  /** Tells this error from others where classes cannot be compared. */
  override readonly name = "ChoiceError";
  readonly #template: string;

  /**
   * Makes the message.
   *
   * @param template The message, with options in braces: `{vaeWeights}`.
   */
  constructor(template: string) {
    super(template.replace(/\{(\w+)\}/g, "$1"));
    this.#template = template;
  }

  /** The message with flags instead of options: `--vae-weights`. */
  get forCommandLine(): string {
    return this.#template.replace(
      /\{(\w+)\}/g,
      (_, name: string) => `--${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`,
    );
  }
}
