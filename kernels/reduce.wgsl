// reduce: every sum has one owner and one order, so two runs give the same bits.

//# rowSum
// A workgroup owns 64 columns of one row of y. It marks, 256 tokens at a time, which belong to its row; four parts of
// 64 lanes add up the marked tokens of their quarter in order.

var<workgroup> marks: array<atomic<u32>, 8>;
var<workgroup> partial: array<f32, 256>;

@compute @workgroup_size(256)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let across = (p.D + 63u) / 64u;
  let item = group.y * groups.x + group.x;
  let r = item / across;
  if (r >= p.R) { return; }
  let d = item % across * 64u + lane % 64u;
  let part = lane / 64u;
  var sum = 0.0;
  for (var m = 0u; m < p.M; m += 256u) {
    if (lane < 8u) { atomicStore(&marks[lane], 0u); }
    workgroupBarrier();
    if (m + lane < p.M && u32(rows[p.row + m + lane]) == r) { atomicOr(&marks[lane / 32u], 1u << (lane % 32u)); }
    workgroupBarrier();
    for (var word = 2u * part; word < 2u * part + 2u; word++) {
      var mark = atomicLoad(&marks[word]);
      while (mark != 0u) {
        let at = (p.row + m + 32u * word + firstTrailingBit(mark)) * p.D + d;
        mark &= mark - 1u;
        if (hasB == 1u) { sum = fma(a[at], b[at], sum); }
        else { sum += a[at]; }
      }
    }
    workgroupBarrier();
  }
  partial[lane] = sum;
  workgroupBarrier();
  if (part > 0u || d >= p.D) { return; }
  y[r * p.G + p.col + d] += (sum + partial[lane + 64u]) + (partial[lane + 128u] + partial[lane + 192u]);
}

//# columnSum
// A workgroup owns 16 columns; 16 parts of 16 lanes add up every sixteenth row.

var<workgroup> partial: array<f32, 256>;

@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let d = group.x * 16u + lane % 16u;
  var sum = 0.0;
  if (d < p.D) {
    for (var m = lane / 16u; m < p.M; m += 16u) { sum += a[(p.row + m) * p.W + p.col + d]; }
  }
  partial[lane] = sum;
  workgroupBarrier();
  if (lane >= 16u || d >= p.D) { return; }
  for (var i = lane + 16u; i < 256u; i += 16u) { sum += partial[i]; }
  y[d] += sum;
}

//# squared
fn distance(d: f32) -> f32 { return d * d; }
fn slope(d: f32) -> f32 { return 2.0 * d; }

//# absolute
fn distance(d: f32) -> f32 { return abs(d); }
fn slope(d: f32) -> f32 { return sign(d); }

//# lossGrad
@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.F * p.P) { return; }
  let scale = dloss[i / p.P] * weight[i / p.P] / f32(p.P);
  dprediction[i] = scale * slope(prediction[i] - expected[i]);
}

//# blocks
// The sum of `term` over the elements of a block, one workgroup a block.
alias Sum = f32;

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let block = rowOf(group, groups, lane);
  let end = min((block + 1u) * blockSize(), elementCount());
  var own = 0.0;
  for (var i = block * blockSize() + lane; i < end; i += 64u) { own += term(i); }
  let sum = sumOfRow(lane, own);
  if (lane == 0u && block < blockCount()) { store(block, sum); }
}

//# loss
fn blockCount() -> u32 { return p.F; }
fn blockSize() -> u32 { return p.P; }
fn elementCount() -> u32 { return p.F * p.P; }
fn term(i: u32) -> f32 { return distance(prediction[i] - expected[i]); }
fn store(block: u32, sum: f32) { loss[block] = weight[block] * (sum / f32(p.P)); }

//# squareSum
const BLOCK = 4096u; // set by kernels/reduce.ts

fn blockCount() -> u32 { return p.N; }
fn blockSize() -> u32 { return BLOCK; }
fn elementCount() -> u32 { return p.E; }
fn term(i: u32) -> f32 { return x[i] * x[i]; }
fn store(block: u32, sum: f32) { y[block] = sum; }
