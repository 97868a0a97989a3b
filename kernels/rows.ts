/**
 * Rows of values that several invocations of a shader share.
 *
 * @module
 */
import wgsl from "./rows.wgsl" with { type: "text" };
import { sections } from "./webgpu/sections.ts";
import { specialise } from "./webgpu/specialise.ts";
import { unroll } from "./webgpu/unroll.ts";

/**
 * The WGSL of row reductions, for workgroups of 64.
 *
 * @param share Invocations of a row: 64 for few long rows, 16 for many.
 * @param parts `sum`, whose terms are of the type `Sum` that the shader declares, and `most`.
 */
export const rows = (share: 16 | 64, ...parts: ("sum" | "most")[]): string =>
  unroll(specialise(sections(wgsl, "rows", ...parts), { SHARE: share, ROOT: Math.sqrt(share) }));
