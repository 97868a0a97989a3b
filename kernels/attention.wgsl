// attention: streaming softmax and its gradients; scores are never stored.

//# forward
// A workgroup holds 16 queries of one head and walks over the keys that any of them sees, KEYS at a time through shared
// memory; a block of keys and then its block of values take turns in the same memory.

const HD = 64u; // channels of a head, a multiple of 4; this and the next three are set by kernels/attention.ts
const KEYS = 32u; // keys of a block, a multiple of PARTS
const LANES = 8u; // invocations that share the output channels of two queries, t and t+8
const PARTS = 1u; // sets of lanes that share the keys of a block
const HV = HD / 4u;
const QUERIES = 16u;
const SHARE = LANES * PARTS; // invocations of two queries
const SIZE = QUERIES / 2u * SHARE; // invocations of a workgroup
const SPAN = (HV + LANES - 1u) / LANES; // vec4 of output that one invocation owns, for each of its queries
const PAD = HV | 1u; // an odd row length spreads neighbours over the banks
const NEVER = -3.0e38;

var<workgroup> queries: array<vec4f, QUERIES * HV>;
var<workgroup> block: array<vec4f, KEYS * PAD>;
var<workgroup> weights: array<f32, QUERIES * KEYS>;
var<workgroup> maxima: array<f32, QUERIES * SHARE>;

// The frame of query i, or of key i - T.
fn frameAt(i: u32) -> i32 { return visible[p.T + i / 4u][i % 4u]; }

fn rangeOf(t: u32, which: u32) -> vec2i {
  if (t >= p.T) { return vec2i(); }
  return select(visible[t].xy, visible[t].zw, which == 1u);
}

// The next run of keys from `begin` on that the tile's queries see without a gap. It depends on read-only memory and the
// workgroup alone, so all invocations agree on it.
fn nextRun(first: u32, which: u32, begin: i32) -> vec2i {
  var start = 0x7fffffff;
  for (var i = 0u; i < QUERIES; i++) {
    let r = rangeOf(first + i, which);
    if (r.y > max(begin, r.x)) { start = min(start, max(begin, r.x)); }
  }
  var end = start;
  for (var i = 0u; i < QUERIES; i++) {
    let r = rangeOf(first + i, which);
    if (r.x <= start) { end = max(end, r.y); }
  }
  return vec2i(start, end);
}

@compute @workgroup_size(SIZE)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * QUERIES;
  let width = p.D / 4u;
  let head = group.y * HV;
  let tx = lane % SHARE;
  let channel = tx % LANES;
  let part = tx / LANES;
  let t0 = lane / SHARE; // this invocation's queries in the tile: t0 and t0 + 8
  let t1 = t0 + 8u;
  for (var i = lane; i < QUERIES * HV; i += SIZE) {
    let t = min(first + i / HV, p.T - 1u);
    queries[i] = q[t * width + head + i % HV] * p.scale;
  }
  var max0 = NEVER;
  var max1 = NEVER;
  var sum0 = 0.0;
  var sum1 = 0.0;
  var out0 = array<vec4f, SPAN>();
  var out1 = array<vec4f, SPAN>();
  for (var which = 0u; which < 2u; which++) {
    let seen0 = rangeOf(first + t0, which);
    let seen1 = rangeOf(first + t1, which);
    var next = 0;
    loop {
      let run = nextRun(first, which, next);
      if (run.x >= run.y) { break; }
      // The last block of a run is filled up with its last key; keys beyond belong to the next run.
      let until0 = min(seen0.y, run.y);
      let until1 = min(seen1.y, run.y);
      for (var s = run.x; s < run.y; s += i32(KEYS)) {
        for (var i = lane; i < KEYS * HV; i += SIZE) {
          let at = u32(min(s + i32(i / HV), run.y - 1));
          block[(i / HV) * PAD + i % HV] = k[at * width + head + i % HV];
        }
        workgroupBarrier();
        var most0 = NEVER;
        var most1 = NEVER;
        for (var j = tx; j < KEYS; j += SHARE) {
          var dot0 = vec4f();
          var dot1 = vec4f();
          for (var d = 0u; d < HV; d++) {
            let key = block[j * PAD + d];
            dot0 = fma(queries[t0 * HV + d], key, dot0);
            dot1 = fma(queries[t1 * HV + d], key, dot1);
          }
          var score0 = (dot0.x + dot0.y) + (dot0.z + dot0.w);
          var score1 = (dot1.x + dot1.y) + (dot1.z + dot1.w);
          let at = s + i32(j);
          if (hasSlope == 1u) {
            let frame = frameAt(p.T + u32(min(at, run.y - 1)));
            score0 += p.slope * f32(frame - frameAt(min(first + t0, p.T - 1u)));
            score1 += p.slope * f32(frame - frameAt(min(first + t1, p.T - 1u)));
          }
          score0 = select(NEVER, score0, at >= seen0.x && at < until0);
          score1 = select(NEVER, score1, at >= seen1.x && at < until1);
          weights[t0 * KEYS + j] = score0;
          weights[t1 * KEYS + j] = score1;
          most0 = max(most0, score0);
          most1 = max(most1, score1);
        }
        maxima[t0 * SHARE + tx] = most0;
        maxima[t1 * SHARE + tx] = most1;
        workgroupBarrier();
        most0 = max0;
        most1 = max1;
        for (var i = 0u; i < SHARE; i++) {
          most0 = max(most0, maxima[t0 * SHARE + i]);
          most1 = max(most1, maxima[t1 * SHARE + i]);
        }
        let keep0 = expAccurate(max0 - most0);
        let keep1 = expAccurate(max1 - most1);
        max0 = most0;
        max1 = most1;
        for (var j = tx; j < KEYS; j += SHARE) {
          let at = s + i32(j);
          let weight0 = expAccurate(weights[t0 * KEYS + j] - max0);
          let weight1 = expAccurate(weights[t1 * KEYS + j] - max1);
          weights[t0 * KEYS + j] = select(0.0, weight0, at >= seen0.x && at < until0);
          weights[t1 * KEYS + j] = select(0.0, weight1, at >= seen1.x && at < until1);
        }
        for (var i = lane; i < KEYS * HV; i += SIZE) {
          let at = u32(min(s + i32(i / HV), run.y - 1));
          block[(i / HV) * PAD + i % HV] = v[at * width + head + i % HV];
        }
        workgroupBarrier();
        sum0 *= keep0;
        sum1 *= keep1;
        for (var i = 0u; i < SPAN; i++) {
          out0[i] *= keep0;
          out1[i] *= keep1;
        }
        for (var j = part * (KEYS / PARTS); j < (part + 1u) * (KEYS / PARTS); j++) {
          let weight0 = weights[t0 * KEYS + j];
          let weight1 = weights[t1 * KEYS + j];
          sum0 += weight0;
          sum1 += weight1;
          for (var i = 0u; i < SPAN; i++) {
            let value = block[j * PAD + min(channel + i * LANES, HV - 1u)];
            out0[i] = fma(vec4f(weight0), value, out0[i]);
            out1[i] = fma(vec4f(weight1), value, out1[i]);
          }
        }
        workgroupBarrier();
      }
      next = run.y;
    }
  }
  if (PARTS > 1u) { // all parts know the same maxima, so sums are simply added, in one fixed order
    maxima[t0 * SHARE + tx] = sum0;
    maxima[t1 * SHARE + tx] = sum1;
    for (var other = 1u; other < PARTS; other++) {
      for (var i = 0u; i < SPAN && part == other; i++) {
        block[t0 * HV + min(channel + i * LANES, HV - 1u)] = out0[i];
        block[t1 * HV + min(channel + i * LANES, HV - 1u)] = out1[i];
      }
      workgroupBarrier();
      sum0 += select(0.0, maxima[t0 * SHARE + channel + other * LANES], part == 0u);
      sum1 += select(0.0, maxima[t1 * SHARE + channel + other * LANES], part == 0u);
      for (var i = 0u; i < SPAN; i++) {
        out0[i] += block[t0 * HV + min(channel + i * LANES, HV - 1u)];
        out1[i] += block[t1 * HV + min(channel + i * LANES, HV - 1u)];
      }
      workgroupBarrier();
    }
    if (part > 0u) { return; }
  }
  for (var i = 0u; i < SPAN; i++) {
    let d = channel + i * LANES;
    if (d < HV && first + t0 < p.T) { y[(first + t0) * width + head + d] = out0[i] / sum0; }
    if (d < HV && first + t1 < p.T) { y[(first + t1) * width + head + d] = out1[i] / sum1; }
  }
  if (hasLse == 1u && tx == 0u) {
    if (first + t0 < p.T) { lse[(first + t0) * p.A + group.y] = max0 + log(sum0); }
    if (first + t1 < p.T) { lse[(first + t1) * p.A + group.y] = max1 + log(sum1); }
  }
}

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
