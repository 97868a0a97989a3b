import { assertEquals } from "@std/assert";
import { generator } from "../kernels/check.ts";
import { frameArray } from "../lib/io/frame_array.ts";
import { fromFloat32, type HostTensor } from "../lib/io/host.ts";
import { encodeSafetensors, openSafetensors } from "../lib/io/safetensors.ts";
import { assertRefused, randomTensor } from "./io_helpers.ts";

const open = async (tensors: Record<string, HostTensor>) =>
  openSafetensors(await encodeSafetensors(tensors), "x");
const actions = fromFloat32(new Float32Array(3), [3]);

Deno.test("frames are found by their array's name, or as the only array that can be frames", async () => {
  const random = generator(1), video = randomTensor(random, [3, 4, 5, 3], "U8");
  const files: Record<string, HostTensor>[] = [
    { video, other: video },
    { frames: video, actions },
    { walk: video, actions },
  ];
  for (const tensors of files) {
    const found = frameArray(await open(tensors));
    assertEquals([found.name, found.frames, found.height, found.width], [Object.keys(tensors)[0], 3, 4, 5]);
    assertEquals(found.read().data, video.data);
  }
  const two = await open({ a: video, b: video });
  assertRefused(() => frameArray(two), "found 2 that may be meant", '"a" U8 [3,4,5,3], "b" U8 [3,4,5,3]');
  assertEquals(frameArray(two, "b").read().data, video.data);
  const none = await open({ actions });
  assertRefused(() => frameArray(none), 'found "actions" F32 [3]');
  assertRefused(() => frameArray(none, "action"), 'did you mean "actions"?');
});

Deno.test("planes of colours and floats from 0 to 1 are taken where nothing else can be meant", async () => {
  const [F, H, W] = [2, 4, 5], planes = randomTensor(generator(2), [F, 3, H, W], "U8");
  const pixels = frameArray(await open({ video: planes })).read();
  assertEquals([pixels.frames, pixels.height, pixels.width], [F, H, W]);
  for (let f = 0; f < F; f++) {
    for (let c = 0; c < 3; c++) {
      for (let i = 0; i < H * W; i++) {
        assertEquals(pixels.data[(f * H * W + i) * 3 + c], planes.data[(f * 3 + c) * H * W + i]);
      }
    }
  }
  // One clip with an outer size of one; where both could be colours, the last size is.
  const outer = { ...planes, shape: [1, F, 3, H, W] };
  assertEquals(frameArray(await open({ video: outer })).read(), pixels);
  const square = randomTensor(generator(3), [2, 3, 4, 3], "U8");
  assertEquals(frameArray(await open({ video: square })).read().data, square.data);

  const floats = Float32Array.from(planes.data, (value) => value / 255);
  for (const dtype of ["F32", "F16"] as const) {
    const tensor = fromFloat32(floats, [F, 3, H, W], dtype);
    assertEquals(frameArray(await open({ video: tensor })).read(), pixels, dtype);
  }
});

Deno.test("other arrays are refused with the line that converts them", async () => {
  const refused = async (values: number[], shape: number[], ...parts: string[]) => {
    const file = await open({ video: fromFloat32(Float32Array.from(values), shape) });
    assertRefused(() => frameArray(file).read(), ...parts);
  };
  const twelve = (value: number) => Array<number>(12).fill(value);
  await refused([...twelve(0.5).slice(1), -0.5], [1, 2, 2, 3], "found -0.5 to 0.5", "((video + 1) * 127.5)");
  await refused(
    [...twelve(0.5).slice(1), 255],
    [1, 2, 2, 3],
    "found 0.5 to 255",
    "video.round().astype(np.uint8)",
  );
  await refused([NaN, ...twelve(0.5).slice(1)], [1, 2, 2, 3], "expected floats from 0 to 1", "NaN");
  await refused(twelve(0), [1, 3, 4], "found F32 [1,3,4]", "video[..., None].repeat(3, axis=-1)");
  await refused(twelve(0), [3, 2, 2, 1], "video.repeat(3, axis=-1)");
  await refused(twelve(0), [1, 1, 3, 4], "video[..., :3]");
  await refused(twelve(0), [2, 1, 2, 1, 3], "one clip per file");
});
