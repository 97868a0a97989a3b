// rows: invocations that share a row, and the sums and maxima that all of them learn, in one fixed order.

//# rows
const SHARE = 64u; // invocations of a row: 64 or 16; this and the next are set by kernels/rows.ts
const ROOT = 8u; // its square root

// The row of an invocation: 64 / SHARE of them a workgroup. No early return for those beyond the last: all meet at barriers.
fn rowOf(group: vec3u, groups: vec3u, lane: u32) -> u32 {
  return (group.y * groups.x + group.x) * (64u / SHARE) + lane / SHARE;
}

//# sum
// Sums of the columns of a square of ROOT x ROOT invocations, then their sum.
var<workgroup> terms: array<Sum, 64>;

fn sumOfRow(lane: u32, value: Sum) -> Sum {
  let first = lane / SHARE * SHARE;
  terms[lane] = value;
  workgroupBarrier();
  var sum = terms[first + lane % ROOT];
  for (var i = 1u; i < ROOT; i++) { // unroll
    sum += terms[first + lane % ROOT + i * ROOT];
  }
  workgroupBarrier();
  terms[lane] = sum;
  workgroupBarrier();
  sum = terms[first];
  for (var i = 1u; i < ROOT; i++) { // unroll
    sum += terms[first + i];
  }
  workgroupBarrier();
  return sum;
}

//# most
var<workgroup> candidates: array<f32, 64>;

fn mostOfRow(lane: u32, value: f32) -> f32 {
  let first = lane / SHARE * SHARE;
  candidates[lane] = value;
  workgroupBarrier();
  var most = candidates[first + lane % ROOT];
  for (var i = 1u; i < ROOT; i++) { // unroll
    most = max(most, candidates[first + lane % ROOT + i * ROOT]);
  }
  workgroupBarrier();
  candidates[lane] = most;
  workgroupBarrier();
  for (var i = 0u; i < ROOT; i++) { // unroll
    most = max(most, candidates[first + i]);
  }
  return most;
}
