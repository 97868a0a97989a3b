// rotary: eight invocations share one head of one token; neighbours take neighbouring pairs of channels.

//# forward
var<workgroup> partial: array<vec2f, 64>; // sums of squares of q and k

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let heads = p.D / hd;
  let item = (group.y * groups.x + group.x) * 8u + lane / 8u; // (token, head)
  let end = select(0u, hd / 2u, item < p.M * heads); // no early return: all meet at the barrier
  let t = p.row + item / heads;
  let at = (item % heads) * hd;
  let source = t * 3u * p.D + at;
  var squares = vec2f();
  for (var j = lane % 8u; j < end; j += 8u) {
    let i = source + 2u * j;
    let a = vec2f(qkv[i], qkv[i + p.D]);
    let b = vec2f(qkv[i + 1u], qkv[i + p.D + 1u]);
    squares = fma(a, a, fma(b, b, squares));
  }
  partial[lane] = squares;
  workgroupBarrier();
  if (end == 0u) { return; }
  squares = vec2f();
  for (var i = lane & 56u; i < (lane & 56u) + 8u; i++) { squares += partial[i]; }
  let scale = 1.0 / sqrt(squares / f32(hd) + p.eps);
  let toQ = t * p.D + at;
  let toK = u32(dest[t]) * p.D + at;
  for (var j = lane % 8u; j < end; j += 8u) {
    let i = 2u * j;
    let c = angles[t * hd + j];
    let s = angles[t * hd + hd / 2u + j];
    let qa = qkv[source + i] * scale.x * wq[i];
    let qb = qkv[source + i + 1u] * scale.x * wq[i + 1u];
    q[toQ + i] = qa * c - qb * s;
    q[toQ + i + 1u] = qb * c + qa * s;
    let ka = qkv[source + p.D + i] * scale.y * wk[i];
    let kb = qkv[source + p.D + i + 1u] * scale.y * wk[i + 1u];
    k[toK + i] = ka * c - kb * s;
    k[toK + i + 1u] = kb * c + ka * s;
    v[toK + i] = qkv[source + 2u * p.D + i];
    v[toK + i + 1u] = qkv[source + 2u * p.D + i + 1u];
  }
}

//# backward
// A workgroup takes one token: eight heads at a time, the weights' gradients added up over heads in order.

var<workgroup> partial: array<vec2f, 64>; // sums of squares of x, and of x w g
var<workgroup> weights: array<vec2f, 4u * hd>; // [8, hd/2]: gradients of a pair of weights

// Gradients of a pair before the rotation.
fn unrotate(t: u32, j: u32, i: u32) -> vec2f {
  let y = vec2f(dy[i], dy[i + 1u]);
  return y * angles[t * hd + j] + vec2f(y.y, -y.x) * angles[t * hd + hd / 2u + j];
}

@compute @workgroup_size(64)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let token = group.y * groups.x + group.x;
  if (token >= p.M) { return; }
  let t = p.row + token;
  var row = t * p.D;
  if (part == 1u) { row = u32(dest[t]) * p.D; }
  let slot = lane / 8u; // this invocation's head among eight
  for (var j = lane % 8u; j < hd / 2u; j += 8u) { weights[slot * (hd / 2u) + j] = vec2f(); }
  for (var first = 0u; first < p.D; first += 8u * hd) {
    let at = first + slot * hd;
    let source = (3u * t + part) * p.D + at;
    let end = select(0u, hd / 2u, at < p.D); // all meet at the barriers
    var sums = vec2f();
    for (var j = lane % 8u; j < end; j += 8u) {
      let i = 2u * j;
      let x = vec2f(qkv[source + i], qkv[source + i + 1u]);
      let g = unrotate(t, j, row + at + i) * x * vec2f(w[i], w[i + 1u]);
      sums += vec2f(x.x * x.x + x.y * x.y, g.x + g.y);
    }
    partial[lane] = sums;
    workgroupBarrier();
    sums = vec2f();
    for (var i = slot * 8u; i < slot * 8u + 8u; i++) { sums += partial[i]; }
    sums /= f32(hd);
    let inverse = 1.0 / sqrt(sums.x + p.eps);
    let product = sums.y * inverse * inverse;
    for (var j = lane % 8u; j < end; j += 8u) {
      let i = 2u * j;
      let x = vec2f(qkv[source + i], qkv[source + i + 1u]);
      let g = unrotate(t, j, row + at + i);
      let d = (g * vec2f(w[i], w[i + 1u]) - x * product) * inverse;
      dqkv[source + i] = d.x;
      dqkv[source + i + 1u] = d.y;
      if (part == 1u) {
        dqkv[source + p.D + i] = dv[row + at + i];
        dqkv[source + p.D + i + 1u] = dv[row + at + i + 1u];
      }
      weights[slot * (hd / 2u) + j] += g * x * inverse;
    }
    workgroupBarrier();
  }
  for (var j = lane; j < hd / 2u; j += 64u) {
    var sum = vec2f();
    for (var i = 0u; i < 8u; i++) { sum += weights[i * (hd / 2u) + j]; }
    dw[t * hd + 2u * j] = sum.x;
    dw[t * hd + 2u * j + 1u] = sum.y;
  }
}
