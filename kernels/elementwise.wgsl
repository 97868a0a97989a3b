// elementwise: one invocation makes one element; neighbours read and write neighbours.

//# unary
struct Params { E: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;

fn compute(i: u32) {
  if (i < p.E) { y[i] = activate(x[i]); }
}

//# binary
override op: u32 = 0u; // 0 axpby, 1 lerp, 2 mul
struct Params { E: u32, alpha: f32, beta: f32 }
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> p: Params;

fn compute(i: u32) {
  if (i >= p.E) { return; }
  let u = a[i];
  let v = b[i];
  switch op {
    case 0u: { y[i] = fma(p.alpha, u, p.beta * v); }
    case 1u: { y[i] = fma(p.alpha, v - u, u); }
    default: { y[i] = p.alpha * u * v; }
  }
}

//# glu
struct Params { P: u32, C: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>; // [P, 2C] = [a | g]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;

fn compute(i: u32) {
  if (i >= p.P * p.C) { return; }
  let a = (i / p.C) * 2u * p.C + i % p.C;
  y[i] = x[a] * silu(x[a + p.C]);
}

//# gluGrad
struct Params { P: u32, C: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>; // [P, 2C] = [a | g]
@group(0) @binding(1) var<storage, read> dy: array<f32>; // [P, C]
@group(0) @binding(2) var<storage, read_write> dx: array<f32>; // [P, 2C]
@group(0) @binding(3) var<uniform> p: Params;

fn compute(i: u32) {
  if (i >= p.P * p.C) { return; }
  let a = (i / p.C) * 2u * p.C + i % p.C;
  dx[a] = dy[i] * silu(x[a + p.C]);
  dx[a + p.C] = dy[i] * x[a] * siluGrad(x[a + p.C]);
}

//# embed
override hasX: u32 = 0u;
struct Params { R: u32, D: u32 }
@group(0) @binding(0) var<storage, read> table: array<f32>;
@group(0) @binding(1) var<storage, read> index: array<i32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> p: Params;

fn compute(i: u32) {
  if (i >= p.R * p.D) { return; }
  var v = table[u32(index[i / p.D]) * p.D + i % p.D];
  if (hasX == 1u) { v += x[i]; }
  y[i] = v;
}

//# groupMean
override hasResidual: u32 = 0u;
struct Params { P: u32, C: u32, O: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> residual: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> p: Params;

fn compute(i: u32) {
  if (i >= p.P * p.O) { return; }
  let r = p.C / p.O;
  var sum = 0.0;
  for (var j = 0u; j < r; j++) { sum += x[i * r + j]; }
  var v = sum / f32(r);
  if (hasResidual == 1u) { v += residual[i]; }
  y[i] = v;
}

//# groupMeanGrad
struct Params { P: u32, C: u32, O: u32 }
@group(0) @binding(0) var<storage, read> dy: array<f32>; // [P, O]
@group(0) @binding(1) var<storage, read_write> dx: array<f32>; // [P, C]
@group(0) @binding(2) var<uniform> p: Params;

fn compute(i: u32) {
  let r = p.C / p.O;
  if (i < p.P * p.C) { dx[i] = dy[i / r] / f32(r); }
}

//# gateAdd
struct Params { M: u32, row: u32, D: u32, G: u32, gateCol: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> modulation: array<f32>;
@group(0) @binding(2) var<storage, read> rows: array<i32>;
@group(0) @binding(3) var<storage, read> residual: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> p: Params;

fn compute(i: u32) {
  if (i >= p.M * p.D) { return; }
  let at = p.row * p.D + i;
  let gate = modulation[u32(rows[at / p.D]) * p.G + p.gateCol + i % p.D];
  y[at] = fma(gate, x[at], residual[at]);
}

//# unaryGrad
struct Params { E: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<uniform> p: Params;

fn compute(i: u32) {
  if (i < p.E) { dx[i] = dy[i] * activateGrad(x[i]); }
}

//# gateMul
struct Params { M: u32, row: u32, D: u32, G: u32, gateCol: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> modulation: array<f32>;
@group(0) @binding(2) var<storage, read> rows: array<i32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> p: Params;

fn compute(i: u32) {
  if (i >= p.M * p.D) { return; }
  let at = p.row * p.D + i;
  y[at] = modulation[u32(rows[at / p.D]) * p.G + p.gateCol + i % p.D] * x[at];
}

//# accumulate
struct Params { E: u32, alpha: f32, beta: f32 }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> p: Params;

fn compute(i: u32) {
  if (i < p.E) { y[i] = fma(p.beta, y[i], p.alpha * x[i]); }
}

//# fill
struct Params { E: u32, value: f32 }
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<uniform> p: Params;

fn compute(i: u32) {
  if (i < p.E) { y[i] = p.value; }
}

//# main
@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  compute((group.y * groups.x + group.x) * 64u + lane);
}
