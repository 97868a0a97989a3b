// linear: loads and stores of the linear layers; the sums are those of webgpu/gemm.wgsl.

//# sizes
fn rowCount() -> u32 { return p.M; }
fn columnCount() -> u32 { return p.N; }
fn depth() -> u32 { return (p.K + 3u) / 4u; }

//# operands
// x and the weights are bound as vec4. Rows whose length is no multiple of four (`whole` = 0) are read one by one, without a loop:
// it would count towards what software adapters stop at.

// Of a row: its element (its vec4, if whole) of step q, and q.
alias LeftRow = vec2u;

fn leftRow(m: u32, q: u32) -> LeftRow {
  let at = (p.xRow + m) * p.K + 4u * q;
  return vec2u(select(at, at / 4u, whole == 1u), q);
}

fn element(i: u32) -> f32 { return x[i / 4u][i % 4u]; }

fn left(row: LeftRow, k: u32) -> vec4f {
  if (exact == 0u && row.y + k >= depth()) { return vec4f(); }
  if (whole == 1u) { return x[row.x + k]; }
  let at = row.x + 4u * k;
  let rest = p.K - 4u * (row.y + k);
  var v = vec4f(element(at), 0.0, 0.0, 0.0);
  if (rest > 1u) { v.y = element(at + 1u); }
  if (rest > 2u) { v.z = element(at + 2u); }
  if (rest > 3u) { v.w = element(at + 3u); }
  return v;
}

fn weight(row: RightRow, i: u32) -> f32 {
  if (half == 0u) { return bitcast<f32>(weightWords(row, i / 4u)[i % 4u]); }
  return unpack2x16float(weightWords(row, i / 8u)[(i / 2u) % 4u])[i % 2u];
}

// Four f32, or eight halves of which the lower bits come first, in a vec4 of words.
fn right(row: RightRow, k: u32) -> vec4f {
  if (exact == 0u && row.y + k >= depth()) { return vec4f(); }
  if (whole == 1u) {
    if (half == 0u) { return bitcast<vec4f>(weightWords(row, row.x + k)); }
    let words = weightWords(row, (row.x + k) / 2u);
    let pair = select(words.xy, words.zw, ((row.x + k) & 1u) != 0u);
    return vec4f(unpack2x16float(pair.x), unpack2x16float(pair.y));
  }
  let at = row.x + 4u * k;
  let rest = p.K - 4u * (row.y + k);
  var v = vec4f(weight(row, at), 0.0, 0.0, 0.0);
  if (rest > 1u) { v.y = weight(row, at + 1u); }
  if (rest > 2u) { v.z = weight(row, at + 2u); }
  if (rest > 3u) { v.w = weight(row, at + 3u); }
  return v;
}

//# linear
alias RightRow = vec2u; // as LeftRow

fn rightRow(n: u32, q: u32, tile: u32) -> RightRow {
  let at = n * p.K + 4u * q;
  return vec2u(select(at, at / 4u, whole == 1u), q);
}

fn weightWords(row: RightRow, i: u32) -> vec4u { return w[i]; }

//# linearStore
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

// As LeftRow, and which of the three: the same for all invocations where the weights are tiles apart (`apart` = 1).
alias RightRow = vec3u;

fn rightRow(n: u32, q: u32, tile: u32) -> RightRow {
  let at = columnOf(n) * p.K + 4u * q;
  return vec3u(select(at, at / 4u, whole == 1u), q, partOf(select(n, tile, apart == 1u)));
}

fn weightWords(row: RightRow, i: u32) -> vec4u {
  if (row.z == 0u) { return wq[i]; }
  if (row.z == 1u) { return wk[i]; }
  return wv[i];
}

//# qkvSizes
fn rowCount() -> u32 { return p.M; }
fn columnCount() -> u32 { return 3u * p.N; }
fn depth() -> u32 { return (p.K + 3u) / 4u; }
fn partOf(n: u32) -> u32 { return select(0u, 1u, n >= p.N) + select(0u, 1u, n >= 2u * p.N); }
fn columnOf(n: u32) -> u32 { return n - partOf(n) * p.N; }

//# qkvStore
fn store(m: u32, n: u32, sum: f32) {
  var v = sum;
  if (hasBias == 1u) {
    let i = columnOf(n);
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

//# rowsFrom
// Where four rows of so many elements begin. Added to what differs between invocations last, so that it is computed once for all.
fn rowsFrom(row: u32, length: u32) -> vec4u { return vec4u(row, row + 1u, row + 2u, row + 3u) * length; }

//# gradInputSizes
// Rows are tokens, columns are the layer's input channels, and k runs over its output channels.

fn rowCount() -> u32 { return p.M; }
fn columnCount() -> u32 { return p.K; }
fn depth() -> u32 { return (p.N + 3u) / 4u; }

//# gradInput
alias LeftRow = vec2u; // of a row: its element (its vec4, if whole) of step q, and q
alias RightRow = vec2u; // of a column: its weight of step q, and q

fn leftRow(m: u32, q: u32) -> LeftRow {
  let at = (p.yRow + m) * p.Z + p.zCol + 4u * q;
  return vec2u(select(at, at / 4u, whole == 1u), q);
}

fn rightRow(n: u32, q: u32, tile: u32) -> RightRow { return vec2u(4u * q * p.K + n, q); }

fn element(i: u32) -> f32 { return dz[i / 4u][i % 4u]; }

fn left(row: LeftRow, k: u32) -> vec4f {
  if (exact == 0u && row.y + k >= depth()) { return vec4f(); }
  if (whole == 1u) { return dz[row.x + k]; }
  let at = row.x + 4u * k;
  let rest = p.N - 4u * (row.y + k);
  var v = vec4f(element(at), 0.0, 0.0, 0.0);
  if (rest > 1u) { v.y = element(at + 1u); }
  if (rest > 2u) { v.z = element(at + 2u); }
  if (rest > 3u) { v.w = element(at + 3u); }
  return v;
}

fn weight(i: u32) -> f32 {
  if (half == 0u) { return bitcast<f32>(w[i]); }
  return unpack2x16float(w[i / 2u])[i % 2u];
}

fn right(column: RightRow, k: u32) -> vec4f {
  if (exact == 0u && column.y + k >= depth()) { return vec4f(); }
  let a = column.x;
  let at = rowsFrom(4u * k, p.K);
  if (whole == 1u) { return vec4f(weight(a + at.x), weight(a + at.y), weight(a + at.z), weight(a + at.w)); }
  let rest = p.N - 4u * (column.y + k);
  var v = vec4f(weight(a + at.x), 0.0, 0.0, 0.0);
  if (rest > 1u) { v.y = weight(a + at.y); }
  if (rest > 2u) { v.z = weight(a + at.z); }
  if (rest > 3u) { v.w = weight(a + at.w); }
  return v;
}

//# gradInputStore
fn store(m: u32, n: u32, sum: f32) {
  let i = (p.xRow + m) * p.K + n;
  if (accumulate == 1u) { dx[i] += sum; }
  else { dx[i] = sum; }
}

//# gradWeightSizes
// Rows are output channels, columns are input channels, and k runs over tokens. The bias is one more column, of ones.

fn rowCount() -> u32 { return p.N; }
fn columnCount() -> u32 { return p.K + hasBias; }
fn depth() -> u32 { return (p.M + 3u) / 4u; }

//# gradWeight
alias LeftRow = vec2u; // of a column of dz: its element of step q, and q
alias RightRow = vec3u; // of a column of x likewise, and whether it is the bias, whose tile has nothing else if `apart` = 1

fn leftRow(m: u32, q: u32) -> LeftRow { return vec2u((p.yRow + 4u * q) * p.Z + p.zCol + m, q); }
fn rightRow(n: u32, q: u32, tile: u32) -> RightRow {
  return vec3u((p.xRow + 4u * q) * p.K + n, q, select(0u, 1u, select(n, tile, apart == 1u) >= p.K));
}

fn left(row: LeftRow, k: u32) -> vec4f {
  if (exact == 0u && row.y + k >= depth()) { return vec4f(); }
  let a = row.x;
  let at = rowsFrom(4u * k, p.Z);
  if (whole == 1u) { return vec4f(dz[a + at.x], dz[a + at.y], dz[a + at.z], dz[a + at.w]); }
  let rest = p.M - 4u * (row.y + k);
  var v = vec4f(dz[a + at.x], 0.0, 0.0, 0.0);
  if (rest > 1u) { v.y = dz[a + at.y]; }
  if (rest > 2u) { v.z = dz[a + at.z]; }
  if (rest > 3u) { v.w = dz[a + at.w]; }
  return v;
}

fn right(column: RightRow, k: u32) -> vec4f {
  if (column.z == 1u) { return vec4f(1.0); } // left is zero beyond the end
  if (exact == 0u && column.y + k >= depth()) { return vec4f(); }
  let a = column.x;
  let at = rowsFrom(4u * k, p.K);
  if (whole == 1u) { return vec4f(x[a + at.x], x[a + at.y], x[a + at.z], x[a + at.w]); }
  let rest = p.M - 4u * (column.y + k);
  var v = vec4f(x[a + at.x], 0.0, 0.0, 0.0);
  if (rest > 1u) { v.y = x[a + at.y]; }
  if (rest > 2u) { v.z = x[a + at.z]; }
  if (rest > 3u) { v.w = x[a + at.w]; }
  return v;
}

//# gradWeightStore
fn store(m: u32, n: u32, sum: f32) {
  if (n < p.K) { dw[m * p.K + n] += sum; }
  else { db[m] += sum; }
}
