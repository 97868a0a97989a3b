// elementwise: one invocation makes one element; neighbours read and write neighbours.

//# unary
fn compute(i: u32) {
  if (i < p.E) { y[i] = activate(x[i]); }
}

//# binary
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
fn compute(i: u32) {
  if (i >= p.P * p.C) { return; }
  let a = (i / p.C) * 2u * p.C + i % p.C;
  y[i] = x[a] * silu(x[a + p.C]);
}

//# gluGrad
fn compute(i: u32) {
  if (i >= p.P * p.C) { return; }
  let a = (i / p.C) * 2u * p.C + i % p.C;
  dx[a] = dy[i] * silu(x[a + p.C]);
  dx[a + p.C] = dy[i] * x[a] * siluGrad(x[a + p.C]);
}

//# embed
fn compute(i: u32) {
  if (i >= p.R * p.D) { return; }
  var v = table[u32(index[i / p.D]) * p.D + i % p.D];
  if (hasX == 1u) { v += x[i]; }
  y[i] = v;
}

//# groupMean
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
fn compute(i: u32) {
  let r = p.C / p.O;
  if (i < p.P * p.C) { dx[i] = dy[i / r] / f32(r); }
}

//# gateAdd
fn compute(i: u32) {
  if (i >= p.M * p.D) { return; }
  let at = p.row * p.D + i;
  let gate = modulation[u32(rows[at / p.D]) * p.G + p.gateCol + i % p.D];
  y[at] = fma(gate, x[at], residual[at]);
}

//# unaryGrad
fn compute(i: u32) {
  if (i < p.E) { dx[i] = dy[i] * activateGrad(x[i]); }
}

//# gateMul
fn compute(i: u32) {
  if (i >= p.M * p.D) { return; }
  let at = p.row * p.D + i;
  y[at] = modulation[u32(rows[at / p.D]) * p.G + p.gateCol + i % p.D] * x[at];
}

//# accumulate
fn compute(i: u32) {
  if (i < p.E) { y[i] = fma(p.beta, y[i], p.alpha * x[i]); }
}

//# fill
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
