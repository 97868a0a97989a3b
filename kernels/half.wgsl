// half: one workgroup rounds a block of weights. On the bits, because WGSL leaves the rounding of pack2x16float and of
// additions open.

const BLOCK = 4096u; // set by half.ts

// 2^-14, the smallest normal f16; 65504; infinity.
const NORMAL = 0x38800000u;
const MOST = 0x477fe000u;
const INFINITE = 0x7f800000u;

// Of a magnitude: sizes order as their bits do, and NaN comes last.
fn rounded(size: u32) -> u32 {
  if (size > INFINITE) { return 0x7e00u; }
  let a = min(size, MOST);
  if (a >= NORMAL) { return (a - 0x38000000u + 0xfffu + ((a >> 13u) & 1u)) >> 13u; }
  // Below: a whole number of 2^-24. From 2^-25 down, which is a tie with 0, nothing is left.
  if (a <= 0x33000000u) { return 0u; }
  let shift = 126u - (a >> 23u);
  let digits = (a & 0x7fffffu) | 0x800000u;
  return (digits + (1u << (shift - 1u)) - 1u + ((digits >> shift) & 1u)) >> shift;
}

fn half(bits: u32) -> u32 { return ((bits >> 16u) & 0x8000u) | rounded(bits & 0x7fffffffu); }

var<workgroup> sizes: array<u32, 64>;

@compute @workgroup_size(64)
fn round(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let block = group.y * groups.x + group.x;
  var most = 0u;
  for (var k = 2u * lane; k < BLOCK; k += 128u) {
    let i = block * BLOCK + k;
    if (i < p.E) {
      let low = x[i];
      var high = 0u;
      if (i + 1u < p.E) { high = x[i + 1u]; }
      y[i / 2u] = half(low) | (half(high) << 16u);
      most = max(most, max(low & 0x7fffffffu, high & 0x7fffffffu));
    }
  }
  sizes[lane] = most;
  for (var step = 32u; step > 0u; step /= 2u) {
    workgroupBarrier();
    if (lane < step) { sizes[lane] = max(sizes[lane], sizes[lane + step]); }
  }
  if (lane == 0u && block * BLOCK < p.E) { largest[p.at + block] = sizes[0]; }
}
