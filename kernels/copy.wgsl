// copy: y[yAt + sum i ys] = x[xAt + sum i xs] for all indices below n. Bits are moved, whatever they mean.

struct Params {
  xAt: u32, yAt: u32,
  n0: u32, n1: u32, n2: u32, n3: u32, n4: u32, n5: u32,
  xs0: u32, xs1: u32, xs2: u32, xs3: u32, xs4: u32, xs5: u32,
  ys0: u32, ys1: u32, ys2: u32, ys3: u32, ys4: u32, ys5: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(2) var<uniform> p: Params;

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  var rest = (group.y * groups.x + group.x) * 64u + lane;
  let i5 = rest % p.n5;
  rest /= p.n5;
  let i4 = rest % p.n4;
  rest /= p.n4;
  let i3 = rest % p.n3;
  rest /= p.n3;
  let i2 = rest % p.n2;
  rest /= p.n2;
  let i1 = rest % p.n1;
  let i0 = rest / p.n1;
  if (i0 >= p.n0) { return; }
  y[p.yAt + i0 * p.ys0 + i1 * p.ys1 + i2 * p.ys2 + i3 * p.ys3 + i4 * p.ys4 + i5 * p.ys5] =
    x[p.xAt + i0 * p.xs0 + i1 * p.xs1 + i2 * p.xs2 + i3 * p.xs3 + i4 * p.xs4 + i5 * p.xs5];
}
