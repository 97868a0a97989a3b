// attention_grad: what attention passes back to queries, keys and values; scores are computed again, block by block.

//# stats
// Eight invocations share one head of one query.

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let item = (group.y * groups.x + group.x) * 8u + lane / 8u; // (query, head)
  let end = select(0u, hd / 4u, item < p.T * p.A); // all meet at the barrier
  let first = item * (hd / 4u);
  var sum = vec4f();
  for (var d = lane % 8u; d < end; d += 8u) { sum = fma(y[first + d], dy[first + d], sum); }
  partial[lane] = (sum.x + sum.y) + (sum.z + sum.w);
  workgroupBarrier();
  if (end == 0u || lane % 8u > 0u) { return; }
  var total = 0.0;
  for (var i = lane; i < lane + 8u; i++) { total += partial[i]; }
  let i = item / p.A * 2u * p.A + item % p.A;
  stats[i] = lse[item];
  stats[i + p.A] = total;
}

//# gradients
// A workgroup owns 32 rows of one head: queries (dq), or keys (dk and dv). It walks over the rows of the other kind in
// blocks, which pass one after the other through shared memory, and skips blocks that its own rows do not meet. An
// invocation makes 4 x 4 scores of a block: own rows r, r+8, r+16, r+24 and block rows 4c … 4c+3; then sums of its rows
// in the vec4 of channels c, c+8, …. Own rows are read from storage, eight neighbours the same, so that shared memory
// stays within the 16 KiB that WebGPU promises. Not measured on hardware yet. What follows this text supplies
// `own`, `other`, `extent`, `meets`, `visit` and `store`.

const HD = 64u; // channels of a head, a multiple of 4; this and the next are set by kernels/attention.ts
const BLOCK = 32u; // rows of a block, 32 or 16
const HV = HD / 4u;
const ACROSS = BLOCK / 4u; // groups of four block rows
const SPAN = (HV + 7u) / 8u; // vec4 of channels that an invocation owns in each of its rows
const PAD = HV | 1u; // an odd row length spreads neighbours over the banks
const EDGE = ACROSS | 1u;
const OWN = 32u;

var<workgroup> block: array<vec4f, BLOCK * PAD>; // row 4c + j at place j ACROSS + c: neighbours hit different banks
var<workgroup> factors: array<vec4f, OWN * EDGE>; // [OWN, BLOCK]
var<workgroup> met: array<u32, 64>;

// Where an invocation is: its first own row and group of block rows, and where its four own rows begin in storage.
struct Place { head: u32, first: u32, r: u32, c: u32, rows: vec4u }

// The frame of query i, or of key i - T.
fn frameAt(i: u32) -> i32 { return visible[p.T + i / 4u][i % 4u]; }

// Whether any of the queries t … t+count-1 sees any of the keys s … s+keys-1.
fn anySees(t: u32, count: u32, s: u32, keys: u32) -> bool {
  var any = false;
  let end = i32(s + keys);
  for (var i = t; i < min(t + count, p.T); i++) {
    let seen = visible[i];
    any |= max(seen.x, i32(s)) < min(seen.y, end) || max(seen.z, i32(s)) < min(seen.w, end);
  }
  return any;
}

// Weight of a pair and gradient of its score, from q k and dy v.
fn gradientOf(t: u32, s: u32, head: u32, product: f32, up: f32) -> vec2f {
  if (t >= p.T) { return vec2f(); }
  let seen = visible[t];
  let at = i32(s);
  if (!((at >= seen.x && at < seen.y) || (at >= seen.z && at < seen.w))) { return vec2f(); }
  var score = product * p.scale;
  if (hasSlope == 1u) { score += p.slope * f32(frameAt(p.T + s) - frameAt(t)); }
  let i = t * 2u * p.A + head;
  let weight = expAccurate(score - stats[i]);
  return vec2f(weight, weight * (up - stats[i + p.A]));
}

fn step(c: vec4f, a: vec4f, b: mat4x4f) -> vec4f {
  return fma(a.xxxx, b[0], fma(a.yyyy, b[1], fma(a.zzzz, b[2], fma(a.wwww, b[3], c))));
}

// Brings the rows from `first` on of k or q, or of v or dy, into shared memory; rows behind the last repeat it.
fn load(second: bool, first: u32, last: u32, head: u32, lane: u32) {
  for (var i = lane; i < BLOCK * HV; i += 64u) {
    let row = i / HV;
    let at = min(first + row, last) * (p.D / 4u) + head * HV + i % HV;
    block[(row % 4u * ACROSS + row / 4u) * PAD + i % HV] = other(second, at);
  }
  workgroupBarrier();
}

// Products of four own rows, one a column of the result, with four rows of the block.
fn products(second: bool, here: Place) -> mat4x4f {
  let first = here.c % ACROSS * PAD;
  var c0 = vec4f();
  var c1 = vec4f();
  var c2 = vec4f();
  var c3 = vec4f();
  for (var d = 0u; d < HV; d++) {
    let i = first + d;
    let b = transpose(
      mat4x4f(block[i], block[i + ACROSS * PAD], block[i + 2u * ACROSS * PAD], block[i + 3u * ACROSS * PAD]),
    );
    c0 = step(c0, own(second, here.rows.x + d), b);
    c1 = step(c1, own(second, here.rows.y + d), b);
    c2 = step(c2, own(second, here.rows.z + d), b);
    c3 = step(c3, own(second, here.rows.w + d), b);
  }
  return mat4x4f(c0, c1, c2, c3);
}

// Hands the factors of four own rows and four block rows to the other invocations.
fn share(values: mat4x4f, here: Place) {
  if (here.c >= ACROSS) { return; }
  let i = here.r * EDGE + here.c;
  factors[i] = values[0];
  factors[i + 8u * EDGE] = values[1];
  factors[i + 16u * EDGE] = values[2];
  factors[i + 24u * EDGE] = values[3];
}

// Adds factors times block to the sums of four own rows, from slot `to` on.
fn add(to: u32, here: Place) {
  for (var u = 0u; u < SPAN; u++) {
    let channel = min(here.c + 8u * u, HV - 1u);
    var sum = sums[to + u];
    for (var j = 0u; j < ACROSS; j++) {
      let i = j * PAD + channel;
      let b = mat4x4f(block[i], block[i + ACROSS * PAD], block[i + 2u * ACROSS * PAD], block[i + 3u * ACROSS * PAD]);
      let f = here.r * EDGE + j;
      sum[0] = step(sum[0], factors[f], b);
      sum[1] = step(sum[1], factors[f + 8u * EDGE], b);
      sum[2] = step(sum[2], factors[f + 16u * EDGE], b);
      sum[3] = step(sum[3], factors[f + 24u * EDGE], b);
    }
    sums[to + u] = sum;
  }
  workgroupBarrier();
}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * OWN;
  let r = lane / 8u;
  let rows = min(vec4u(first + r) + vec4u(0u, 8u, 16u, 24u), vec4u(ownCount() - 1u));
  let here = Place(group.y, first, r, lane % 8u, rows * (p.D / 4u) + group.y * HV);
  let ends = extent(first);
  for (var chunk = ends.x; chunk < ends.y; chunk += 64u * BLOCK) {
    met[lane] = select(0u, 1u, meets(first, chunk + lane * BLOCK));
    for (var b = 0u; b < 64u; b++) {
      let at = chunk + b * BLOCK;
      if (at >= ends.y) { break; }
      if (workgroupUniformLoad(&met[b]) == 0u) { continue; }
      visit(at, ends.y - 1u, here, lane);
    }
  }
  for (var u = 0u; u < SPAN; u++) {
    for (var i = 0u; i < 4u; i++) {
      let row = first + r + 8u * i;
      let channel = here.c + 8u * u;
      if (row < ownCount() && channel < HV) { store(row * (p.D / 4u) + here.head * HV + channel, u, i); }
    }
  }
}

//# gradQuery
var<private> sums: array<mat4x4f, SPAN>; // dq

fn own(second: bool, i: u32) -> vec4f {
  if (second) { return dy[i]; }
  return q[i];
}

fn other(second: bool, i: u32) -> vec4f {
  if (second) { return v[i]; }
  return k[i];
}

fn ownCount() -> u32 { return p.T; }

// From the first to the last key that the own queries see.
fn extent(first: u32) -> vec2u {
  var ends = vec2i(0x7fffffff, 0);
  for (var t = first; t < min(first + OWN, p.T); t++) {
    let seen = visible[t];
    if (seen.x < seen.y) { ends = vec2i(min(ends.x, seen.x), max(ends.y, seen.y)); }
    if (seen.z < seen.w) { ends = vec2i(min(ends.x, seen.z), max(ends.y, seen.w)); }
  }
  return vec2u(ends);
}

fn meets(first: u32, s: u32) -> bool { return anySees(first, OWN, s, BLOCK); }

fn visit(s: u32, last: u32, here: Place, lane: u32) {
  load(true, s, last, here.head, lane);
  let ups = products(true, here);
  workgroupBarrier();
  load(false, s, last, here.head, lane);
  let scores = products(false, here);
  var slopes = mat4x4f();
  for (var i = 0u; i < 16u; i++) {
    let t = here.first + here.r + 8u * (i / 4u);
    let g = gradientOf(t, s + 4u * here.c + i % 4u, here.head, scores[i / 4u][i % 4u], ups[i / 4u][i % 4u]);
    slopes[i / 4u][i % 4u] = g.y;
  }
  share(slopes, here);
  workgroupBarrier();
  add(0u, here);
}

fn store(at: u32, u: u32, i: u32) { dq[at] = sums[u][i] * p.scale; }

//# gradKey
var<private> sums: array<mat4x4f, 2u * SPAN>; // dk, dv

fn own(second: bool, i: u32) -> vec4f {
  if (second) { return v[i]; }
  return k[i];
}

fn other(second: bool, i: u32) -> vec4f {
  if (second) { return dy[i]; }
  return q[i];
}

fn ownCount() -> u32 { return p.S; }
fn extent(first: u32) -> vec2u { return vec2u(0u, p.T); }
fn meets(first: u32, t: u32) -> bool { return anySees(t, BLOCK, first, OWN); }

fn visit(t: u32, last: u32, here: Place, lane: u32) {
  load(false, t, last, here.head, lane);
  let scores = products(false, here);
  workgroupBarrier();
  load(true, t, last, here.head, lane);
  let ups = products(true, here);
  var weights = mat4x4f();
  var slopes = mat4x4f();
  for (var i = 0u; i < 16u; i++) {
    let s = here.first + here.r + 8u * (i / 4u);
    let g = gradientOf(t + 4u * here.c + i % 4u, s, here.head, scores[i / 4u][i % 4u], ups[i / 4u][i % 4u]);
    weights[i / 4u][i % 4u] = g.x;
    slopes[i / 4u][i % 4u] = g.y;
  }
  share(weights, here);
  workgroupBarrier();
  add(SPAN, here);
  share(slopes, here);
  load(false, t, last, here.head, lane); // once more: both blocks would not fit beside each other
  add(0u, here);
}

fn store(at: u32, u: u32, i: u32) {
  dk[at] = sums[u][i] * p.scale;
  dv[at] = sums[SPAN + u][i];
}
