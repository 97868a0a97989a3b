/**
 * Files: tensors (safetensors, torch.save, npz), frames, images and video.
 *
 * @module
 */
export { type Frames, makeFrames } from "./frames.ts";
export { type HostDType, type HostTensor, type LazyTensor, toFloat32, toInt32 } from "./host.ts";
export { type NpzOptions, openNpy, openNpz, writeNpy, writeNpz } from "./npz.ts";
export { openSafetensors, writeSafetensors } from "./safetensors.ts";
export { type ByteSource, visitSource } from "./source.ts";
export { type FileTensor, TensorFile, type TensorFormat, type TensorsToWrite } from "./tensor_file.ts";
