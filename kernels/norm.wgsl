// norm: a row of channels is shared by neighbouring invocations, which read neighbouring channels.

//# normModulate
// One workgroup a token: few tokens (64 a denoising step) must still fill a GPU. An invocation keeps its channels in
// registers, so that a row is loaded once and at once; what is longer than 1,024 channels is read again.

alias Sum = f32;
const HELD = 4u; // vec4 that an invocation keeps

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let t = rowOf(group, groups, lane);
  let count = select(0u, p.D / 4u, t < p.T);
  let first = t * count;
  let scales = (u32(rows[min(t, p.T - 1u)]) * p.G + p.scaleCol) / 4u;
  let shifts = (u32(rows[min(t, p.T - 1u)]) * p.G + p.shiftCol) / 4u;
  var held = array<vec4f, HELD>();
  var sum = vec4f();
  for (var n = 0u; n < HELD; n++) { // unroll
    if (lane + n * 64u < count) { held[n] = x[first + lane + n * 64u]; }
    sum += held[n];
  }
  for (var d = lane + HELD * 64u; d < count; d += 64u) { sum += x[first + d]; }
  let mean = sumOfRow(lane, (sum.x + sum.y) + (sum.z + sum.w)) / f32(p.D);
  var square = vec4f(); // a second pass: E[x²] - mean² would lose digits
  for (var n = 0u; n < HELD; n++) { // unroll
    held[n] -= mean;
    if (lane + n * 64u < count) { square = fma(held[n], held[n], square); }
  }
  for (var d = lane + HELD * 64u; d < count; d += 64u) {
    let c = x[first + d] - mean;
    square = fma(c, c, square);
  }
  let variance = sumOfRow(lane, (square.x + square.y) + (square.z + square.w)) / f32(p.D);
  let scale = 1.0 / sqrt(variance + p.eps);
  for (var n = 0u; n < HELD; n++) { // unroll
    let d = lane + n * 64u;
    if (d < count) { y[first + d] = fma(held[n] * scale, 1.0 + modulation[scales + d], modulation[shifts + d]); }
  }
  for (var d = lane + HELD * 64u; d < count; d += 64u) {
    y[first + d] = fma((x[first + d] - mean) * scale, 1.0 + modulation[scales + d], modulation[shifts + d]);
  }
}

//# normModulateGrad
alias Sum = vec2f;

fn sumsOf(a: vec4f, b: vec4f) -> vec2f { return vec2f((a.x + a.y) + (a.z + a.w), (b.x + b.y) + (b.z + b.w)); }

@compute @workgroup_size(64)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let t = rowOf(group, groups, lane);
  let count = select(0u, p.D / 4u, t < p.T);
  let first = t * count;
  let scales = (u32(rows[min(t, p.T - 1u)]) * p.G + p.scaleCol) / 4u;
  var sum = vec4f();
  for (var d = lane; d < count; d += 64u) { sum += x[first + d]; }
  let mean = sumOfRow(lane, sumsOf(sum, vec4f())).x / f32(p.D);
  var square = vec4f();
  for (var d = lane; d < count; d += 64u) {
    let c = x[first + d] - mean;
    square = fma(c, c, square);
  }
  let inverse = 1.0 / sqrt(sumOfRow(lane, sumsOf(square, vec4f())).x / f32(p.D) + p.eps);
  var plain = vec4f(); // sums of g and of g * normal, where g is the gradient of the normal
  var product = vec4f();
  for (var d = lane; d < count; d += 64u) {
    let g = dy[first + d] * (1.0 + modulation[scales + d]);
    plain += g;
    product = fma(g, (x[first + d] - mean) * inverse, product);
  }
  let means = sumOfRow(lane, sumsOf(plain, product)) / f32(p.D);
  for (var d = lane; d < count; d += 64u) {
    let normal = (x[first + d] - mean) * inverse;
    let g = dy[first + d] * (1.0 + modulation[scales + d]);
    dx[first + d] = (g - means.x - normal * means.y) * inverse;
    dscale[first + d] = dy[first + d] * normal;
  }
}

//# rmsNorm
// Four pixels a workgroup, 16 invocations a pixel: there are many pixels of 64 to 1024 channels.

alias Sum = f32;

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let pixel = rowOf(group, groups, lane);
  let end = select(0u, p.C, pixel < p.P);
  let first = pixel * p.C;
  var sum = 0.0;
  for (var c = lane % SHARE; c < end; c += SHARE) { sum = fma(x[first + c], x[first + c], sum); }
  let scale = 1.0 / sqrt(sumOfRow(lane, sum) / f32(p.C) + p.eps);
  for (var c = lane % SHARE; c < end; c += SHARE) {
    var v = x[first + c] * scale * weight[c];
    if (hasBias == 1u) { v += bias[c]; }
    v = activate(v);
    if (hasResidual == 1u) { v += residual[first + c]; }
    y[first + c] = v;
  }
}

//# rmsNormGrad
// Shared as in rmsNorm. One pass gives both sums: of x² and of dy w x, whose mean times the scale is that of dw w.

alias Sum = vec2f;

@compute @workgroup_size(64)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let pixel = rowOf(group, groups, lane);
  let end = select(0u, p.C, pixel < p.P);
  let first = pixel * p.C;
  var sum = vec2f();
  for (var c = lane % SHARE; c < end; c += SHARE) {
    sum = fma(vec2f(x[first + c]), vec2f(x[first + c], dy[first + c] * weight[c]), sum);
  }
  let means = sumOfRow(lane, sum) / f32(p.C);
  let inverse = 1.0 / sqrt(means.x + p.eps);
  for (var c = lane % SHARE; c < end; c += SHARE) {
    let normal = x[first + c] * inverse;
    dx[first + c] = (dy[first + c] * weight[c] - normal * (inverse * means.y)) * inverse;
    dw[first + c] = dy[first + c] * normal;
  }
}

//# channels
// A workgroup owns 8 channels, one sector of memory; 32 parts of 8 lanes go through every 32nd pixel. Returns the sum
// over the parts for the lane's channel.
var<workgroup> partial: array<vec2f, 256>;

fn sumOfParts(lane: u32, value: vec2f) -> vec2f {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = 128u; half >= 8u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  let sum = partial[lane % 8u];
  workgroupBarrier();
  return sum;
}

//# batchStats
@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let c = group.x * 8u + lane % 8u;
  let end = select(0u, p.P, c < p.C);
  var sum = 0.0;
  for (var i = lane / 8u; i < end; i += 32u) { sum += x[i * p.C + c]; }
  let average = sumOfParts(lane, vec2f(sum, 0.0)).x / f32(p.P);
  var square = 0.0; // a second pass: E[x²] - mean² would lose digits
  for (var i = lane / 8u; i < end; i += 32u) {
    let d = x[i * p.C + c] - average;
    square = fma(d, d, square);
  }
  let squares = sumOfParts(lane, vec2f(square, 0.0)).x;
  if (lane >= 8u || c >= p.C) { return; }
  mean[c] = average;
  variance[c] = squares / f32(p.P);
  if (hasRunning == 0u) { return; }
  runningMean[c] += p.momentum * (average - runningMean[c]);
  runningVariance[c] += p.momentum * (squares / f32(p.P - 1u) - runningVariance[c]);
}

//# batchNormSums
@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let c = group.x * 8u + lane % 8u;
  let end = select(0u, p.P, c < p.C);
  let average = mean[min(c, p.C - 1u)];
  var sum = vec2f(); // of dy (x - mean) and of dy
  for (var i = lane / 8u; i < end; i += 32u) {
    sum = fma(vec2f(dy[i * p.C + c]), vec2f(x[i * p.C + c] - average, 1.0), sum);
  }
  let sums = sumOfParts(lane, sum);
  if (lane >= 8u || c >= p.C) { return; }
  dweight[c] = sums.x / sqrt(variance[c] + p.eps);
  dbias[c] = sums.y;
}

//# batchNormGrad
@compute @workgroup_size(64)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.P * p.C) { return; }
  let c = i % p.C;
  let inverse = 1.0 / sqrt(variance[c] + p.eps);
  let normal = (x[i] - mean[c]) * inverse;
  dx[i] = weight[c] * inverse * (dy[i] - fma(normal, dweight[c], dbias[c]) / f32(p.P));
}

//# batchNorm
@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.P * p.C) { return; }
  let c = i % p.C;
  var v = activate(fma((x[i] - mean[c]) / sqrt(variance[c] + p.eps), weight[c], bias[c]));
  if (hasResidual == 1u) { v += residual[i]; }
  y[i] = v;
}
