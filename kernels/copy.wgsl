// copy: y[yAt + sum i ys] = x[xAt + sum i xs] for all indices below n, and its gradient.

//# forward
// Bits are moved, whatever they mean.

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

//# backward
// An invocation owns an element of dx: the axes with an input stride name it, the others are summed up in order.

struct Axes { n: array<u32, 6> }

fn size(n: u32, wanted: bool) -> u32 { return select(1u, n, wanted); }

fn axesThat(repeat: bool) -> Axes {
  return Axes(array<u32, 6>(
    size(p.n0, (p.xs0 == 0u) == repeat),
    size(p.n1, (p.xs1 == 0u) == repeat),
    size(p.n2, (p.xs2 == 0u) == repeat),
    size(p.n3, (p.xs3 == 0u) == repeat),
    size(p.n4, (p.xs4 == 0u) == repeat),
    size(p.n5, (p.xs5 == 0u) == repeat),
  ));
}

fn count(a: Axes) -> u32 { return a.n[0] * a.n[1] * a.n[2] * a.n[3] * a.n[4] * a.n[5]; }

// Offsets in dx and dy of the index-th place within some axes.
fn place(index: u32, a: Axes) -> vec2u {
  var rest = index;
  var at = rest % a.n[5] * vec2u(p.xs5, p.ys5);
  rest /= a.n[5];
  at += rest % a.n[4] * vec2u(p.xs4, p.ys4);
  rest /= a.n[4];
  at += rest % a.n[3] * vec2u(p.xs3, p.ys3);
  rest /= a.n[3];
  at += rest % a.n[2] * vec2u(p.xs2, p.ys2);
  rest /= a.n[2];
  return at + rest % a.n[1] * vec2u(p.xs1, p.ys1) + rest / a.n[1] * vec2u(p.xs0, p.ys0);
}

@compute @workgroup_size(64)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  let owned = axesThat(false);
  if (i >= count(owned)) { return; }
  let repeated = axesThat(true);
  let repeats = count(repeated);
  let first = vec2u(p.xAt, p.yAt) + place(i, owned);
  var sum = 0.0;
  for (var r = 0u; r < repeats; r++) { sum += dy[first.y + place(r, repeated).y]; }
  dx[first.x] += sum;
}
