// rotary: eight invocations share one head of one token; neighbours take neighbouring pairs of channels.

override hd: u32 = 0u; // channels of a head

struct Params { M: u32, row: u32, D: u32, eps: f32 }

@group(0) @binding(0) var<storage, read> qkv: array<f32>; // [T, 3D] = [q | k | v]
@group(0) @binding(1) var<storage, read> wq: array<f32>;  // [hd]
@group(0) @binding(2) var<storage, read> wk: array<f32>;
@group(0) @binding(3) var<storage, read> cosines: array<f32>; // [T, hd/2]
@group(0) @binding(4) var<storage, read> sines: array<f32>;
@group(0) @binding(5) var<storage, read> dest: array<i32>; // [T]
@group(0) @binding(6) var<storage, read_write> q: array<f32>; // [T, D]
@group(0) @binding(7) var<storage, read_write> k: array<f32>; // [S, D]
@group(0) @binding(8) var<storage, read_write> v: array<f32>;
@group(0) @binding(9) var<uniform> p: Params;

var<workgroup> partial: array<vec2f, 64>; // sums of squares of q and k

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let heads = p.D / hd;
  let item = (group.y * groups.x + group.x) * 8u + lane / 8u; // (token, head)
  let end = select(0u, hd / 2u, item < p.M * heads); // no early return: all meet at the barrier
  let t = p.row + item / heads;
  let at = (item % heads) * hd;
  let source = t * 3u * p.D + at;
  var squares = vec2f();
  for (var j = lane % 8u; j < end; j += 8u) {
    let i = source + 2u * j;
    let a = vec2f(qkv[i], qkv[i + p.D]);
    let b = vec2f(qkv[i + 1u], qkv[i + p.D + 1u]);
    squares = fma(a, a, fma(b, b, squares));
  }
  partial[lane] = squares;
  workgroupBarrier();
  if (end == 0u) { return; }
  squares = vec2f();
  for (var i = lane & 56u; i < (lane & 56u) + 8u; i++) { squares += partial[i]; }
  let scale = 1.0 / sqrt(squares / f32(hd) + p.eps);
  let toQ = t * p.D + at;
  let toK = u32(dest[t]) * p.D + at;
  for (var j = lane % 8u; j < end; j += 8u) {
    let i = 2u * j;
    let c = cosines[t * (hd / 2u) + j];
    let s = sines[t * (hd / 2u) + j];
    let qa = qkv[source + i] * scale.x * wq[i];
    let qb = qkv[source + i + 1u] * scale.x * wq[i + 1u];
    q[toQ + i] = qa * c - qb * s;
    q[toQ + i + 1u] = qb * c + qa * s;
    let ka = qkv[source + p.D + i] * scale.y * wk[i];
    let kb = qkv[source + p.D + i + 1u] * scale.y * wk[i + 1u];
    k[toK + i] = ka * c - kb * s;
    k[toK + i + 1u] = kb * c + ka * s;
    v[toK + i] = qkv[source + 2u * p.D + i];
    v[toK + i + 1u] = qkv[source + 2u * p.D + i + 1u];
  }
}
