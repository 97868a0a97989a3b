/**
 * The surroundings of the program: variables of the environment, free memory.
 *
 * @module
 */

/** One environment variable, or undefined where it is not there or may not be read. Never asks for permission. */
export function environment(name: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  return state === "granted" ? Deno.env.get(name) : undefined;
}

/** Free memory of the machine in bytes, where the system says. */
export function availableMemory(): number | undefined {
  try {
    return Deno.systemMemoryInfo().available;
  } catch {
    return undefined;
  }
}
