/**
 * LPIPS: the distance of two images in the features of a classification network (Zhang et al. 2018, v0.1), as a metric
 * (AlexNet) and as the autoencoder's loss (VGG16). Weights come from files that the user has.
 *
 * @module
 */
import type { Device } from "../../kernels/device.ts";
import { findNotFinite } from "../finite.ts";
import { toFloat32 } from "../io/host.ts";
import type { TensorFile } from "../io/tensor_file.ts";
import {
  add,
  axpby,
  batchNorm,
  conv2d,
  full,
  groupMean,
  linear,
  maxPool2d,
  mul,
  permute,
  rmsNorm,
} from "../ops.ts";
import { param, type Params } from "../params.ts";
import { scope, type Shape, Tensor, unscoped } from "../tensor.ts";

/** The networks that LPIPS has heads for. */
export type PerceptualNetwork = "alex" | "vgg";

interface Conv {
  /** Index among torchvision's `features`. */
  readonly index: number;
  readonly channels: number;
  readonly kernel: number;
  readonly stride: number;
  readonly pad: number;
}

const conv = (index: number, channels: number, kernel = 3, stride = 1, pad = 1): Conv => ({
  index,
  channels,
  kernel,
  stride,
  pad,
});

/** Slices of each network: the features after each one count. Before a slice with a pool comes a max-pooling. */
const NETWORKS: Readonly<
  Record<
    PerceptualNetwork,
    { readonly pool: readonly [number, number]; readonly slices: readonly { pool: boolean; convs: Conv[] }[] }
  >
> = {
  alex: {
    pool: [3, 2],
    slices: [
      { pool: false, convs: [conv(0, 64, 11, 4, 2)] },
      { pool: true, convs: [conv(3, 192, 5, 1, 2)] },
      { pool: true, convs: [conv(6, 384)] },
      { pool: false, convs: [conv(8, 256)] },
      { pool: false, convs: [conv(10, 256)] },
    ],
  },
  vgg: {
    pool: [2, 2],
    slices: [
      { pool: false, convs: [conv(0, 64), conv(2, 64)] },
      { pool: true, convs: [conv(5, 128), conv(7, 128)] },
      { pool: true, convs: [conv(10, 256), conv(12, 256), conv(14, 256)] },
      { pool: true, convs: [conv(17, 512), conv(19, 512), conv(21, 512)] },
      { pool: true, convs: [conv(24, 512), conv(26, 512), conv(28, 512)] },
    ],
  },
};

/** Mean and spread of ImageNet's colours in [-1, 1], LPIPS's scaling layer. */
const SHIFT = [-0.030, -0.088, -0.188], SCALE = [0.458, 0.448, 0.450];

/** Every tensor of a network by the name of the LPIPS package, with its shape. */
export function perceptualShapes(network: PerceptualNetwork): Record<string, Shape> {
  const shapes: Record<string, Shape> = {};
  let channels = 3;
  NETWORKS[network].slices.forEach(({ convs }, i) => {
    for (const c of convs) {
      shapes[`net.slice${i + 1}.${c.index}.weight`] = [c.channels, channels, c.kernel, c.kernel];
      shapes[`net.slice${i + 1}.${c.index}.bias`] = [c.channels];
      channels = c.channels;
    }
    shapes[`lin${i}.model.1.weight`] = [1, channels, 1, 1];
  });
  return shapes;
}

/** Other names of a tensor: torchvision's for the network, the list's for the heads. */
function namesOf(name: string): string[] {
  return [
    name,
    name.replace(/^net\.slice\d+\./, "features."),
    name.replace(/^net\.slice\d+\./, "net.features."),
    name.replace(/^lin(\d)\./, "lins.$1."),
  ];
}

/**
 * Loads a network and its heads: one file of the LPIPS package that holds both, or torchvision's weights (`features.0.weight`
 * …) and the heads (`lin0.model.1.weight` …) in two files. Other tensors in them (classifier, scaling layer) are not read.
 *
 * @throws {Error} If a tensor is in none of the files, has another shape or holds values that are not finite: all of them
 * in one message.
 */
export function loadPerceptual(
  device: Device,
  network: PerceptualNetwork,
  files: readonly TensorFile[],
): Params {
  const problems: string[] = [], values: Record<string, Float32Array> = {};
  const shapes = perceptualShapes(network);
  for (const [name, shape] of Object.entries(shapes)) {
    const file = files.find((f) => namesOf(name).some((n) => f.tensors.has(n)));
    if (!file) {
      problems.push(`${namesOf(name).slice(0, name.startsWith("net.") ? 2 : 1).join(" or ")} is missing`);
      continue;
    }
    const host = file.read(namesOf(name).find((n) => file.tensors.has(n))!);
    if (host.shape.join() !== shape.join()) {
      problems.push(`${name} has shape [${host.shape.join(", ")}], expected [${shape.join(", ")}]`);
      continue;
    }
    values[name] = toFloat32(host);
    const bad = findNotFinite(values[name]);
    if (bad >= 0) {
      problems.push(`${name} holds ${values[name][bad]} at element ${bad}, expected finite numbers`);
    }
  }
  if (problems.length > 0) {
    const more = problems.length > 6 ? `; and ${problems.length - 6} more` : "";
    throw new Error(
      `${files.map((f) => f.path).join(", ")}: not the weights of LPIPS (${network}): ${
        problems.slice(0, 6).join("; ")
      }${more}`,
    );
  }
  return unscoped(() =>
    Object.fromEntries(
      Object.entries(shapes).map(([name, shape]) => [name, Tensor.from(device, values[name], shape)]),
    )
  );
}

/**
 * Features after each slice, `[B, h, w, C]`.
 *
 * @param images `[B, 3, H, W]`, meant to be in [-1, 1].
 */
export function perceptualFeatures(weights: Params, network: PerceptualNetwork, images: Tensor): Tensor[] {
  const { device, shape: [B, C, H, W] } = images, { pool: [K, stride], slices } = NETWORKS[network];
  if (C !== 3 || H < 32 || W < 32) {
    throw new RangeError(
      `lpips: images have shape [${images.shape}], expected [B, 3, H, W] of 32 pixels or more`,
    );
  }
  return scope(() => {
    const row = (values: readonly number[]) => Tensor.from(device, Float32Array.from(values));
    const colours = permute(images, [0, 2, 3, 1]).reshape([B * H * W, 3]); // [B·H·W, 3]
    let x = batchNorm(
      colours,
      {
        mean: row(SHIFT),
        variance: row(SCALE.map((s) => s * s)),
        weight: full(device, [3], 1),
        bias: full(device, [3], 0),
      },
      { eps: 0 },
    ).reshape([B, H, W, 3]);
    return slices.map(({ pool, convs }, i) => {
      if (pool) x = maxPool2d(x, K, stride);
      for (const c of convs) {
        const name = `net.slice${i + 1}.${c.index}`;
        x = conv2d(x, param(weights, `${name}.weight`), {
          bias: param(weights, `${name}.bias`),
          act: "relu",
          stride: c.stride,
          pad: c.pad,
        });
      }
      return x;
    });
  });
}

/**
 * Directions of features: x / ‖x‖ over the channels. The published code divides by ‖x‖ + 1e-10; the root of ‖x‖² + 1e-20
 * is the same number in f32 and has a finite gradient where a ReLU left nothing.
 */
function directions(x: Tensor): Tensor {
  const C = x.shape[3], weight = full(x.device, [C], 1 / Math.sqrt(C));
  return rmsNorm(x.reshape([x.size / C, C]), weight, { eps: 1e-20 / C }); // [B·h·w, C]
}

/** Contribution of each slice to the distance of each pair of images: five tensors `[B]`. */
export function lpipsLayers(weights: Params, network: PerceptualNetwork, x: Tensor, y: Tensor): Tensor[] {
  if (x.shape.join() !== y.shape.join()) {
    throw new RangeError(`lpips: found images [${x.shape}] and [${y.shape}], expected one shape`);
  }
  return scope(() => {
    const a = perceptualFeatures(weights, network, x), b = perceptualFeatures(weights, network, y);
    return a.map((feature, i) => {
      const [B, h, w, C] = feature.shape, head = param(weights, `lin${i}.model.1.weight`).reshape([1, C]);
      const difference = axpby(directions(feature), directions(b[i]), 1, -1); // [B·h·w, C]
      const weighed = linear(mul(difference, difference), head); // [B·h·w, 1]
      return groupMean(groupMean(weighed.reshape([B * h, w]), 1).reshape([B, h]), 1).reshape([B]);
    });
  });
}

/**
 * LPIPS of each pair of images, `[B]`.
 *
 * @param x `[B, 3, H, W]`, in [-1, 1]; at least 32 pixels high and wide.
 * @param y Same shape. Gradients flow into either one.
 */
export function lpips(weights: Params, network: PerceptualNetwork, x: Tensor, y: Tensor): Tensor {
  return scope(() => lpipsLayers(weights, network, x, y).reduce((sum, layer) => add(sum, layer)));
}
