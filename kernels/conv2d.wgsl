// conv2d: loads and stores of the dense convolution and its gradients, whose sums are those of webgpu/gemm.wgsl; and the
// depthwise one.

//# blocks
// Taps and width (`taps`, `tapsAcross`) are constants: dividing by them is a multiplication.
//
// k runs over blocks of 4 STEPS channels, then the filter's taps, then the channels of the block: neighbours read
// neighbouring channels of the image, and all taps of a block, which lie together in [O, I, KH, KW], are used while they
// are in the cache. What follows this text supplies the image: `image` by fours and `element`.

fn depthOf(channels: u32) -> u32 { return (channels + 4u * steps - 1u) / (4u * steps) * taps * steps; }
fn channelOf(k: u32) -> u32 { return 4u * (k / (taps * steps) * steps + k % steps); }
fn tapOf(k: u32) -> u32 { return k / steps % taps; }

// Four channels of a pixel from channel c on, whose place is `at`; zero beyond the last channel.
fn quad(at: u32, c: u32, channels: u32) -> vec4f {
  if (channels % 4u == 0u) { return image(at / 4u); }
  var v = vec4f(element(at), 0.0, 0.0, 0.0);
  if (c + 1u < channels) { v.y = element(at + 1u); }
  if (c + 2u < channels) { v.z = element(at + 2u); }
  if (c + 3u < channels) { v.w = element(at + 3u); }
  return v;
}

fn weight(o: u32, i: u32, tap: u32) -> f32 {
  if (o >= p.O || i >= p.I) { return 0.0; }
  let at = (o * p.I + i) * taps + tap;
  if (half == 0u) { return bitcast<f32>(w[at]); }
  return unpack2x16float(w[at / 2u])[at % 2u];
}

//# dense
// A product of B OH OW pixels and O channels.

fn image(i: u32) -> vec4f { return x[i]; }
fn element(i: u32) -> f32 { return x[i / 4u][i % 4u]; }
fn rowCount() -> u32 { return p.B * p.OH * p.OW; }
fn columnCount() -> u32 { return p.O; }
fn depth() -> u32 { return depthOf(p.I); }

fn left(m: u32, k: u32) -> vec4f {
  let i = channelOf(k);
  let tap = tapOf(k);
  let row = m / p.OW;
  let iy = i32(row % p.OH * p.stride + tap / tapsAcross) - i32(p.pad);
  let ix = i32(m % p.OW * p.stride + tap % tapsAcross) - i32(p.pad);
  if (i >= p.I || k >= depth() || iy < 0 || iy >= i32(p.H) || ix < 0 || ix >= i32(p.W)) { return vec4f(); }
  let at = ((row / p.OH * p.H + u32(iy)) * p.W + u32(ix)) * p.I + i;
  return quad(at, i, p.I);
}

fn right(n: u32, k: u32) -> vec4f {
  let i = channelOf(k);
  let tap = tapOf(k);
  return vec4f(weight(n, i, tap), weight(n, i + 1u, tap), weight(n, i + 2u, tap), weight(n, i + 3u, tap));
}

fn store(m: u32, n: u32, sum: f32) {
  var v = sum;
  if (hasBias == 1u) { v += bias[n]; }
  y[m * p.O + n] = activate(v);
}

//# gradInput
// A product of B H W input pixels and I channels; k runs over output channels and taps. Pixel (y, x) takes tap (ky, kx)
// from output pixel ((y + pad - ky) / stride, (x + pad - kx) / stride) where both divide.

fn image(i: u32) -> vec4f { return dz[i]; }
fn element(i: u32) -> f32 { return dz[i / 4u][i % 4u]; }
fn rowCount() -> u32 { return p.B * p.H * p.W; }
fn columnCount() -> u32 { return p.I; }
fn depth() -> u32 { return depthOf(p.O); }

fn left(m: u32, k: u32) -> vec4f {
  let o = channelOf(k);
  let tap = tapOf(k);
  let row = m / p.W;
  // Below 0 these wrap around and end beyond the image.
  let y = row % p.H + p.pad - tap / tapsAcross;
  let x = m % p.W + p.pad - tap % tapsAcross;
  let oy = y / p.stride;
  let ox = x / p.stride;
  if (o >= p.O || oy >= p.OH || ox >= p.OW || oy * p.stride != y || ox * p.stride != x) { return vec4f(); }
  let at = ((row / p.H * p.OH + oy) * p.OW + ox) * p.O + o;
  return quad(at, o, p.O);
}

fn right(n: u32, k: u32) -> vec4f {
  let o = channelOf(k);
  let tap = tapOf(k);
  return vec4f(weight(o, n, tap), weight(o + 1u, n, tap), weight(o + 2u, n, tap), weight(o + 3u, n, tap));
}

fn store(m: u32, n: u32, sum: f32) {
  let i = m * p.I + n;
  if (accumulate == 1u) { dx[i] += sum; }
  else { dx[i] = sum; }
}

//# gradWeight
// A product of O output channels and the filter's taps times I input channels, which neighbouring columns read side by
// side; k runs over the pixels of dz. The bias is one more column, of ones.

fn rowCount() -> u32 { return p.O; }
fn columnCount() -> u32 { return taps * p.I + hasBias; }
fn pixelCount() -> u32 { return p.B * p.OH * p.OW; }
fn depth() -> u32 { return (pixelCount() + 3u) / 4u; }

fn left(m: u32, k: u32) -> vec4f {
  var v = vec4f();
  let at = 4u * k * p.O + m;
  if (4u * k < pixelCount()) { v.x = dz[at]; }
  if (4u * k + 1u < pixelCount()) { v.y = dz[at + p.O]; }
  if (4u * k + 2u < pixelCount()) { v.z = dz[at + 2u * p.O]; }
  if (4u * k + 3u < pixelCount()) { v.w = dz[at + 3u * p.O]; }
  return v;
}

// Pixels of dz are counted, not divided for: (column, row, image).
fn next(at: vec3u) -> vec3u {
  if (at.x + 1u < p.OW) { return vec3u(at.x + 1u, at.yz); }
  if (at.y + 1u < p.OH) { return vec3u(0u, at.y + 1u, at.z); }
  return vec3u(0u, 0u, at.z + 1u);
}

fn pixel(at: vec3u, tap: u32, i: u32) -> f32 {
  // Below 0 these wrap around and end beyond the image.
  let iy = at.y * p.stride + tap / tapsAcross - p.pad;
  let ix = at.x * p.stride + tap % tapsAcross - p.pad;
  if (at.z >= p.B || iy >= p.H || ix >= p.W) { return 0.0; }
  return x[((at.z * p.H + iy) * p.W + ix) * p.I + i];
}

fn right(n: u32, k: u32) -> vec4f {
  if (n >= taps * p.I) { return vec4f(1.0); } // left is zero beyond the end
  let tap = n / p.I;
  let i = n % p.I;
  let row = 4u * k / p.OW;
  let a = vec3u(4u * k % p.OW, row % p.OH, row / p.OH);
  let b = next(a);
  let c = next(b);
  return vec4f(pixel(a, tap, i), pixel(b, tap, i), pixel(c, tap, i), pixel(next(c), tap, i));
}

fn store(m: u32, n: u32, sum: f32) {
  if (n < taps * p.I) { dw[(m * p.I + n % p.I) * taps + n / p.I] += sum; }
  else { db[m] += sum; }
}

//# depthwiseGradInput
@compute @workgroup_size(64)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.B * p.H * p.W * p.C) { return; }
  let c = i % p.C;
  let pixel = i / p.C;
  let image = pixel / (p.W * p.H) * p.H;
  let y = pixel / p.W % p.H + p.K / 2u;
  let x = pixel % p.W + p.K / 2u;
  var sum = 0.0;
  for (var ky = 0u; ky < p.K; ky++) {
    if (y - ky >= p.H) { continue; } // below 0 it wraps around
    for (var kx = 0u; kx < p.K; kx++) {
      if (x - kx >= p.W) { continue; }
      sum = fma(dz[((image + y - ky) * p.W + x - kx) * p.C + c], w[(c * p.K + ky) * p.K + kx], sum);
    }
  }
  dx[i] = sum;
}

//# depthwiseGradWeight
// An invocation owns one tap of one channel, neighbours neighbouring channels; a further row of them sums dz for the bias.

@compute @workgroup_size(64)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  let tap = i / p.C;
  let c = i % p.C;
  if (tap >= p.K * p.K + hasBias) { return; }
  var sum = 0.0;
  if (tap == p.K * p.K) {
    for (var pixel = 0u; pixel < p.B * p.H * p.W; pixel++) { sum += dz[pixel * p.C + c]; }
    db[c] += sum;
    return;
  }
  let ky = tap / p.K;
  let kx = tap % p.K;
  let pad = p.K / 2u;
  let begin = max(kx, pad) - kx; // columns of dz whose pixel of x lies in the image
  let end = max(p.W + min(kx, pad), kx) - kx;
  for (var row = 0u; row < p.B * p.H; row++) {
    let y = row % p.H + ky - pad; // below 0 it wraps around
    if (y >= p.H) { continue; }
    for (var column = begin; column < end; column++) {
      let at = ((row - row % p.H + y) * p.W + column + kx - pad) * p.C + c;
      sum = fma(dz[(row * p.W + column) * p.C + c], x[at], sum);
    }
  }
  dw[c * p.K * p.K + tap] += sum;
}

//# depthwise
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
