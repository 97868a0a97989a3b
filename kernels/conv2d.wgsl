// conv2d: loads and stores of the dense convolution, whose sums are those of webgpu/gemm.wgsl; and the depthwise one.

//# dense
// A product of B OH OW pixels and O channels. Its k runs over blocks of 4 STEPS input channels, then the filter's taps,
// then the channels of the block: neighbours read neighbouring channels of x, and all taps of a block, which lie
// together in [O, I, KH, KW], are used while they are in the cache. Taps and width are constants: dividing by them
// is a multiplication.
override hasBias: u32 = 0u;
override half: u32 = 0u;
override taps: u32 = 9u;
override tapsAcross: u32 = 3u;
override steps: u32 = 4u;

struct Params {
  B: u32, H: u32, W: u32, I: u32, O: u32, KH: u32, KW: u32, OH: u32, OW: u32, stride: u32, pad: u32,
}
@group(0) @binding(0) var<storage, read> x: array<vec4f>; // [B, H, W, I]
@group(0) @binding(1) var<storage, read> w: array<u32>; // [O, I, KH, KW], f32 or two f16
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [B, OH, OW, O]
@group(0) @binding(4) var<uniform> p: Params;

fn rowCount() -> u32 { return p.B * p.OH * p.OW; }
fn columnCount() -> u32 { return p.O; }
fn depth() -> u32 { return (p.I + 4u * steps - 1u) / (4u * steps) * taps * steps; }

fn channelOf(k: u32) -> u32 { return 4u * (k / (taps * steps) * steps + k % steps); }
fn tapOf(k: u32) -> u32 { return k / steps % taps; }

fn left(m: u32, k: u32) -> vec4f {
  let i = channelOf(k);
  let tap = tapOf(k);
  let row = m / p.OW;
  let iy = i32(row % p.OH * p.stride + tap / tapsAcross) - i32(p.pad);
  let ix = i32(m % p.OW * p.stride + tap % tapsAcross) - i32(p.pad);
  if (i >= p.I || k >= depth() || iy < 0 || iy >= i32(p.H) || ix < 0 || ix >= i32(p.W)) { return vec4f(); }
  let at = ((row / p.OH * p.H + u32(iy)) * p.W + u32(ix)) * p.I + i;
  if (p.I % 4u == 0u) { return x[at / 4u]; }
  var v = vec4f();
  for (var c = 0u; c < min(4u, p.I - i); c++) { v[c] = x[(at + c) / 4u][(at + c) % 4u]; }
  return v;
}

fn weight(i: u32) -> f32 {
  if (half == 0u) { return bitcast<f32>(w[i]); }
  return unpack2x16float(w[i / 2u])[i % 2u];
}

fn right(n: u32, k: u32) -> vec4f {
  let i = channelOf(k);
  if (i >= p.I || k >= depth()) { return vec4f(); }
  let at = (n * p.I + i) * taps + tapOf(k);
  // No loop here: it would be the innermost of three, and llvmpipe stops after 65,535 iterations of all together.
  if (p.I - i >= 4u) { return vec4f(weight(at), weight(at + taps), weight(at + 2u * taps), weight(at + 3u * taps)); }
  var v = vec4f();
  for (var c = 0u; c < min(4u, p.I - i); c++) { v[c] = weight(at + c * taps); }
  return v;
}

fn store(m: u32, n: u32, sum: f32) {
  var v = sum;
  if (hasBias == 1u) { v += bias[n]; }
  y[m * p.O + n] = activate(v);
}

//# depthwise
override hasBias: u32 = 0u;
struct Params { B: u32, H: u32, W: u32, C: u32, K: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>; // [B, H, W, C]
@group(0) @binding(1) var<storage, read> w: array<f32>; // [C, 1, K, K]
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> p: Params;

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.B * p.H * p.W * p.C) { return; }
  let c = i % p.C;
  let pixel = i / p.C;
  let px = i32(pixel % p.W);
  let py = i32(pixel / p.W % p.H);
  let image = pixel / (p.W * p.H) * p.H;
  let pad = i32(p.K / 2u);
  var sum = 0.0;
  for (var ky = 0u; ky < p.K; ky++) {
    let iy = py + i32(ky) - pad;
    if (iy < 0 || iy >= i32(p.H)) { continue; }
    for (var kx = 0u; kx < p.K; kx++) {
      let ix = px + i32(kx) - pad;
      if (ix < 0 || ix >= i32(p.W)) { continue; }
      sum = fma(x[((image + u32(iy)) * p.W + u32(ix)) * p.C + c], w[(c * p.K + ky) * p.K + kx], sum);
    }
  }
  if (hasBias == 1u) { sum += bias[c]; }
  y[i] = activate(sum);
}
