/**
 * The recorded metrics case: what of it is compared so far, and what is not.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { toFloat32 } from "../lib/io/host.ts";
import { mse, pixelScores, psnr, ssim, ssimMap } from "../lib/metrics/pixel.ts";
import type { Runner } from "./golden_case.ts";
import { checkPerceptualMetric } from "./golden_losses.ts";

/** PSNR, SSIM, MSE and LPIPS of frames and of every trajectory of a batch of videos. */
export const metrics: Runner = {
  kind: "metrics",
  device: true,
  recognises: (c) => c.io?.tensors.has("img.pred") === true && c.io.tensors.has("ssim_map"),
  async run(c, device, differences) {
    const floats = (name: string) => toFloat32(c.io!.read(name));
    const shapeOf = (name: string) => [...c.io!.tensors.get(name)!.shape];
    const [B, C, H, W] = shapeOf("img.pred"), size = C * H * W;
    const predicted = floats("img.pred"), truth = floats("img.gt");
    const frame = (all: Float32Array, i: number) => all.subarray(i * size, (i + 1) * size);
    const images = Array.from({ length: B }, (_, i) => [frame(predicted, i), frame(truth, i)] as const);
    differences.check("psnr", images.map(([p, t]) => psnr(p, t)), floats("psnr"), "metric");
    differences.check("ssim", images.map(([p, t]) => ssim(p, t, [C, H, W])), floats("ssim"), "ssim");
    images.forEach(([p, t], i) => {
      const map = frame(floats("ssim_map"), i);
      differences.check(`ssim_map of image ${i}`, ssimMap(p, t, [C, H, W]), map, "ssimMap");
    });
    const [b, n, f, ...shape] = shapeOf("vid.sample"), video = shape.reduce((x, y) => x * y, f);
    const sample = floats("vid.sample"), real = floats("vid.gt"), context = f - shapeOf("vid.psnr_each")[2];
    assertEquals(shapeOf("vid.psnr_each"), [b, n, f - context]);
    const each = Array.from({ length: b * n }, (_, i) => {
      const [s, g] = [sample, real].map((all) => all.subarray(i * video, (i + 1) * video));
      return pixelScores(s, g, shape as [number, number, number]);
    });
    const predictedOnly = (name: "mse" | "psnr" | "ssim") =>
      each.flatMap((scores) => [...scores[name].subarray(context)]);
    differences.check("vid.mse_each", predictedOnly("mse"), floats("vid.mse_each"), "metric");
    differences.check("vid.psnr_each", predictedOnly("psnr"), floats("vid.psnr_each"), "metric");
    differences.check("vid.ssim_each", predictedOnly("ssim"), floats("vid.ssim_each"), "ssim");
    assertEquals(mse(frame(truth, 0), frame(truth, 0)), 0);
    assertEquals(psnr(frame(truth, 0), frame(truth, 0)), Infinity);
    await checkPerceptualMetric(c, device, differences);
    console.log(`  ${c.name}: mse, psnr, ssim and lpips compared; fvd is not compared yet`);
  },
};
