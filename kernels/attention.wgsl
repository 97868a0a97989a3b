// attention: streaming softmax. A workgroup holds 16 queries of one head and walks over the keys that any of them sees,
// KEYS at a time through shared memory; a block of keys and then its block of values take turns in the same memory.

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

override hasSlope: u32 = 0u;
override hasLse: u32 = 0u;

struct Params { T: u32, D: u32, A: u32, scale: f32, slope: f32 }

@group(0) @binding(0) var<storage, read> q: array<vec4f>; // [T, D]
@group(0) @binding(1) var<storage, read> k: array<vec4f>; // [S, D]
@group(0) @binding(2) var<storage, read> v: array<vec4f>;
@group(0) @binding(3) var<storage, read> ranges: array<vec4i>; // [T]: two half-open ranges of keys
@group(0) @binding(4) var<storage, read> queryFrames: array<i32>;
@group(0) @binding(5) var<storage, read> keyFrames: array<i32>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4f>; // [T, D]
@group(0) @binding(7) var<storage, read_write> lse: array<f32>; // [T, A]
@group(0) @binding(8) var<uniform> p: Params;

var<workgroup> queries: array<vec4f, QUERIES * HV>;
var<workgroup> block: array<vec4f, KEYS * PAD>;
var<workgroup> weights: array<f32, QUERIES * KEYS>;
var<workgroup> maxima: array<f32, QUERIES * SHARE>;

fn rangeOf(t: u32, which: u32) -> vec2i {
  if (t >= p.T) { return vec2i(); }
  return select(ranges[t].xy, ranges[t].zw, which == 1u);
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
            let frame = keyFrames[min(at, run.y - 1)];
            score0 += p.slope * f32(frame - queryFrames[min(first + t0, p.T - 1u)]);
            score1 += p.slope * f32(frame - queryFrames[min(first + t1, p.T - 1u)]);
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
