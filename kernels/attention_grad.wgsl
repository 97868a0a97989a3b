// attention_grad: what attention passes back to queries, keys and values; scores are computed again, block by block.

//# stats
// Sixteen invocations share one head of one query.
alias Sum = f32;

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let item = rowOf(group, groups, lane); // (query, head)
  let end = select(0u, hd / 4u, item < p.T * p.A);
  let first = item * (hd / 4u);
  var own = vec4f();
  for (var d = lane % SHARE; d < end; d += SHARE) { own = fma(y[first + d], dy[first + d], own); }
  let sum = sumOfRow(lane, (own.x + own.y) + (own.z + own.w));
  if (end == 0u || lane % SHARE > 0u) { return; }
  let i = item / p.A * 2u * p.A + item % p.A;
  stats[i] = lse[item];
  stats[i + p.A] = sum;
}

//# gradients
// A workgroup owns 32 rows of one head: queries (dq), or keys (dk and dv). It walks over the rows of the other kind in
// blocks of 32, which pass one after the other through shared memory, and skips blocks that its own rows do not meet. An
// invocation makes 4 x 4 scores of a block: own rows r, r+8, r+16, r+24 and block rows 4c … 4c+3; then sums of its rows
// in the vec4 of channels c, c+8, …. Own rows are read from storage, eight neighbours the same, so that shared memory
// stays within the 16 KiB that WebGPU promises. Not measured on hardware yet. What follows this text supplies
// `own`, `other`, `extent`, `meets`, `visit` and `store`.

const HV = 16u; // vec4 of a head; this and the next five are set by kernels/attention.ts
const SLICES = 1u; // a head passes through shared memory in so many slices
const SLICE = 16u; // vec4 of a slice, at most 16
const SPAN = 2u; // vec4 of a slice that an invocation owns in each of its rows
const LOADS = 8u; // vec4 of a slice that an invocation brings in
const STEPS = 4u; // steps along a slice that are written out, a divisor of SLICE
const BLOCK = 32u;
const OWN = 32u;
const LOG2E = 1.4426950408889634; // why exp2 serves: see attention.wgsl
const PAD = SLICE | 1u; // an odd row length spreads neighbours over the banks

// Nested so that all but one index of a read in the hot loops is a literal: naga clamps the others.
var<workgroup> block: array<array<array<vec4f, PAD>, 8>, 4>; // row 4c + j at [j][c]: neighbours hit different banks
var<workgroup> factors: array<array<array<vec4f, 9>, 8>, 4>; // own row r + 8i, block rows 4c … 4c+3 at [i][r][c]
var<workgroup> met: array<u32, 64>;

// Where an invocation is: its first own row and group of block rows, and where its four own rows begin in storage.
struct Place { head: u32, first: u32, r: u32, c: u32, rows: vec4u }

// Ranges of keys that a query sees, and what its scores need: its frame, lse and Σ dy y. None for a query beyond T.
struct Query { starts: vec2u, counts: vec2u, frame: i32, lse: f32, mean: f32 }

// The frame of query i, or of key i - T.
fn frameAt(i: u32) -> i32 { return visible[p.T + i / 4u][i % 4u]; }

// Whether any of the queries t … t+31 sees any of the keys s … s+31.
fn anySees(t: u32, s: u32) -> bool {
  var any = false;
  let end = i32(s + 32u);
  for (var i = t; i < min(t + 32u, p.T); i++) {
    let seen = visible[i];
    any |= max(seen.x, i32(s)) < min(seen.y, end) || max(seen.z, i32(s)) < min(seen.w, end);
  }
  return any;
}

fn queryAt(t: u32, head: u32) -> Query {
  let row = min(t, p.T - 1u);
  let seen = visible[row];
  let counts = select(vec2u(), vec2u(max(seen.yw - seen.xz, vec2i())), t < p.T);
  let at = row * 2u * p.A + head;
  var frame = 0;
  if (hasSlope == 1u) { frame = frameAt(row); }
  return Query(vec2u(seen.xz), counts, frame, stats[at], stats[at + p.A]);
}

// Weight of a pair and gradient of its score, from q k and dy v.
fn gradientOf(query: Query, s: u32, frame: i32, product: f32, up: f32) -> vec2f {
  var score = fma(product, p.scale, -query.lse); // at most 0 where it is seen
  if (hasSlope == 1u) { score += p.slope * f32(frame - query.frame); }
  let sees = any(vec2u(s) - query.starts < query.counts);
  let weight = select(0.0, exp2(LOG2E * score), sees);
  return vec2f(weight, select(0.0, weight * (up - query.mean), sees));
}

fn step(c: vec4f, a: vec4f, b: mat4x4f) -> vec4f {
  return fma(a.xxxx, b[0], fma(a.yyyy, b[1], fma(a.zzzz, b[2], fma(a.wwww, b[3], c))));
}

// Brings a slice of the rows from `first` on of k or q, or of v or dy, into shared memory; rows behind the last repeat it.
fn load(second: bool, slice: u32, first: u32, last: u32, head: u32, lane: u32) {
  for (var n = 0u; n < LOADS; n++) { // unroll
    let i = lane + n * 64u;
    let row = i / SLICE;
    let at = min(first + row, last) * (p.D / 4u) + head * HV + min(slice * SLICE + i % SLICE, HV - 1u);
    if (BLOCK * SLICE % 64u == 0u || i < BLOCK * SLICE) { block[row % 4u][row / 4u][i % SLICE] = other(second, at); }
  }
  workgroupBarrier();
}

// Products of four own rows, one a column of the result, with four rows of the block.
fn products(second: bool, slice: u32, here: Place) -> mat4x4f {
  var c0 = vec4f();
  var c1 = vec4f();
  var c2 = vec4f();
  var c3 = vec4f();
  for (var start = 0u; start < SLICE; start += STEPS) {
    for (var n = 0u; n < STEPS; n++) { // unroll
      let d = start + n;
      if (slice * SLICE + d < HV) {
        let i = slice * SLICE + d;
        let b = transpose(
          mat4x4f(block[0][here.c][d], block[1][here.c][d], block[2][here.c][d], block[3][here.c][d]),
        );
        c0 = step(c0, own(second, here.rows.x + i), b);
        c1 = step(c1, own(second, here.rows.y + i), b);
        c2 = step(c2, own(second, here.rows.z + i), b);
        c3 = step(c3, own(second, here.rows.w + i), b);
      }
    }
  }
  return mat4x4f(c0, c1, c2, c3);
}

// Hands the factors of four own rows and four block rows to the other invocations.
fn share(values: mat4x4f, here: Place) {
  factors[0][here.r][here.c] = values[0];
  factors[1][here.r][here.c] = values[1];
  factors[2][here.r][here.c] = values[2];
  factors[3][here.r][here.c] = values[3];
}

// Adds factors times block to the sums of four own rows, from slot `to` on.
fn add(to: u32, here: Place) {
  for (var j = 0u; j < 8u; j++) { // unroll
    if (j % 4u == 0u) { workgroupBarrier(); } // keeps compilers from loading everything at once, which spills
    let f0 = factors[0][here.r][j];
    let f1 = factors[1][here.r][j];
    let f2 = factors[2][here.r][j];
    let f3 = factors[3][here.r][j];
    for (var u = 0u; u < SPAN; u++) { // unroll
      let channel = min(here.c + 8u * u, SLICE - 1u);
      let b = mat4x4f(block[0][j][channel], block[1][j][channel], block[2][j][channel], block[3][j][channel]);
      sums[to + u][0] = step(sums[to + u][0], f0, b);
      sums[to + u][1] = step(sums[to + u][1], f1, b);
      sums[to + u][2] = step(sums[to + u][2], f2, b);
      sums[to + u][3] = step(sums[to + u][3], f3, b);
    }
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
  for (var chunk = ends.x / BLOCK * BLOCK; chunk < ends.y; chunk += 64u * BLOCK) {
    met[lane] = select(0u, 1u, meets(first, chunk + lane * BLOCK));
    for (var b = 0u; b < 64u; b++) {
      let at = chunk + b * BLOCK;
      if (at >= ends.y) { break; }
      if (workgroupUniformLoad(&met[b]) == 0u) { continue; }
      visit(at, ends.y - 1u, here, lane);
    }
  }
  for (var slice = 0u; slice < SLICES; slice++) { // unroll
    for (var u = 0u; u < SPAN; u++) { // unroll
      for (var i = 0u; i < 4u; i++) { // unroll
        let row = first + r + 8u * i;
        let channel = here.c + 8u * u;
        if (row < ownCount() && channel < SLICE && slice * SLICE + channel < HV) {
          store(row * (p.D / 4u) + here.head * HV + slice * SLICE + channel, slice * SPAN + u, i);
        }
      }
    }
  }
}

//# gradQuery
var<private> sums: array<mat4x4f, SPAN * SLICES>; // dq

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

fn meets(first: u32, s: u32) -> bool { return anySees(first, s); }

fn visit(s: u32, last: u32, here: Place, lane: u32) {
  var ups = mat4x4f();
  for (var slice = 0u; slice < SLICES; slice++) { // unroll
    load(true, slice, s, last, here.head, lane);
    ups += products(true, slice, here);
    workgroupBarrier();
  }
  var scores = mat4x4f();
  for (var slice = 0u; slice < SLICES; slice++) { // unroll
    load(false, slice, s, last, here.head, lane);
    scores += products(false, slice, here);
    if (slice + 1u < SLICES) { workgroupBarrier(); }
  }
  var frames = vec4i();
  if (hasSlope == 1u) {
    for (var j = 0u; j < 4u; j++) { // unroll
      frames[j] = frameAt(p.T + min(s + 4u * here.c + j, last));
    }
  }
  var slopes = mat4x4f();
  for (var i = 0u; i < 4u; i++) { // unroll
    let query = queryAt(here.first + here.r + 8u * i, here.head);
    for (var j = 0u; j < 4u; j++) { // unroll
      slopes[i][j] = gradientOf(query, s + 4u * here.c + j, frames[j], scores[i][j], ups[i][j]).y;
    }
  }
  share(slopes, here);
  for (var back = 0u; back < SLICES; back++) { // unroll
    let slice = SLICES - 1u - back; // the last one is there
    if (back > 0u) { load(false, slice, s, last, here.head, lane); }
    add((SLICES - 1u - back) * SPAN, here);
  }
}

fn store(at: u32, slot: u32, i: u32) { dq[at] = sums[slot][i] * p.scale; }

//# gradKey
var<private> sums: array<mat4x4f, 2u * SPAN * SLICES>; // dk, dv

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
fn meets(first: u32, t: u32) -> bool { return anySees(t, first); }

fn visit(t: u32, last: u32, here: Place, lane: u32) {
  var scores = mat4x4f();
  for (var slice = 0u; slice < SLICES; slice++) { // unroll
    load(false, slice, t, last, here.head, lane);
    scores += products(false, slice, here);
    workgroupBarrier();
  }
  var ups = mat4x4f();
  for (var slice = 0u; slice < SLICES; slice++) { // unroll
    load(true, slice, t, last, here.head, lane);
    ups += products(true, slice, here);
    if (slice + 1u < SLICES) { workgroupBarrier(); }
  }
  var frames = vec4i();
  if (hasSlope == 1u) {
    for (var i = 0u; i < 4u; i++) { // unroll
      frames[i] = frameAt(p.T + min(here.first + here.r + 8u * i, p.S - 1u));
    }
  }
  for (var j = 0u; j < 4u; j++) { // unroll
    let query = queryAt(t + 4u * here.c + j, here.head);
    for (var i = 0u; i < 4u; i++) { // unroll
      let g = gradientOf(query, here.first + here.r + 8u * i, frames[i], scores[i][j], ups[i][j]);
      scores[i][j] = g.x;
      ups[i][j] = g.y;
    }
  }
  share(scores, here);
  for (var back = 0u; back < SLICES; back++) { // unroll
    let slice = SLICES - 1u - back; // the last one is there
    if (back > 0u) { load(true, slice, t, last, here.head, lane); }
    add((2u * SLICES - 1u - back) * SPAN, here);
  }
  share(ups, here);
  for (var slice = 0u; slice < SLICES; slice++) { // unroll
    load(false, slice, t, last, here.head, lane); // once more: both blocks would not fit beside each other
    add(slice * SPAN, here);
  }
}

fn store(at: u32, slot: u32, i: u32) {
  dk[at] = sums[slot][i] * p.scale;
  dv[at] = sums[SPAN * SLICES + slot][i];
}
