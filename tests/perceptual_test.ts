/**
 * LPIPS: weights under their several names, the distance of equal pictures, gradients where ReLUs left nothing.
 */
import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { valueAndGrad } from "../lib/autograd.ts";
import { fromFloat32 } from "../lib/io/host.ts";
import { encodeSafetensors, openSafetensors } from "../lib/io/safetensors.ts";
import type { TensorFile } from "../lib/io/tensor_file.ts";
import { loadPerceptual, lpips, perceptualFeatures, perceptualShapes } from "../lib/metrics/perceptual.ts";
import { defaultValues, type Params } from "../lib/params.ts";
import { normal, streamOf } from "../lib/random.ts";
import { disposeAll, scope, type Shape, sizeOf, Tensor } from "../lib/tensor.ts";
import { testOnDevices } from "./helpers.ts";

const SHAPES = perceptualShapes("alex");

/** AlexNet with made-up weights, each under the name that `rename` gives it; heads are not negative. */
async function file(rename: (name: string) => string | null, shapes = SHAPES): Promise<TensorFile> {
  const tensors = Object.entries(shapes).flatMap(([name, shape]) => {
    const values = defaultValues(name, shape, 7, shapes), given = rename(name);
    return given === null
      ? []
      : [[given, fromFloat32(name.startsWith("lin") ? values.map(Math.abs) : values, shape)] as const];
  });
  return openSafetensors(await encodeSafetensors(tensors));
}

const backbone = (name: string) =>
  name.startsWith("lin") ? null : name.replace(/^net\.slice\d\./, "features.");
const heads = (name: string) => name.startsWith("lin") ? name : null;
const picture = (seed: number, shape: Shape = [1, 3, 64, 64]) =>
  normal(streamOf(seed, "picture"), sizeOf(shape)).map((v) => v * 0.3);

testOnDevices(
  "LPIPS takes the package's file, or torchvision's network and the heads in two files",
  async (device) => {
    const [one, network, lins] = await Promise.all([file((n) => n), file(backbone), file(heads)]);
    const whole = loadPerceptual(device, "alex", [one]),
      parts = loadPerceptual(device, "alex", [lins, network]);
    assertEquals(Object.keys(parts), Object.keys(SHAPES));
    for (const name of ["net.slice2.3.weight", "lin4.model.1.weight"]) {
      assertEquals([...await parts[name].read()], [...await whole[name].read()]);
    }
    assertThrows(() => loadPerceptual(device, "alex", [network]), Error, "lin0.model.1.weight is missing");
    assertThrows(
      () => loadPerceptual(device, "vgg", [one]),
      Error,
      "net.slice1.0.weight has shape [64, 3, 11, 11], expected [64, 3, 3, 3]",
    );
    disposeAll([whole, parts]);
  },
);

testOnDevices("equal pictures are at distance 0, and the order of two does not matter", async (device) => {
  using source = await file((n) => n);
  const weights = loadPerceptual(device, "alex", [source]);
  const [a, b] = [1, 2].map((seed) => Tensor.from(device, picture(seed), [1, 3, 64, 64]));
  const distance = async (x: Tensor, y: Tensor) => {
    using d = scope(() => lpips(weights, "alex", x, y));
    return (await d.read())[0];
  };
  assertEquals(await distance(a, a), 0);
  assert(await distance(a, b) > 1e-3);
  assertAlmostEquals(await distance(a, b), await distance(b, a), 1e-7);
  assertThrows(() => lpips(weights, "alex", a, a.reshape([1, 3, 32, 128])), RangeError, "expected one shape");
  disposeAll([weights, a, b]);
});

testOnDevices("gradients are finite where every feature of a pixel is zero", async (device) => {
  using source = await file((n) => n);
  const weights = loadPerceptual(device, "alex", [source]);
  const bias = await weights["net.slice5.10.bias"].read();
  const dead = { ...weights, "net.slice5.10.bias": Tensor.from(device, bias.fill(-100)) };
  const [a, b] = [1, 2].map((seed) => Tensor.from(device, picture(seed), [1, 3, 64, 64]));
  const features = scope(() => perceptualFeatures(dead, "alex", a));
  assertEquals(Math.max(...await features[4].read()), 0);
  const { value, grads } = valueAndGrad(({ b }: Params) => lpips(dead, "alex", a, b))({ b });
  const gradient = await grads.b.read();
  assert(gradient.every(Number.isFinite) && gradient.some((g) => g !== 0));
  disposeAll([weights, dead, a, b, features, value, grads]);
});
