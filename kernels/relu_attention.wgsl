// relu_attention: one workgroup an image and group. It sums k outer [v | 1] over the positions into shared memory, then
// multiplies every q by it. All sums run over positions in order, so two runs give the same bits.

//# sizes
const HD = 32u; // channels of a head; set by kernels/relu_attention.ts
const WIDE = HD + 1u; // the last column sums k alone
const POSITIONS = 16u;

var<workgroup> state: array<f32, HD * WIDE>;
var<workgroup> keys: array<f32, POSITIONS * HD>;
var<workgroup> values: array<f32, POSITIONS * WIDE>;

fn relu(x: f32) -> f32 { return select(x, 0.0, x < 0.0); } // keeps NaN

// state = sum over the positions of k outer [v | 1].
fn sumState(first: u32, stride: u32, lane: u32) {
  for (var e = lane; e < HD * WIDE; e += 256u) { state[e] = 0.0; }
  for (var i = lane; i < POSITIONS; i += 256u) { values[i * WIDE + HD] = 1.0; }
  for (var s = 0u; s < p.P; s += POSITIONS) {
    for (var i = lane; i < POSITIONS * HD; i += 256u) {
      let at = first + (s + i / HD) * stride + i % HD;
      let inside = s + i / HD < p.P;
      // Behind the end a key of zero adds nothing, and the value must be finite.
      keys[i] = select(0.0, relu(qkv[at + HD]), inside);
      values[(i / HD) * WIDE + i % HD] = select(0.0, qkv[at + 2u * HD], inside);
    }
    workgroupBarrier();
    for (var e = lane; e < HD * WIDE; e += 256u) {
      var sum = state[e];
      for (var i = 0u; i < POSITIONS; i++) { sum = fma(keys[i * HD + e / WIDE], values[i * WIDE + e % WIDE], sum); }
      state[e] = sum;
    }
    workgroupBarrier();
  }
}

//# forward
@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = (group.y * p.P * p.G + group.x) * 3u * HD; // q of position 0
  let stride = p.G * 3u * HD;
  sumState(first, stride, lane);
  for (var i = lane; i < p.P * HD; i += 256u) {
    let at = first + (i / HD) * stride;
    var above = 0.0;
    var below = 0.0;
    for (var a = 0u; a < HD; a++) {
      let query = relu(qkv[at + a]);
      above = fma(query, state[a * WIDE + i % HD], above);
      below = fma(query, state[a * WIDE + HD], below);
    }
    y[((group.y * p.P + i / HD) * p.G + group.x) * HD + i % HD] = above / (below + p.eps);
  }
}

//# backward
// Names as in kernels/relu_attention.ts: du = [u | -u · y], up = [dS | ds].

var<workgroup> up: array<f32, HD * WIDE>;

@compute @workgroup_size(256)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = (group.y * p.P * p.G + group.x) * 3u * HD; // q of position 0
  let stride = p.G * 3u * HD;
  let firstDy = (group.y * p.P * p.G + group.x) * HD;
  sumState(first, stride, lane);
  for (var e = lane; e < HD * WIDE; e += 256u) { up[e] = 0.0; }
  for (var s = 0u; s < p.P; s += POSITIONS) { // keys holds queries here, values holds [q S | q s], then du
    for (var i = lane; i < POSITIONS * HD; i += 256u) {
      let position = s + i / HD;
      keys[i] = select(0.0, relu(qkv[first + position * stride + i % HD]), position < p.P);
    }
    workgroupBarrier();
    for (var e = lane; e < POSITIONS * WIDE; e += 256u) {
      var sum = 0.0;
      for (var a = 0u; a < HD; a++) { sum = fma(keys[(e / WIDE) * HD + a], state[a * WIDE + e % WIDE], sum); }
      values[e] = sum;
    }
    workgroupBarrier();
    if (lane < POSITIONS) {
      let inside = s + lane < p.P;
      let below = values[lane * WIDE + HD] + p.eps;
      var last = 0.0;
      for (var d = 0u; d < HD; d++) {
        let u = select(0.0, dy[firstDy + (s + lane) * p.G * HD + d] / below, inside);
        last = fma(-u, values[lane * WIDE + d] / below, last);
        values[lane * WIDE + d] = u;
      }
      values[lane * WIDE + HD] = last;
    }
    workgroupBarrier();
    for (var i = lane; i < POSITIONS * HD; i += 256u) {
      if (s + i / HD >= p.P) { continue; }
      var sum = 0.0;
      for (var d = 0u; d < WIDE; d++) { sum = fma(state[i % HD * WIDE + d], values[(i / HD) * WIDE + d], sum); }
      dqkv[first + (s + i / HD) * stride + i % HD] = select(0.0, sum, keys[i] > 0.0);
    }
    for (var e = lane; e < HD * WIDE; e += 256u) {
      var sum = up[e];
      for (var i = 0u; i < POSITIONS; i++) { sum = fma(keys[i * HD + e / WIDE], values[i * WIDE + e % WIDE], sum); }
      up[e] = sum;
    }
    workgroupBarrier();
  }
  for (var i = lane; i < p.P * HD; i += 256u) {
    let at = first + (i / HD) * stride;
    let c = i % HD;
    var dk = up[c * WIDE + HD];
    var dv = 0.0;
    for (var d = 0u; d < HD; d++) {
      dk = fma(up[c * WIDE + d], qkv[at + 2u * HD + d], dk);
      dv = fma(up[d * WIDE + c], relu(qkv[at + HD + d]), dv);
    }
    dqkv[at + HD + c] = select(0.0, dk, qkv[at + HD + c] > 0.0);
    dqkv[at + 2u * HD + c] = dv;
  }
}
