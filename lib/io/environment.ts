/**
 * Variables of the environment.
 *
 * @module
 */

/** One environment variable, or undefined where it is not there or may not be read. Never asks for permission. */
export function environment(name: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  return state === "granted" ? Deno.env.get(name) : undefined;
}
