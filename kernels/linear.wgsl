// linear: loads and stores of the linear layers; the sums are those of webgpu/gemm.wgsl.

//# operands
// x and the weights are bound as vec4. Rows whose length is no multiple of four are read one by one.

fn rowCount() -> u32 { return p.M; }
fn depth() -> u32 { return (p.K + 3u) / 4u; }

fn left(m: u32, k: u32) -> vec4f {
  if (4u * k >= p.K) { return vec4f(); }
  let at = (p.xRow + m) * p.K + 4u * k;
  if (p.K % 4u == 0u) { return x[at / 4u]; }
  var v = vec4f();
  for (var i = 0u; i < min(4u, p.K - 4u * k); i++) { v[i] = x[(at + i) / 4u][(at + i) % 4u]; }
  return v;
}

// Four f32, or eight halves of which the lower bits come first, in a vec4 of words.
fn right(n: u32, k: u32) -> vec4f {
  if (4u * k >= p.K) { return vec4f(); }
  let at = weightRow(n) * p.K + 4u * k;
  if (p.K % 4u == 0u) {
    if (half == 0u) { return bitcast<vec4f>(weightWords(n, at / 4u)); }
    let words = weightWords(n, at / 8u);
    let pair = select(words.xy, words.zw, (at & 4u) != 0u);
    return vec4f(unpack2x16float(pair.x), unpack2x16float(pair.y));
  }
  var v = vec4f();
  for (var i = 0u; i < min(4u, p.K - 4u * k); i++) {
    let e = at + i;
    if (half == 0u) { v[i] = bitcast<f32>(weightWords(n, e / 4u)[e % 4u]); }
    else { v[i] = unpack2x16float(weightWords(n, e / 8u)[(e / 2u) % 4u])[e % 2u]; }
  }
  return v;
}

//# linear
override hasBias: u32 = 0u;
override hasGate: u32 = 0u;
override hasResidual: u32 = 0u;
override half: u32 = 0u;
struct Params { M: u32, N: u32, K: u32, G: u32, xRow: u32, yRow: u32, gateCol: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>; // [X, K]
@group(0) @binding(1) var<storage, read> w: array<vec4u>; // [N, K], f32 or f16
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> modulation: array<f32>; // [R, G]
@group(0) @binding(4) var<storage, read> rows: array<i32>; // [Y]
@group(0) @binding(5) var<storage, read> residual: array<f32>; // [Y, N]
@group(0) @binding(6) var<storage, read_write> y: array<f32>; // [Y, N]
@group(0) @binding(7) var<uniform> p: Params;

fn columnCount() -> u32 { return p.N; }
fn weightRow(n: u32) -> u32 { return n; }
fn weightWords(n: u32, i: u32) -> vec4u { return w[i]; }

fn store(m: u32, n: u32, sum: f32) {
  let t = p.yRow + m;
  var v = sum;
  if (hasBias == 1u) { v += bias[n]; }
  v = activate(v);
  if (hasGate == 1u) { v *= modulation[u32(rows[t]) * p.G + p.gateCol + n]; }
  if (hasResidual == 1u) { v += residual[t * p.N + n]; }
  y[t * p.N + n] = v;
}

//# qkv
// One product of 3N columns: the column says which of the three weights it is.
override hasBias: u32 = 0u;
override half: u32 = 0u;
struct Params { M: u32, N: u32, K: u32, xRow: u32, yRow: u32 }
@group(0) @binding(0) var<storage, read> x: array<vec4f>; // [X, K]
@group(0) @binding(1) var<storage, read> wq: array<vec4u>; // [N, K], f32 or f16
@group(0) @binding(2) var<storage, read> wk: array<vec4u>;
@group(0) @binding(3) var<storage, read> wv: array<vec4u>;
@group(0) @binding(4) var<storage, read> bq: array<f32>;
@group(0) @binding(5) var<storage, read> bk: array<f32>;
@group(0) @binding(6) var<storage, read> bv: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>; // [Y, 3N]
@group(0) @binding(8) var<uniform> p: Params;

fn columnCount() -> u32 { return 3u * p.N; }

fn weightRow(n: u32) -> u32 {
  return n - select(0u, p.N, n >= p.N) - select(0u, p.N, n >= 2u * p.N);
}

fn weightWords(n: u32, i: u32) -> vec4u {
  if (n < p.N) { return wq[i]; }
  if (n < 2u * p.N) { return wk[i]; }
  return wv[i];
}

fn store(m: u32, n: u32, sum: f32) {
  var v = sum;
  if (hasBias == 1u) {
    let i = weightRow(n);
    if (n < p.N) { v += bq[i]; }
    else if (n < 2u * p.N) { v += bk[i]; }
    else { v += bv[i]; }
  }
  y[(p.yRow + m) * 3u * p.N + n] = v;
}

//# grouped
override hasBias: u32 = 0u;
struct Params { P: u32, GI: u32, GO: u32, I: u32 }
@group(0) @binding(0) var<storage, read> x: array<f32>; // [P, GI]
@group(0) @binding(1) var<storage, read> w: array<f32>; // [GO, I]
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>; // [P, GO]
@group(0) @binding(4) var<uniform> p: Params;

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.P * p.GO) { return; }
  let o = i % p.GO;
  let first = (i / p.GO) * p.GI + (o / (p.GO / (p.GI / p.I))) * p.I;
  var sum = 0.0;
  for (var k = 0u; k < p.I; k++) { sum = fma(x[first + k], w[o * p.I + k], sum); }
  if (hasBias == 1u) { sum += bias[o]; }
  y[i] = sum;
}
