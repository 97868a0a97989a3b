// relu_attention: one workgroup an image and group. It sums k outer [v | 1] over the positions into shared memory, then
// multiplies every q by it. Both run over positions in order, so two runs give the same bits.

const HD = 32u; // channels of a head; set by kernels/relu_attention.ts
const WIDE = HD + 1u; // the last column sums k alone
const POSITIONS = 16u;

struct Params { B: u32, P: u32, G: u32, eps: f32 }

@group(0) @binding(0) var<storage, read> qkv: array<f32>; // [B, P, G, 3, hd]
@group(0) @binding(1) var<storage, read_write> y: array<f32>; // [B, P, G, hd]
@group(0) @binding(2) var<uniform> p: Params;

var<workgroup> state: array<f32, HD * WIDE>;
var<workgroup> keys: array<f32, POSITIONS * HD>;
var<workgroup> values: array<f32, POSITIONS * WIDE>;

@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = (group.y * p.P * p.G + group.x) * 3u * HD; // q of position 0
  let stride = p.G * 3u * HD;
  for (var e = lane; e < HD * WIDE; e += 256u) { state[e] = 0.0; }
  for (var i = lane; i < POSITIONS; i += 256u) { values[i * WIDE + HD] = 1.0; }
  for (var s = 0u; s < p.P; s += POSITIONS) {
    for (var i = lane; i < POSITIONS * HD; i += 256u) {
      let position = s + i / HD;
      let at = first + position * stride + i % HD;
      let inside = position < p.P;
      // Behind the end a key of zero adds nothing, and the value must be finite.
      let key = qkv[at + HD];
      keys[i] = select(0.0, key, inside && !(key < 0.0)); // keeps NaN
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
  for (var i = lane; i < p.P * HD; i += 256u) {
    let at = first + (i / HD) * stride;
    var above = 0.0;
    var below = 0.0;
    for (var a = 0u; a < HD; a++) {
      let query = select(qkv[at + a], 0.0, qkv[at + a] < 0.0);
      above = fma(query, state[a * WIDE + i % HD], above);
      below = fma(query, state[a * WIDE + HD], below);
    }
    y[((group.y * p.P + i / HD) * p.G + group.x) * HD + i % HD] = above / (below + p.eps);
  }
}
