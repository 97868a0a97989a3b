// softmax: four rows a workgroup, 16 invocations a row.

//# rows
var<workgroup> partial: array<f32, 64>;

//# softmax
@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = (group.y * groups.x + group.x) * 4u + lane / 16u;
  let end = select(0u, p.C, row < p.P); // no early return: all meet at the barriers
  let first = row * p.C;
  let start = lane % 16u;
  let rest = lane & 48u; // the row's first lane
  var most = -3.0e38;
  for (var c = start; c < end; c += 16u) { most = max(most, x[first + c]); }
  partial[lane] = most;
  workgroupBarrier();
  for (var i = rest; i < rest + 16u; i++) { most = max(most, partial[i]); }
  workgroupBarrier();
  var own = 0.0;
  for (var c = start; c < end; c += 16u) { own += expAccurate(x[first + c] - most); }
  partial[lane] = own;
  workgroupBarrier();
  var sum = 0.0;
  for (var i = rest; i < rest + 16u; i++) { sum += partial[i]; }
  for (var c = start; c < end; c += 16u) { y[first + c] = expAccurate(x[first + c] - most) / sum; }
}

//# softmaxGrad
@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = (group.y * groups.x + group.x) * 4u + lane / 16u;
  let end = select(0u, p.C, row < p.P);
  let first = row * p.C;
  let rest = lane & 48u;
  var own = 0.0;
  for (var c = lane % 16u; c < end; c += 16u) { own = fma(dy[first + c], y[first + c], own); }
  partial[lane] = own;
  workgroupBarrier();
  var sum = 0.0;
  for (var i = rest; i < rest + 16u; i++) { sum += partial[i]; }
  for (var c = lane % 16u; c < end; c += 16u) { dx[first + c] = y[first + c] * (dy[first + c] - sum); }
}
