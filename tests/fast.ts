/**
 * `deno task test:fast`: the tests that find most mistakes, on the cpu device, in under a minute on two cores.
 *
 * Types of all that they import, imports between layers, every kernel against its reference and its gradients against finite
 * differences, the model and its sampler against recorded outputs of the authors' code, files, and the command line up to a
 * whole prediction. `deno task test` runs everything.
 *
 * @module
 */
const FILES = {
  "the repository": ["layering", "hygiene", "lock"],
  "kernels": ["kernel_contract", "kernels", "finite_differences"],
  "tensors and gradients": ["tensor", "algebra", "random"],
  "the model": ["golden", "mask", "patchify", "flow", "sampling", "trainer"],
  "data and files": ["world", "data_batches", "io_host", "io_safetensors", "io_atomic", "owned_folder"],
  "the command line": ["cli_args", "cli_rates", "cli_predict"],
} as const;

const path = (name: string) => new URL(`./${name}_test.ts`, import.meta.url).pathname;
const start = performance.now();
const { code } = await new Deno.Command(Deno.execPath(), {
  args: ["test", "-A", "--frozen", "--parallel=false", ...Object.values(FILES).flat().map(path)],
  cwd: new URL("..", import.meta.url).pathname,
  env: { FAR_DEVICES: "cpu" },
}).spawn().status;
console.log(
  `test:fast took ${((performance.now() - start) / 1000).toFixed(0)} s; deno task test runs everything`,
);
Deno.exit(code);
