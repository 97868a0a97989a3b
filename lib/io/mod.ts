/**
 * Files: tensors (safetensors, torch.save, npz), frames, images and video.
 *
 * @module
 */
export { concatFrames, type Fit, fitFrames, type Frames, makeFrames, sliceFrames } from "./frames.ts";
export { type HostDType, type HostTensor, type LazyTensor, toFloat32, toInt32 } from "./host.ts";
export { readPng, writePng } from "./image.ts";
export { type NpzOptions, openNpy, openNpz, writeNpy, writeNpz } from "./npz.ts";
export { openSafetensors, writeSafetensors } from "./safetensors.ts";
export { contactSheet, type Labelled, type PictureOptions, sideBySide } from "./sheet.ts";
export { type ByteSource, visitSource } from "./source.ts";
export { type FileTensor, TensorFile, type TensorFormat, type TensorsToWrite } from "./tensor_file.ts";
export { VIDEO_ENDINGS, type WriteOptions, writeVideo } from "./video_write.ts";
