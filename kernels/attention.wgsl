// attention: streaming softmax; scores are never stored. Its gradients are in attention_grad.wgsl.

//# forward
// A workgroup holds 32 queries of one head and walks over blocks of 32 keys; workgroup z of n takes every n-th block. An
// invocation makes the scores of one query, which it keeps in registers, and four keys; then sums of four queries and
// four channels over its part of the block. A slice of the keys' channels and then of the values' take turns in shared
// memory, which stays within the 16 KiB that WebGPU promises. What follows this text supplies `store` and `storeState`.
//
// Scores are in units of ln 2. The builtin exp2 serves: its error grows with the argument, but is relative to weights of
// at most 1 that shrink faster, so a weight is off by at most 3e-7 of the largest.

const HV = 16u; // vec4 of a head; this and the next five are set by kernels/attention.ts
const SLICES = 1u; // a head passes through shared memory in so many slices
const SLICE = 16u; // vec4 of a slice, at most 16
const LANES = 16u; // invocations across a slice: 4, 8 or 16
const PARTS = 2u; // sets of lanes that share the keys of a block: 32 / LANES
const LOADS = 2u; // vec4 of a slice that an invocation brings in
const QUERIES = 32u;
const KEYS = 32u;
const GROUPS = 8u; // groups of four keys, and invocations of a query
const SIZE = 256u;
const FOURS = GROUPS / PARTS; // groups of a part
const PAD = SLICE | 1u; // odd row lengths spread neighbours over the banks
const EDGE = FOURS | 1u;
const NEVER = -3.0e38;
const LOG2E = 1.4426950408889634;

// Nested so that all but one index of a read in the hot loops is a literal: naga clamps the others.
var<workgroup> block: array<array<array<array<vec4f, PAD>, 4>, FOURS>, PARTS>; // [part, group, key, channel]
var<workgroup> weights: array<array<array<array<vec4f, EDGE>, 4>, GROUPS>, PARTS>; // [part, query / 4, query % 4, group]
var<workgroup> maxima: array<array<f32, QUERIES>, GROUPS>;
var<workgroup> ofQuery: array<array<f32, 4>, GROUPS>; // one number of each query
var<workgroup> bad: array<atomic<u32>, SLICES>; // whether a slice of values holds infinities or NaN
var<workgroup> seen: array<atomic<u32>, GROUPS>; // 256 blocks: those that a query of the tile sees,
var<workgroup> mixed: array<atomic<u32>, GROUPS>; // those that a query does not see whole,
var<workgroup> last: atomic<u32>; // and the end of what they see
var<workgroup> marks: array<vec2u, GROUPS>; // seen and mixed
var<workgroup> end: u32;

// The frame of query i, or of key i - T.
fn frameAt(i: u32) -> i32 { return visible[p.T + i / 4u][i % 4u]; }

// The lowest n of 32 bits.
fn lowest(n: i32) -> u32 {
  let bits = u32(clamp(n, 0, 32));
  return select((1u << bits) - 1u, 0xffffffffu, bits == 32u);
}

// Bits of the blocks from `base` on that a range of keys meets (x), and of those that it covers (y).
fn blocksOf(range: vec2i, base: u32) -> vec2u {
  if (range.x >= range.y) { return vec2u(); }
  let size = i32(KEYS);
  let b = i32(base);
  let meets = lowest((range.y + size - 1) / size - b) & ~lowest(range.x / size - b);
  let covers = lowest(range.y / size - b) & ~lowest((range.x + size - 1) / size - b);
  return vec2u(meets, covers);
}

// Where vec4 i of a slice lies behind the first key of its block.
fn place(i: u32, slice: u32, width: u32, head: u32) -> u32 {
  return i / SLICE * width + head + min(slice * SLICE + i % SLICE, HV - 1u);
}

fn put(i: u32, value: vec4f) {
  let key = i / SLICE;
  block[key / 4u / FOURS][key / 4u % FOURS][key % 4u][i % SLICE] = value;
}

fn notFinite(x: vec4f) -> bool {
  let bits = bitcast<vec4u>(x) & vec4u(0x7fffffffu);
  return max(max(bits.x, bits.y), max(bits.z, bits.w)) >= 0x7f800000u;
}

fn step(c: vec4f, a: vec4f, b: mat4x4f) -> vec4f {
  return fma(a.xxxx, b[0], fma(a.yyyy, b[1], fma(a.zzzz, b[2], fma(a.wwww, b[3], c))));
}

@compute @workgroup_size(SIZE)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let width = p.D / 4u;
  let head = group.y * HV;
  let first = group.x * QUERIES;
  // For scores: query t, keys 4g … 4g+3. A tile that is not full repeats its last query.
  let t = lane % QUERIES;
  let g = lane / QUERIES;
  let row = min(first + t, p.T - 1u);
  let ranges = visible[row];
  let starts = vec2u(ranges.xz);
  let counts = vec2u(max(ranges.yw - ranges.xz, vec2i()));
  // For sums: queries 4r … 4r+3, channels c of a slice.
  let c = lane % LANES;
  let r = lane / LANES % (QUERIES / 4u);
  let part = lane / (LANES * QUERIES / 4u);

  var query = array<vec4f, SLICE>();
  if (SLICES == 1u) {
    for (var d = 0u; d < SLICE; d++) { // unroll
      query[d] = q[row * width + head + d] * (LOG2E * p.scale);
    }
  }
  var sums = array<vec4f, 4u * SLICES>();
  var highest = NEVER;
  var total = 0.0; // of the weights of query t and its key groups g
  // Every n-th bit: the blocks of this workgroup.
  var share = 1u;
  for (var n = groups.z; n < 32u; n *= 2u) { share |= share << n; }

  if (lane == 0u) { atomicStore(&last, 0u); }
  workgroupBarrier();
  if (g == 0u) {
    atomicMax(&last, u32(max(select(0, ranges.y, ranges.x < ranges.y), select(0, ranges.w, ranges.z < ranges.w))));
  }
  workgroupBarrier();
  if (lane == 0u) { end = (atomicLoad(&last) + KEYS - 1u) / KEYS; }
  let blocks = workgroupUniformLoad(&end);
  for (var chunk = 0u; chunk < blocks; chunk += 32u * GROUPS) {
    if (lane < GROUPS) {
      atomicStore(&seen[lane], 0u);
      atomicStore(&mixed[lane], 0u);
    }
    workgroupBarrier();
    let near = blocksOf(ranges.xy, chunk + 32u * g);
    let far = blocksOf(ranges.zw, chunk + 32u * g);
    atomicOr(&seen[g], near.x | far.x);
    atomicOr(&mixed[g], ~(near.y | far.y));
    workgroupBarrier();
    if (lane < GROUPS) { marks[lane] = vec2u(atomicLoad(&seen[lane]), atomicLoad(&mixed[lane])); }
    for (var word = 0u; word < GROUPS && chunk + 32u * word < blocks; word++) {
      let mark = workgroupUniformLoad(&marks[word]);
      let base = chunk + 32u * word;
      var left = mark.x & (share << ((group.z + groups.z - base % groups.z) % groups.z));
      // What goes to shared memory next is loaded while the block before it is worked on.
      var held = array<vec4f, LOADS>();
      if (left != 0u) {
        for (var n = 0u; n < LOADS; n++) { // unroll
          held[n] = k[(base + firstTrailingBit(left)) * KEYS * width + place(lane + n * SIZE, 0u, width, head)];
        }
      }
      while (left != 0u) {
        let at = firstTrailingBit(left);
        left &= left - 1u;
        let isMixed = ((mark.y >> at) & 1u) != 0u;
        let s = (base + at) * KEYS; // the first key; rows past the last are read somewhere in the buffer, and not seen
        var dots = array<vec4f, 4>();
        for (var slice = 0u; slice < SLICES; slice++) { // unroll
          if (isMixed && lane == 0u) { atomicStore(&bad[slice], 0u); }
          for (var n = 0u; n < LOADS; n++) { // unroll
            let i = lane + n * SIZE;
            if (KEYS * SLICE % SIZE == 0u || i < KEYS * SLICE) { put(i, held[n]); }
          }
          workgroupBarrier();
          for (var n = 0u; n < LOADS; n++) { // unroll
            if (slice + 1u < SLICES) { held[n] = k[s * width + place(lane + n * SIZE, slice + 1u, width, head)]; }
            else { held[n] = v[s * width + place(lane + n * SIZE, 0u, width, head)]; }
          }
          if (SLICES > 1u) {
            for (var d = 0u; d < SLICE; d++) { // unroll
              let channel = slice * SLICE + d;
              query[d] = select(vec4f(), q[row * width + head + min(channel, HV - 1u)] * (LOG2E * p.scale), channel < HV);
            }
          }
          let keys = &block[g / FOURS][g % FOURS];
          for (var d = 0u; d < SLICE; d++) { // unroll
            dots[0] = fma(query[d], (*keys)[0][d], dots[0]);
            dots[1] = fma(query[d], (*keys)[1][d], dots[1]);
            dots[2] = fma(query[d], (*keys)[2][d], dots[2]);
            dots[3] = fma(query[d], (*keys)[3][d], dots[3]);
          }
          if (slice + 1u < SLICES) { workgroupBarrier(); }
        }
        let halves = transpose(mat4x4f(dots[0], dots[1], dots[2], dots[3]));
        var score = (halves[0] + halves[1]) + (halves[2] + halves[3]);
        if (hasSlope == 1u) {
          let frame = frameAt(row);
          for (var i = 0u; i < 4u; i++) { // unroll
            score[i] += LOG2E * p.slope * f32(frameAt(p.T + s + 4u * g + i) - frame);
          }
        }
        var sees = vec4<bool>(true);
        if (isMixed) {
          let offset = vec4u(s + 4u * g) + vec4u(0u, 1u, 2u, 3u);
          sees = (offset - starts.xxxx < counts.xxxx) | (offset - starts.yyyy < counts.yyyy);
          score = select(vec4f(NEVER), score, sees);
        }
        maxima[g][t] = max(max(score.x, score.y), max(score.z, score.w));
        workgroupBarrier();
        let before = highest;
        for (var i = 0u; i < GROUPS; i++) { // unroll
          highest = max(highest, maxima[i][t]);
        }
        let keep = exp2(before - highest);
        var weight = exp2(score - highest);
        if (isMixed) { weight = select(vec4f(), weight, sees); }
        total = fma(total, keep, (weight.x + weight.y) + (weight.z + weight.w));
        weights[g / FOURS][t / 4u][t % 4u][g % FOURS] = weight;
        if (g == 0u) { ofQuery[t / 4u][t % 4u] = keep; }
        for (var slice = 0u; slice < SLICES; slice++) { // unroll
          for (var n = 0u; n < LOADS; n++) { // unroll
            let i = lane + n * SIZE;
            if (KEYS * SLICE % SIZE == 0u || i < KEYS * SLICE) {
              if (isMixed && notFinite(held[n])) { // 0 times it would be NaN for queries that do not see it
                held[n] = vec4f();
                atomicStore(&bad[slice], 1u);
              }
              put(i, held[n]);
            }
          }
          workgroupBarrier();
          for (var n = 0u; n < LOADS; n++) { // unroll
            if (slice + 1u < SLICES) { held[n] = v[s * width + place(lane + n * SIZE, slice + 1u, width, head)]; }
            else if (left != 0u) {
              held[n] = k[(base + firstTrailingBit(left)) * KEYS * width + place(lane + n * SIZE, 0u, width, head)];
            }
          }
          if (slice == 0u) {
            for (var i = 0u; i < 4u; i++) { // unroll
              let factor = ofQuery[r][i];
              for (var n = 0u; n < SLICES; n++) { // unroll
                sums[i * SLICES + n] *= factor;
              }
            }
          }
          let values = &block[part];
          let factors = &weights[part][r];
          let column = min(c, SLICE - 1u);
          for (var j = 0u; j < GROUPS / PARTS; j++) { // unroll
            let b = mat4x4f(
              (*values)[j][0][column],
              (*values)[j][1][column],
              (*values)[j][2][column],
              (*values)[j][3][column],
            );
            sums[slice] = step(sums[slice], (*factors)[0][j], b);
            sums[SLICES + slice] = step(sums[SLICES + slice], (*factors)[1][j], b);
            sums[2u * SLICES + slice] = step(sums[2u * SLICES + slice], (*factors)[2][j], b);
            sums[3u * SLICES + slice] = step(sums[3u * SLICES + slice], (*factors)[3][j], b);
          }
          if (isMixed) {
            let count = select(0u, 4u * FOURS, atomicLoad(&bad[slice]) != 0u);
            for (var n = 0u; n < count; n++) { // queries that see such a row get what it holds
              let value = v[(s + part * 4u * FOURS + n) * width + head + min(slice * SLICE + column, HV - 1u)];
              for (var i = 0u; i < 4u; i++) { // unroll
                let w = (*factors)[i][n / 4u][n % 4u];
                if (w != 0.0 && notFinite(value)) { sums[i * SLICES + slice] += w * value; }
              }
            }
          }
          workgroupBarrier();
        }
      }
    }
  }

  // Sums over the parts and key groups, in one fixed order.
  maxima[g][t] = total;
  workgroupBarrier();
  total = 0.0;
  for (var i = 0u; i < GROUPS; i++) { // unroll
    total += maxima[i][t];
  }
  if (g == 0u) {
    ofQuery[t / 4u][t % 4u] = total;
    if (first + t < p.T) { storeState(first + t, group.y, group.z, groups.z, highest, total); }
  }
  for (var slice = 0u; slice < SLICES; slice++) { // unroll
    for (var other = 1u; other < PARTS; other++) {
      for (var i = 0u; i < 4u; i++) { // unroll
        if (part == other) { block[r / FOURS][r % FOURS][i][min(c, PAD - 1u)] = sums[i * SLICES + slice]; }
      }
      workgroupBarrier();
      for (var i = 0u; i < 4u; i++) { // unroll
        if (part == 0u) { sums[i * SLICES + slice] += block[r / FOURS][r % FOURS][i][min(c, PAD - 1u)]; }
      }
      workgroupBarrier();
    }
    let channel = slice * SLICE + c;
    for (var i = 0u; i < 4u; i++) { // unroll
      let query = first + 4u * r + i;
      if (part == 0u && query < p.T && c < SLICE && channel < HV) {
        store(query, group.y, group.z, channel, sums[i * SLICES + slice], ofQuery[r][i]);
      }
    }
  }
}

//# whole
const LN2 = 0.6931471805599453;

fn storeState(t: u32, head: u32, z: u32, count: u32, highest: f32, total: f32) {
  if (hasLse == 1u) { lse[t * p.A + head] = (highest + log2(total)) * LN2; }
}

fn store(t: u32, head: u32, z: u32, channel: u32, sum: vec4f, total: f32) {
  y[(t * p.A + head) * HV + channel] = sum / total;
}

//# partial
// Rows of `partial` are [z, t, head]: highest score, sum of weights and number of rows z in a vec4, then sums.
fn rowOf(t: u32, head: u32, z: u32) -> u32 { return ((z * p.T + t) * p.A + head) * (HV + 1u); }

fn storeState(t: u32, head: u32, z: u32, count: u32, highest: f32, total: f32) {
  partial[rowOf(t, head, z)] = vec4f(highest, total, f32(count), 0.0);
}

fn store(t: u32, head: u32, z: u32, channel: u32, sum: vec4f, total: f32) {
  partial[rowOf(t, head, z) + 1u + channel] = sum;
}

//# merge
// An invocation owns four channels of y and adds what the workgroups of `partial` found, in their order.
const HV = 16u; // vec4 of a head; set by kernels/attention.ts
const LN2 = 0.6931471805599453;

@compute @workgroup_size(64)
fn merge(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.T * p.A * HV) { return; }
  let first = i / HV * (HV + 1u);
  let stride = p.T * p.A * (HV + 1u);
  let end = first + u32(partial[first].z) * stride;
  var highest = partial[first].x;
  for (var at = first + stride; at < end; at += stride) { highest = max(highest, partial[at].x); }
  var total = 0.0;
  var sum = vec4f();
  for (var at = first; at < end; at += stride) {
    let factor = exp2(partial[at].x - highest);
    total = fma(factor, partial[at].y, total);
    sum = fma(vec4f(factor), partial[at + 1u + i % HV], sum);
  }
  y[i] = sum / total;
  if (hasLse == 1u && i % HV == 0u) { lse[i / HV] = (highest + log2(total)) * LN2; }
}
