// relu_attention: one workgroup an image, a group and, where an image is large, a share of its positions. It sums k outer
// [v | 1] over its positions into shared memory; the shares are added in their order; then every q is multiplied by the
// sum. All sums run over positions in one order, so two runs give the same bits.

//# sizes
const HD = 32u; // channels of a head; set by kernels/relu_attention.ts
const WIDE = 33u; // HD + 1: the last column sums k alone
const SHARE = 128u; // positions of a workgroup where there are several
const POSITIONS = 16u; // positions in shared memory at a time
const SIZE = 256u;

var<workgroup> state: array<array<f32, WIDE>, HD>;
var<workgroup> keys: array<array<f32, HD>, POSITIONS>;
var<workgroup> values: array<array<f32, WIDE>, POSITIONS>;

fn relu(x: f32) -> f32 { return select(x, 0.0, x < 0.0); } // keeps NaN

// Where a workgroup is: q of position 0 and floats from a position to the next; y of position 0 and the same; its
// positions; its image and group.
struct Place { first: u32, stride: u32, firstY: u32, strideY: u32, begin: u32, end: u32, item: u32 }

fn placeOf(group: vec3u, groups: vec3u) -> Place {
  let first = group.y * p.P * p.G + group.x;
  let end = select((group.z + 1u) * SHARE, p.P, groups.z == 1u);
  return Place(
    first * 3u * HD, p.G * 3u * HD, first * HD, p.G * HD, group.z * SHARE, min(end, p.P), group.y * p.G + group.x,
  );
}

// state = sum over the workgroup's positions of k outer [v | 1].
fn sumState(here: Place, lane: u32) {
  for (var e = lane; e < HD * WIDE; e += SIZE) { state[e / WIDE][e % WIDE] = 0.0; }
  if (lane < POSITIONS) { values[lane][HD] = 1.0; }
  for (var s = here.begin; s < here.end; s += POSITIONS) {
    for (var i = lane; i < POSITIONS * HD; i += SIZE) {
      let at = here.first + (s + i / HD) * here.stride + i % HD;
      let inside = s + i / HD < here.end;
      // Behind the end a key of zero adds nothing, and the value must be finite.
      keys[i / HD][i % HD] = select(0.0, relu(qkv[at + HD]), inside);
      values[i / HD][i % HD] = select(0.0, qkv[at + 2u * HD], inside);
    }
    workgroupBarrier();
    for (var e = lane; e < HD * WIDE; e += SIZE) {
      let a = e / WIDE;
      let d = e % WIDE;
      var sum = state[a][d];
      for (var i = 0u; i < POSITIONS; i++) { // unroll
        sum = fma(keys[i][a], values[i][d], sum);
      }
      state[a][d] = sum;
    }
    workgroupBarrier();
  }
}

// Where share z of the sum of an image and group lies.
fn shareOf(here: Place, z: u32) -> u32 { return (z * p.B * p.G + here.item) * HD * WIDE; }

fn shareCount() -> u32 { return (p.P + SHARE - 1u) / SHARE; }

//# queries
// y of the workgroup's positions.
fn applyState(here: Place, lane: u32) {
  for (var i = lane; i < (here.end - here.begin) * HD; i += SIZE) {
    let position = here.begin + i / HD;
    let d = i % HD;
    let at = here.first + position * here.stride;
    var above = 0.0;
    var below = 0.0;
    for (var a = 0u; a < HD; a++) { // unroll
      let query = relu(qkv[at + a]);
      above = fma(query, state[a][d], above);
      below = fma(query, state[a][HD], below);
    }
    y[here.firstY + position * here.strideY + d] = above / (below + p.eps);
  }
}

//# forward
@compute @workgroup_size(SIZE)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let here = placeOf(group, groups);
  sumState(here, lane);
  applyState(here, lane);
}

//# sum
@compute @workgroup_size(SIZE)
fn sum(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let here = placeOf(group, groups);
  sumState(here, lane);
  for (var e = lane; e < HD * WIDE; e += SIZE) { states[shareOf(here, group.z) + e] = state[e / WIDE][e % WIDE]; }
}

//# readState
fn readState(here: Place, lane: u32) {
  for (var e = lane; e < HD * WIDE; e += SIZE) {
    var sum = 0.0;
    for (var z = 0u; z < shareCount(); z++) { sum += states[shareOf(here, z) + e]; }
    state[e / WIDE][e % WIDE] = sum;
  }
  workgroupBarrier();
}

//# apply
@compute @workgroup_size(SIZE)
fn apply(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let here = placeOf(group, groups);
  readState(here, lane);
  applyState(here, lane);
}

//# queryGradients
// Names as in kernels/relu_attention.ts: du = [u | -u · y], up = [dS | ds].
var<workgroup> up: array<array<f32, WIDE>, HD>;

// dq of the workgroup's positions, and their sum up.
fn queryGradients(here: Place, lane: u32) {
  for (var e = lane; e < HD * WIDE; e += SIZE) { up[e / WIDE][e % WIDE] = 0.0; }
  for (var s = here.begin; s < here.end; s += POSITIONS) { // keys holds queries here, values holds [q S | q s], then du
    for (var i = lane; i < POSITIONS * HD; i += SIZE) {
      let position = s + i / HD;
      keys[i / HD][i % HD] = select(0.0, relu(qkv[here.first + position * here.stride + i % HD]), position < here.end);
    }
    workgroupBarrier();
    for (var e = lane; e < POSITIONS * WIDE; e += SIZE) {
      let i = e / WIDE;
      let d = e % WIDE;
      var sum = 0.0;
      for (var a = 0u; a < HD; a++) { // unroll
        sum = fma(keys[i][a], state[a][d], sum);
      }
      values[i][d] = sum;
    }
    workgroupBarrier();
    if (lane < POSITIONS) {
      let inside = s + lane < here.end;
      let below = values[lane][HD] + p.eps;
      var last = 0.0;
      for (var d = 0u; d < HD; d++) {
        let u = select(0.0, dy[here.firstY + (s + lane) * here.strideY + d] / below, inside);
        last = fma(-u, values[lane][d] / below, last);
        values[lane][d] = u;
      }
      values[lane][HD] = last;
    }
    workgroupBarrier();
    for (var i = lane; i < POSITIONS * HD; i += SIZE) {
      if (s + i / HD < here.end) {
        let a = i % HD;
        var sum = 0.0;
        for (var d = 0u; d < WIDE; d++) { // unroll
          sum = fma(state[a][d], values[i / HD][d], sum);
        }
        dqkv[here.first + (s + i / HD) * here.stride + a] = select(0.0, sum, keys[i / HD][a] > 0.0);
      }
    }
    for (var e = lane; e < HD * WIDE; e += SIZE) {
      let a = e / WIDE;
      let d = e % WIDE;
      var sum = up[a][d];
      for (var i = 0u; i < POSITIONS; i++) { // unroll
        sum = fma(keys[i][a], values[i][d], sum);
      }
      up[a][d] = sum;
    }
    workgroupBarrier();
  }
}

//# keyGradients
// dk and dv of the workgroup's positions, from up.
fn keyGradients(here: Place, lane: u32) {
  for (var i = lane; i < (here.end - here.begin) * HD; i += SIZE) {
    let at = here.first + (here.begin + i / HD) * here.stride;
    let c = i % HD;
    var dk = up[c][HD];
    var dv = 0.0;
    for (var d = 0u; d < HD; d++) { // unroll
      dk = fma(up[c][d], qkv[at + 2u * HD + d], dk);
      dv = fma(up[d][c], relu(qkv[at + HD + d]), dv);
    }
    dqkv[at + HD + c] = select(0.0, dk, qkv[at + HD + c] > 0.0);
    dqkv[at + 2u * HD + c] = dv;
  }
}

//# backward
@compute @workgroup_size(SIZE)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let here = placeOf(group, groups);
  sumState(here, lane);
  queryGradients(here, lane);
  keyGradients(here, lane);
}

//# ofQueries
@compute @workgroup_size(SIZE)
fn ofQueries(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let here = placeOf(group, groups);
  readState(here, lane);
  queryGradients(here, lane);
  for (var e = lane; e < HD * WIDE; e += SIZE) { ups[shareOf(here, group.z) + e] = up[e / WIDE][e % WIDE]; }
}

//# ofKeys
var<workgroup> up: array<array<f32, WIDE>, HD>;

@compute @workgroup_size(SIZE)
fn ofKeys(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let here = placeOf(group, groups);
  for (var e = lane; e < HD * WIDE; e += SIZE) {
    var sum = 0.0;
    for (var z = 0u; z < shareCount(); z++) { sum += ups[shareOf(here, z) + e]; }
    up[e / WIDE][e % WIDE] = sum;
  }
  workgroupBarrier();
  keyGradients(here, lane);
}
