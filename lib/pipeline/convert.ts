/**
 * Checkpoints from one format and type of numbers to another.
 *
 * @module
 */
import { fromFloat32, type HostTensor, type LazyTensor, toFloat32 } from "../io/host.ts";
import { openTensorFile } from "../io/open.ts";
import { isSame } from "../io/paths.ts";
import { writePth } from "../io/pth_write.ts";
import { writeSafetensors } from "../io/safetensors.ts";
import { stateDict } from "../io/state_dict.ts";
import { ChoiceError } from "./choice.ts";

const DTYPES = { f32: "F32", f16: "F16", bf16: "BF16" } as const;

/** Result of a conversion. */
export interface Converted {
  /** Tensors that were written. */
  readonly tensors: number;
  /** The dictionary that they come from; empty where the file holds one alone. */
  readonly entry: string;
  /** Names of those with numbers too large for f16, which became infinite. */
  readonly overflow: readonly string[];
}

/**
 * Converts a checkpoint, tensor by tensor.
 *
 * @param to A name ending in .safetensors, .pth or .pt, which says the format.
 * @param options `entry`: dictionary to take from a nested checkpoint. `dtype`: type of the floating-point tensors.
 * @throws {ChoiceError} If the name of the new file says no format, or is that of the file that is read.
 */
export async function convertCheckpoint(
  from: string,
  to: string,
  { entry: named, dtype }: { readonly entry?: string; readonly dtype: keyof typeof DTYPES | "keep" },
): Promise<Converted> {
  const ending = /\.(safetensors|pth|pt)$/i.exec(to)?.[1].toLowerCase();
  if (ending === undefined) {
    throw new ChoiceError(`weights convert: expected a name ending in .safetensors or .pth, found ${to}`);
  }
  if (isSame(from, to)) {
    throw new ChoiceError(`weights convert: ${to} is the file that is read, expected another`);
  }
  using file = openTensorFile(from);
  const { tensors, entry } = stateDict(file, named);
  const wanted = dtype === "keep" ? null : DTYPES[dtype];
  const overflow: string[] = [];
  const converted = [...tensors].map(([name, t]): readonly [string, HostTensor | LazyTensor] => {
    if (wanted === null || !/^(F|BF)/.test(t.dtype) || t.dtype === wanted) return [name, t];
    return [name, {
      shape: t.shape,
      dtype: wanted,
      read: () => {
        const values = toFloat32(t.read());
        if (wanted === "F16" && values.some((v) => Number.isFinite(v) && Math.abs(v) >= 65520)) {
          overflow.push(name);
        }
        return fromFloat32(values, t.shape, wanted);
      },
    }];
  });
  if (ending === "safetensors") await writeSafetensors(to, converted, { ...file.metadata, format: "pt" });
  else await writePth(to, converted);
  return { tensors: tensors.size, entry, overflow };
}
