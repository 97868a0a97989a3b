/**
 * TensorBoard event files: checksums, records, and what an independent reading of the bytes finds.
 */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { crc32c, EventWriter } from "../lib/io/tfevents.ts";

/** Fields of a protocol buffer: number, and an integer, four or eight bytes, or bytes. */
function fields(bytes: Uint8Array): Map<number, (number | Uint8Array)[]> {
  const out = new Map<number, (number | Uint8Array)[]>();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const varint = () => {
    let value = 0, scale = 1, byte;
    do {
      byte = bytes[at++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte & 128);
    return value;
  };
  while (at < bytes.length) {
    const tag = varint(), wire = tag % 8;
    let value: number | Uint8Array;
    if (wire === 0) value = varint();
    else if (wire === 1) value = view.getFloat64((at += 8) - 8, true);
    else if (wire === 5) value = view.getFloat32((at += 4) - 4, true);
    else {
      const count = varint();
      value = bytes.subarray(at, at += count);
    }
    out.set(Math.floor(tag / 8), [...out.get(Math.floor(tag / 8)) ?? [], value]);
  }
  return out;
}

/** Events of a file, whose checksums are tested on the way. */
function events(file: Uint8Array): Uint8Array[] {
  const out: Uint8Array[] = [], view = new DataView(file.buffer);
  const unmask = (sum: number) => {
    const rotated = (sum - 0xa282ead8) >>> 0;
    return ((rotated >>> 17) | (rotated << 15)) >>> 0;
  };
  for (let at = 0; at < file.length;) {
    const count = Number(view.getBigUint64(at, true)), event = file.subarray(at + 12, at + 12 + count);
    assertEquals(unmask(view.getUint32(at + 8, true)), crc32c(file.subarray(at, at + 8)));
    assertEquals(unmask(view.getUint32(at + 12 + count, true)), crc32c(event));
    out.push(event);
    at += 16 + count;
  }
  return out;
}

Deno.test("CRC-32C of the published test vectors", () => {
  assertEquals(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assertEquals(crc32c(new Uint8Array(32).fill(255)), 0x62a8ab43);
  assertEquals(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
});

Deno.test("an event file holds its version, the start of a session, scalars and pictures", () => {
  const folder = Deno.makeTempDirSync();
  try {
    const writer = new EventWriter(`${folder}/run`, 300);
    writer.scalars(300, { "loss/train": 0.25, "lr": 1e-4 });
    writer.image(301, "sample", { width: 3, height: 2, encoded: Uint8Array.of(1, 2, 3) });
    const [version, session, scalars, image] = events(Deno.readFileSync(writer.path)).map(fields);
    const text = (b: unknown) => new TextDecoder().decode(b as Uint8Array);
    assertEquals(text(version.get(3)![0]), "brain.Event:2");
    assertEquals(session.get(2), [300]);
    assertEquals(fields(session.get(7)![0] as Uint8Array).get(1), [1]);
    const values = fields(scalars.get(5)![0] as Uint8Array).get(1)!.map((v) => fields(v as Uint8Array));
    assertEquals(values.map((v) => text(v.get(1)![0])), ["loss/train", "lr"]);
    assertEquals(values[0].get(2), [0.25]);
    assertAlmostEquals(values[1].get(2)![0] as number, 1e-4, 1e-10);
    assert(Math.abs(scalars.get(1)![0] as number - Date.now() / 1000) < 60);
    const picture = fields(
      fields(fields(image.get(5)![0] as Uint8Array).get(1)![0] as Uint8Array).get(4)![0] as Uint8Array,
    );
    assertEquals([picture.get(1), picture.get(2)], [[2], [3]]);
    assertEquals(picture.get(4), [Uint8Array.of(1, 2, 3)]);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
