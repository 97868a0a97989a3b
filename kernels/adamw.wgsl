// adamw: one invocation updates one parameter and its two moments in place.

@compute @workgroup_size(64)
fn update(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.E) { return; }
  let g = gradient[i] * p.scale;
  let mean = fma(p.beta1, m[i], p.rest1 * g);
  let square = fma(p.beta2, v[i], p.rest2 * g * g);
  m[i] = mean;
  v[i] = square;
  let size = sqrt(square) / sqrt(p.bias2) + p.eps;
  parameters[i] = fma(parameters[i], 1.0 - p.lr * p.decay, -(p.lr / p.bias1) * (mean / size));
}
