// conv2d: loads and stores of the dense convolution and its gradients, whose sums are those of webgpu/gemm.wgsl; and the
// depthwise one.

//# blocks
// Constants: `taps` and `tapsAcross`, by which dividing is a multiplication; `stride`.
//
// k runs over blocks of 4 `steps` channels, then the filter's taps, then the channels of the block: neighbours read
// neighbouring channels of the image. Weights are copied into this order first (part `pack`), four to a vec4, so that a product
// reads them as it reads those of a linear layer. What follows this text supplies the image: `image` by fours and `element`.

struct Place { channel: u32, y: u32, x: u32 } // first of four channels, row and column of the tap

fn depthOf(channels: u32) -> u32 { return (channels + 4u * steps - 1u) / (4u * steps) * taps * steps; }

// The place of step k + q. Where all steps of a stage belong to one tap (`together` = 1), it differs between invocations in
// the channel alone.
fn placeOf(k: u32, q: u32) -> Place {
  let first = select(k + q, k, together == 1u);
  let step = first % steps + select(0u, q, together == 1u);
  let tap = first / steps % taps;
  return Place(4u * (first / (taps * steps) * steps + step), tap / tapsAcross, tap % tapsAcross);
}

//# quads
// Four channels of a pixel from channel c on, whose place is `at`; zero beyond the last channel.
fn quad(at: u32, c: u32, channels: u32) -> vec4f {
  if (even == 1u || channels % 4u == 0u) { return image(at / 4u); }
  var v = vec4f(element(at), 0.0, 0.0, 0.0);
  if (c + 1u < channels) { v.y = element(at + 1u); }
  if (c + 2u < channels) { v.z = element(at + 2u); }
  if (c + 3u < channels) { v.w = element(at + 3u); }
  return v;
}

//# pack
// An invocation gathers four weights of a row. Rows are output channels and k runs over input channels, or (`turned`) the reverse.

fn weight(n: u32, c: u32, tap: u32) -> f32 {
  let o = select(n, c, turned == 1u);
  let i = select(c, n, turned == 1u);
  if (o >= p.O || i >= p.I) { return 0.0; }
  let at = (o * p.I + i) * taps + tap;
  if (half == 0u) { return bitcast<f32>(w[at]); }
  return unpack2x16float(w[at / 2u])[at % 2u];
}

@compute @workgroup_size(64)
fn pack(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  let depth = depthOf(select(p.I, p.O, turned == 1u));
  let n = i / depth;
  if (n >= select(p.O, p.I, turned == 1u)) { return; }
  let at = placeOf(i % depth, 0u);
  let tap = at.y * tapsAcross + at.x;
  let c = at.channel;
  packed[i] = vec4f(weight(n, c, tap), weight(n, c + 1u, tap), weight(n, c + 2u, tap), weight(n, c + 3u, tap));
}

//# packed
// The rows of packed weights as the right operand.
alias RightRow = vec2u; // its vec4 of step q, and q

fn rightRow(n: u32, q: u32, tile: u32) -> RightRow { return vec2u(n * depth() + q, q); }

fn right(row: RightRow, k: u32) -> vec4f {
  if (exact == 0u && row.y + k >= depth()) { return vec4f(); }
  return packed[row.x + k];
}

//# denseSizes
// A product of B OH OW pixels and O channels.

fn rowCount() -> u32 { return p.B * p.OH * p.OW; }
fn columnCount() -> u32 { return p.O; }
fn depth() -> u32 { return depthOf(p.I); }

//# dense
alias LeftRow = vec4u; // row and column of the first tap, its first element, and q; all but q may wrap around below 0

fn image(i: u32) -> vec4f { return x[i]; }
fn element(i: u32) -> f32 { return x[i / 4u][i % 4u]; }

fn leftRow(m: u32, q: u32) -> LeftRow {
  let row = m / p.OW;
  let y = row % p.OH * stride - p.pad;
  let x = m % p.OW * stride - p.pad;
  return vec4u(y, x, ((row / p.OH * p.H + y) * p.W + x) * p.I, q);
}

fn left(row: LeftRow, k: u32) -> vec4f {
  if (exact == 0u && row.w + k >= depth()) { return vec4f(); }
  let at = placeOf(k, row.w);
  if (row.x + at.y >= p.H || row.y + at.x >= p.W || (even == 0u && at.channel >= p.I)) { return vec4f(); }
  return quad(row.z + ((at.y * p.W + at.x) * p.I + at.channel), at.channel, p.I);
}

//# denseStore
fn store(m: u32, n: u32, sum: f32) {
  var v = sum;
  if (hasBias == 1u) { v += bias[n]; }
  y[m * p.O + n] = activate(v);
}

//# gradInputSizes
// A product of B H W input pixels and I channels; k runs over output channels and taps. Pixel (y, x) takes tap (ky, kx)
// from output pixel ((y + pad - ky) / stride, (x + pad - kx) / stride) where both divide.

fn rowCount() -> u32 { return p.B * p.H * p.W; }
fn columnCount() -> u32 { return p.I; }
fn depth() -> u32 { return depthOf(p.O); }

//# gradInput
alias LeftRow = vec4u; // first row of dz's image; y + pad, x + pad; q

fn image(i: u32) -> vec4f { return dz[i]; }
fn element(i: u32) -> f32 { return dz[i / 4u][i % 4u]; }

fn leftRow(m: u32, q: u32) -> LeftRow {
  let row = m / p.W;
  return vec4u(row / p.H * p.OH, row % p.H + p.pad, m % p.W + p.pad, q);
}

fn left(row: LeftRow, k: u32) -> vec4f {
  if (exact == 0u && row.w + k >= depth()) { return vec4f(); }
  let at = placeOf(k, row.w);
  let y = row.y - at.y; // below 0 these wrap around and end beyond the image
  let x = row.z - at.x;
  let oy = y / stride;
  let ox = x / stride;
  if (oy >= p.OH || ox >= p.OW || oy * stride != y || ox * stride != x) { return vec4f(); }
  if (even == 0u && at.channel >= p.O) { return vec4f(); }
  return quad(((row.x + oy) * p.OW + ox) * p.O + at.channel, at.channel, p.O);
}

//# gradInputStore
fn store(m: u32, n: u32, sum: f32) {
  let i = m * p.I + n;
  if (accumulate == 1u) { dx[i] += sum; }
  else { dx[i] = sum; }
}

//# gradWeightSizes
// A product of O output channels and the filter's taps times I input channels, which neighbouring columns read side by
// side; k runs over the pixels of dz. The bias is one more column, of ones.

fn rowCount() -> u32 { return p.O; }
fn columnCount() -> u32 { return taps * p.I + hasBias; }
fn pixelCount() -> u32 { return p.B * p.OH * p.OW; }
fn depth() -> u32 { return (pixelCount() + 3u) / 4u; }

//# gradWeight
alias LeftRow = vec2u; // of an output channel: its element of step q, and q
alias RightRow = vec4u; // input channel; row and column of the tap less the padding, which may wrap around below 0; q

fn leftRow(m: u32, q: u32) -> LeftRow { return vec2u(4u * q * p.O + m, q); }

fn rightRow(n: u32, q: u32, tile: u32) -> RightRow {
  if (n >= taps * p.I) { return vec4u(p.I, 0u, 0u, q); } // the bias
  let tap = n / p.I;
  return vec4u(n % p.I, tap / tapsAcross - p.pad, tap % tapsAcross - p.pad, q);
}

fn left(row: LeftRow, k: u32) -> vec4f {
  if (exact == 0u && row.y + k >= depth()) { return vec4f(); }
  let a = row.x;
  let at = vec4u(0u, 1u, 2u, 3u) * p.O + 4u * k * p.O;
  if (whole == 1u) { return vec4f(dz[a + at.x], dz[a + at.y], dz[a + at.z], dz[a + at.w]); }
  let rest = pixelCount() - 4u * (row.y + k);
  var v = vec4f(dz[a + at.x], 0.0, 0.0, 0.0);
  if (rest > 1u) { v.y = dz[a + at.y]; }
  if (rest > 2u) { v.z = dz[a + at.z]; }
  if (rest > 3u) { v.w = dz[a + at.w]; }
  return v;
}

// Pixels of dz are counted, not divided for: (column, row, image).
fn next(at: vec3u) -> vec3u {
  if (at.x + 1u < p.OW) { return vec3u(at.x + 1u, at.yz); }
  if (at.y + 1u < p.OH) { return vec3u(0u, at.y + 1u, at.z); }
  return vec3u(0u, 0u, at.z + 1u);
}

fn pixel(at: vec3u, column: RightRow) -> f32 {
  let iy = at.y * stride + column.y;
  let ix = at.x * stride + column.z;
  if (at.z >= p.B || iy >= p.H || ix >= p.W) { return 0.0; }
  return x[((at.z * p.H + iy) * p.W + ix) * p.I + column.x];
}

fn right(column: RightRow, k: u32) -> vec4f {
  if (column.x == p.I) { return vec4f(1.0); } // left is zero beyond the end
  let first = 4u * (column.w + k);
  let row = first / p.OW;
  let a = vec3u(first % p.OW, row % p.OH, row / p.OH);
  let b = next(a);
  let c = next(b);
  return vec4f(pixel(a, column), pixel(b, column), pixel(c, column), pixel(next(c), column));
}

//# gradWeightStore
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
