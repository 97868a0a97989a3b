/**
 * The BLAS of the system, called from the device's own threads on its own memory.
 *
 * A library is loaded by every thread. Its own threads are switched off: the device splits products into tiles itself, so
 * results do not depend on how many threads there are. Pointers must lie in the shared memory, which does not move when
 * it grows; arrays on the JavaScript heap do.
 *
 * @module
 */

/** `c = op(a) op(b) + beta c`: addresses in the shared memory, sizes and distances of rows in floats. */
export type Sgemm = (
  transposeA: number,
  transposeB: number,
  m: number,
  n: number,
  k: number,
  a: number,
  lda: number,
  b: number,
  ldb: number,
  beta: number,
  c: number,
  ldc: number,
) => void;

/** A library that was loaded on this thread. */
export interface Blas {
  /** Library, version and, where it says so, the processor that it computes for; part of what a run's bits depend on. */
  readonly name: string;
  /** The file that was loaded. */
  readonly path: string;
  readonly sgemm: Sgemm;
}

/** A library that several threads may not call at the same time. */
export class OneCaller extends Error {}

const ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112;

const SYMBOLS = {
  cblas_sgemm: {
    parameters: [
      ...["i32", "i32", "i32", "i32", "i32", "i32", "f32", "u64", "i32", "u64", "i32", "f32", "u64", "i32"],
    ] as Deno.NativeType[],
    result: "void",
    optional: true,
  },
  dnnl_sgemm: {
    parameters: [
      ...["u8", "u8", "i64", "i64", "i64", "f32", "u64", "i64", "u64", "i64", "f32", "u64", "i64"],
    ] as Deno.NativeType[],
    result: "i32",
    optional: true,
  },
  openblas_get_config: { parameters: [], result: "u64", optional: true },
  openblas_get_corename: { parameters: [], result: "u64", optional: true },
  openblas_get_parallel: { parameters: [], result: "i32", optional: true },
  openblas_set_num_threads: { parameters: ["i32"], result: "void", optional: true },
  MKL_Get_Version_String: { parameters: ["buffer", "i32"], result: "void", optional: true },
  MKL_Set_Threading_Layer: { parameters: ["i32"], result: "i32", optional: true },
  MKL_CBWR_Set: { parameters: ["i32"], result: "i32", optional: true },
  bli_info_get_version_str: { parameters: [], result: "u64", optional: true },
  bli_thread_set_num_threads: { parameters: ["i64"], result: "void", optional: true },
  dnnl_version: { parameters: [], result: "u64", optional: true },
  omp_set_num_threads: { parameters: ["i32"], result: "void", optional: true },
  BLASSetThreading: { parameters: ["i32"], result: "i32", optional: true },
} as const;

/** The C library's, found through any library that is linked with it. */
const C_SYMBOLS = {
  // With a count of 0 it tells where a buffer lies, for which Deno's own function wants permission for all libraries.
  memcpy: { parameters: ["buffer", "u64", "usize"], result: "u64" },
  strncpy: { parameters: ["buffer", "u64", "usize"], result: "u64" },
} as const;

type Symbols = Deno.StaticForeignLibraryInterface<typeof SYMBOLS>;

/** Where OpenBLAS, MKL, oneDNN and Accelerate usually are, the fastest first. */
export function usualPlaces(os: string = Deno.build.os, arch: string = Deno.build.arch): string[] {
  if (os === "windows") return ["libopenblas.dll", "mkl_rt.2.dll", "dnnl.dll"];
  if (os === "darwin") {
    return [
      "/System/Library/Frameworks/Accelerate.framework/Accelerate",
      ...["/opt/homebrew", "/usr/local"].map((at) => `${at}/opt/openblas/lib/libopenblas.dylib`),
    ];
  }
  const folders = [`/usr/lib/${arch}-linux-gnu`, "/usr/lib64", "/usr/lib", "/usr/local/lib"];
  const mkl = ["/opt/intel/oneapi/mkl/latest/lib", "/opt/intel/oneapi/mkl/latest/lib/intel64"];
  const files = (names: readonly string[], places: readonly string[]) =>
    names.flatMap((name) => places.map((folder) => `${folder}/${name}`));
  return [
    ...files(["libopenblas.so.0", "libopenblas.so"], [...folders, "/opt/OpenBLAS/lib"]),
    ...files(["libmkl_rt.so.2", "libmkl_rt.so"], [...folders, ...mkl]),
    ...files(["libdnnl.so.3", "libdnnl.so.2"], [...folders, "/opt/intel/oneapi/dnnl/latest/lib"]),
  ];
}

/** Whether a library may be called without asking. */
export const mayLoad = (path: string): boolean =>
  Deno.permissions.querySync({ name: "ffi", path }).state === "granted";

/**
 * Loads a BLAS for this thread and keeps it to one thread of its own.
 *
 * @param threads Threads that will call it at the same time.
 * @throws {Error} If it may not be loaded, cannot be, has no product of single-precision matrices, or takes one caller only.
 */
export function loadBlas(path: string, memory: WebAssembly.Memory, threads: number): Blas {
  const here = (what: string) => new Error(`--blas ${path}: ${what}`);
  if (!mayLoad(path)) {
    throw here("needs permission to call the library: run with -P=blas, or add --allow-ffi=" + path);
  }
  let library: Symbols, c: Deno.StaticForeignLibraryInterface<typeof C_SYMBOLS>;
  try {
    library = Deno.dlopen(path, SYMBOLS).symbols;
    c = Deno.dlopen(Deno.build.os === "windows" ? "msvcrt.dll" : path, C_SYMBOLS).symbols;
  } catch (error) {
    throw here(error instanceof Error ? error.message : String(error));
  }
  const { cblas_sgemm, dnnl_sgemm } = library;
  // Callers of a build without threads share its packing buffers: Debian's libopenblas0-serial 0.3.21, called from two
  // threads, gave wrong products 3 times in 1,000 (2026-11-21), libopenblas0-pthread never.
  if (threads > 1 && library.openblas_get_parallel?.() === 0) {
    throw new OneCaller(
      `${path} is a build of OpenBLAS for one caller: use --threads 1, or a build with threads (libopenblas0-pthread)`,
    );
  }
  const text = (from: bigint) => {
    const bytes = new Uint8Array(256);
    c.strncpy(bytes, from, 255n);
    return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
  };
  // The first byte of the memory stays where it is: threads keep the address.
  const base = Number(c.memcpy(new Uint8Array(memory.buffer, 0, 64), 0n, 0n));
  const name = nameOf(library, text, (from) => {
    const words = new Int32Array(3);
    c.memcpy(new Uint8Array(words.buffer), from, 12n);
    return words.join(".");
  }, path);
  if (cblas_sgemm) {
    return {
      name,
      path,
      sgemm: (ta, tb, m, n, k, a, lda, b, ldb, beta, out, ldc) =>
        cblas_sgemm(
          ...[ROW_MAJOR, ta ? TRANSPOSED : PLAIN, tb ? TRANSPOSED : PLAIN, m, n, k, 1] as const,
          base + (a >>> 0),
          lda,
          base + (b >>> 0),
          ldb,
          beta,
          base + (out >>> 0),
          ldc,
        ),
    };
  }
  if (!dnnl_sgemm) throw here("has neither cblas_sgemm nor dnnl_sgemm");
  const N = "N".charCodeAt(0), T = "T".charCodeAt(0);
  return {
    name,
    path,
    sgemm: (ta, tb, m, n, k, a, lda, b, ldb, beta, out, ldc) => {
      const status = dnnl_sgemm(
        ...[ta ? T : N, tb ? T : N, m, n, k, 1] as const,
        base + (a >>> 0),
        lda,
        base + (b >>> 0),
        ldb,
        beta,
        base + (out >>> 0),
        ldc,
      );
      if (status !== 0) throw new Error(`${name}: dnnl_sgemm returned ${status}, expected 0`);
    },
  };
}

/** Names the library by what it exports, and keeps it to one thread. */
function nameOf(
  library: Symbols,
  text: (from: bigint) => string,
  version: (from: bigint) => string,
  path: string,
): string {
  if (library.openblas_get_config) {
    library.openblas_set_num_threads?.(1);
    const [first, number] = text(library.openblas_get_config()).split(" ");
    const core = library.openblas_get_corename ? text(library.openblas_get_corename()) : "";
    return [first === "OpenBLAS" ? `OpenBLAS ${number}` : "OpenBLAS", core].filter(Boolean).join(" ");
  }
  if (library.MKL_Get_Version_String) {
    library.MKL_Set_Threading_Layer?.(1); // sequential
    library.MKL_CBWR_Set?.(2); // the same bits whatever the alignment
    const bytes = new Uint8Array(256);
    library.MKL_Get_Version_String(bytes, 255);
    const line = new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
    return `MKL ${line.match(/Version ([\w.-]+)/)?.[1] ?? ""}`.trim();
  }
  if (library.dnnl_version) {
    library.omp_set_num_threads?.(1);
    return `oneDNN ${version(library.dnnl_version())}`;
  }
  if (library.bli_info_get_version_str) {
    library.bli_thread_set_num_threads?.(1n);
    return `BLIS ${text(library.bli_info_get_version_str())}`;
  }
  if (library.BLASSetThreading || path.includes("Accelerate.framework")) {
    library.BLASSetThreading?.(1); // BLAS_THREADING_SINGLE_THREADED, from macOS 15 on
    return "Accelerate";
  }
  return `BLAS ${path.split("/").at(-1)}`;
}
