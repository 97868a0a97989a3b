// softmax: four rows a workgroup, 16 invocations a row.

//# softmax
alias Sum = f32;

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = rowOf(group, groups, lane);
  let end = select(0u, p.C, row < p.P);
  let first = row * p.C;
  var own = -3.0e38;
  for (var c = lane % SHARE; c < end; c += SHARE) { own = max(own, x[first + c]); }
  let most = mostOfRow(lane, own);
  own = 0.0;
  for (var c = lane % SHARE; c < end; c += SHARE) { own += expAccurate(x[first + c] - most); }
  let sum = sumOfRow(lane, own);
  for (var c = lane % SHARE; c < end; c += SHARE) { y[first + c] = expAccurate(x[first + c] - most) / sum; }
}

//# softmaxGrad
alias Sum = f32;

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = rowOf(group, groups, lane);
  let end = select(0u, p.C, row < p.P);
  let first = row * p.C;
  var own = 0.0;
  for (var c = lane % SHARE; c < end; c += SHARE) { own = fma(dy[first + c], y[first + c], own); }
  let sum = sumOfRow(lane, own);
  for (var c = lane % SHARE; c < end; c += SHARE) { dx[first + c] = y[first + c] * (dy[first + c] - sum); }
}
