// linear: loads and stores of the linear layers; the sums are those of webgpu/gemm.wgsl.

//# operands
// x and the weights are bound as vec4. Rows whose length is no multiple of four are read one by one, without a loop: it
// would count towards what software adapters stop at.

fn rowCount() -> u32 { return p.M; }
fn depth() -> u32 { return (p.K + 3u) / 4u; }

fn element(i: u32) -> f32 { return x[i / 4u][i % 4u]; }

fn left(m: u32, k: u32) -> vec4f {
  if (4u * k >= p.K) { return vec4f(); }
  let at = (p.xRow + m) * p.K + 4u * k;
  if (p.K % 4u == 0u) { return x[at / 4u]; }
  var v = vec4f(element(at), 0.0, 0.0, 0.0);
  if (4u * k + 1u < p.K) { v.y = element(at + 1u); }
  if (4u * k + 2u < p.K) { v.z = element(at + 2u); }
  if (4u * k + 3u < p.K) { v.w = element(at + 3u); }
  return v;
}

fn weight(n: u32, i: u32) -> f32 {
  if (half == 0u) { return bitcast<f32>(weightWords(n, i / 4u)[i % 4u]); }
  return unpack2x16float(weightWords(n, i / 8u)[(i / 2u) % 4u])[i % 2u];
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
  var v = vec4f(weight(n, at), 0.0, 0.0, 0.0);
  if (4u * k + 1u < p.K) { v.y = weight(n, at + 1u); }
  if (4u * k + 2u < p.K) { v.z = weight(n, at + 2u); }
  if (4u * k + 3u < p.K) { v.w = weight(n, at + 3u); }
  return v;
}

//# linear
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

//# groupedGradInput
@compute @workgroup_size(64)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.P * p.GI) { return; }
  let each = p.GO / (p.GI / p.I);
  let first = i % p.GI / p.I * each;
  var sum = 0.0;
  for (var o = first; o < first + each; o++) {
    sum = fma(dz[(i / p.GI) * p.GO + o], w[o * p.I + i % p.I], sum); // I divides GI
  }
  dx[i] = sum;
}

//# groupedGradWeight
@compute @workgroup_size(64)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.GO * p.I) { return; }
  let o = i / p.I;
  let c = o / (p.GO / (p.GI / p.I)) * p.I + i % p.I;
  var sum = 0.0;
  var bias = 0.0;
  for (var r = 0u; r < p.P; r++) {
    let d = dz[r * p.GO + o];
    sum = fma(d, x[r * p.GI + c], sum);
    bias += d;
  }
  dw[i] += sum;
  if (hasBias == 1u && i % p.I == 0u) { db[o] += bias; }
}

//# gradInput
// Rows are tokens, columns are the layer's input channels, and k runs over its output channels.

fn rowCount() -> u32 { return p.M; }
fn columnCount() -> u32 { return p.K; }
fn depth() -> u32 { return (p.N + 3u) / 4u; }

fn element(i: u32) -> f32 { return dz[i / 4u][i % 4u]; }

fn left(m: u32, k: u32) -> vec4f {
  if (4u * k >= p.N) { return vec4f(); }
  let at = (p.yRow + m) * p.Z + p.zCol + 4u * k;
  if ((p.Z | p.zCol | p.N) % 4u == 0u) { return dz[at / 4u]; }
  var v = vec4f(element(at), 0.0, 0.0, 0.0);
  if (4u * k + 1u < p.N) { v.y = element(at + 1u); }
  if (4u * k + 2u < p.N) { v.z = element(at + 2u); }
  if (4u * k + 3u < p.N) { v.w = element(at + 3u); }
  return v;
}

fn weight(n: u32, k: u32) -> f32 {
  let i = n * p.K + k;
  if (n >= p.N) { return 0.0; }
  if (half == 0u) { return bitcast<f32>(w[i]); }
  return unpack2x16float(w[i / 2u])[i % 2u];
}

fn right(n: u32, k: u32) -> vec4f {
  return vec4f(weight(4u * k, n), weight(4u * k + 1u, n), weight(4u * k + 2u, n), weight(4u * k + 3u, n));
}

fn store(m: u32, n: u32, sum: f32) {
  let i = (p.xRow + m) * p.K + n;
  if (accumulate == 1u) { dx[i] += sum; }
  else { dx[i] = sum; }
}

//# gradWeight
// Rows are output channels, columns are input channels, and k runs over tokens. The bias is one more column, of ones.

fn rowCount() -> u32 { return p.N; }
fn columnCount() -> u32 { return p.K + hasBias; }
fn depth() -> u32 { return (p.M + 3u) / 4u; }

fn left(m: u32, k: u32) -> vec4f {
  var v = vec4f();
  var at = (p.yRow + 4u * k) * p.Z + p.zCol + m;
  if (4u * k < p.M) { v.x = dz[at]; }
  if (4u * k + 1u < p.M) { v.y = dz[at + p.Z]; }
  if (4u * k + 2u < p.M) { v.z = dz[at + 2u * p.Z]; }
  if (4u * k + 3u < p.M) { v.w = dz[at + 3u * p.Z]; }
  return v;
}

fn right(n: u32, k: u32) -> vec4f {
  if (n >= p.K) { return vec4f(1.0); } // left is zero beyond the end
  var v = vec4f();
  var at = (p.xRow + 4u * k) * p.K + n;
  if (4u * k < p.M) { v.x = x[at]; }
  if (4u * k + 1u < p.M) { v.y = x[at + p.K]; }
  if (4u * k + 2u < p.M) { v.z = x[at + 2u * p.K]; }
  if (4u * k + 3u < p.M) { v.w = x[at + 3u * p.K]; }
  return v;
}

fn store(m: u32, n: u32, sum: f32) {
  if (n < p.K) { dw[m * p.K + n] += sum; }
  else { db[m] += sum; }
}
