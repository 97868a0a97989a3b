// gemm: sums over k of left(m, k) * right(n, k), in three shapes of tile. The shader that takes this text supplies
//
//   fn rowCount() -> u32, fn columnCount() -> u32, fn depth() -> u32 (in steps of four k)
//   fn left(m: u32, k: u32) -> vec4f, fn right(n: u32, k: u32) -> vec4f
//     four consecutive k (4k … 4k+3), zero beyond the end; any value where m or n is beyond its count
//   fn store(m: u32, n: u32, sum: f32)
//
// Operands of a forward pass lie K-major, and so do tiles, which hold vec4 along k; the 4x4 transposition below only renames registers. Accumulators
// are indexed by literals while they are summed up (a variable index would move them to memory).

//# common
// Whether rows that follow each other (not k) lie side by side in storage, for either operand; set by gemm.ts.
const LEFT_BY_ROW = 0u;
const RIGHT_BY_ROW = 0u;

// Row and step that invocation i of a tile of so many rows and steps loads: neighbours read what lies side by side.
fn loaded(i: u32, byRow: u32, rows: u32, steps: u32) -> vec2u {
  if (byRow == 1u) { return vec2u(i % rows, i / rows); }
  return vec2u(i / steps, i % steps);
}

fn tileOrigin(group: vec3u, groups: vec3u, size: u32) -> vec2u {
  let tile = group.y * groups.x + group.x;
  let across = (columnCount() + size - 1u) / size;
  return vec2u(tile / across, tile % across) * size; // first row, first column
}

fn step(c: vec4f, a: vec4f, b: mat4x4f) -> vec4f {
  return fma(a.xxxx, b[0], fma(a.yyyy, b[1], fma(a.zzzz, b[2], fma(a.wwww, b[3], c))));
}

fn stores(m: u32, n: u32, sums: vec4f) { // columns n, n+8, n+16, n+24
  if (m >= rowCount()) { return; }
  for (var j = 0u; j < 4u; j++) {
    if (n + 8u * j < columnCount()) { store(m, n + 8u * j, sums[j]); }
  }
}

//# tile64
// 64 x 64 tile, 64 invocations of 8 x 8 sums each, 16 k at a time through 10 KiB of shared memory. A row of the tile
// takes five vec4 instead of four, so that eight neighbours hit different banks. For many rows. Not measured on
// hardware yet; the choice between this and tile32 (kernels/linear.ts) is a guess of the same kind.
var<workgroup> a: array<vec4f, 320>;
var<workgroup> b: array<vec4f, 320>;

@compute @workgroup_size(64)
fn tile64(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let origin = tileOrigin(group, groups, 64u);
  if (origin.x >= rowCount()) { return; }
  let tx = lane % 8u;
  let ty = lane / 8u;
  var c = array<vec4f, 16>();
  for (var k0 = 0u; k0 < depth(); k0 += 4u) {
    for (var i = lane; i < 256u; i += 64u) {
      let l = loaded(i, LEFT_BY_ROW, 64u, 4u);
      let r = loaded(i, RIGHT_BY_ROW, 64u, 4u);
      a[l.x * 5u + l.y] = left(origin.x + l.x, k0 + l.y);
      b[r.x * 5u + r.y] = right(origin.y + r.x, k0 + r.y);
    }
    workgroupBarrier();
    for (var k = 0u; k < 4u; k++) {
      let bk = tx * 5u + k;
      let b0 = transpose(mat4x4f(b[bk], b[bk + 40u], b[bk + 80u], b[bk + 120u]));
      let b1 = transpose(mat4x4f(b[bk + 160u], b[bk + 200u], b[bk + 240u], b[bk + 280u]));
      let ak = ty * 5u + k;
      let a0 = a[ak];
      let a1 = a[ak + 40u];
      let a2 = a[ak + 80u];
      let a3 = a[ak + 120u];
      c[0] = step(c[0], a0, b0);
      c[1] = step(c[1], a0, b1);
      c[2] = step(c[2], a1, b0);
      c[3] = step(c[3], a1, b1);
      c[4] = step(c[4], a2, b0);
      c[5] = step(c[5], a2, b1);
      c[6] = step(c[6], a3, b0);
      c[7] = step(c[7], a3, b1);
      let a4 = a[ak + 160u];
      let a5 = a[ak + 200u];
      let a6 = a[ak + 240u];
      let a7 = a[ak + 280u];
      c[8] = step(c[8], a4, b0);
      c[9] = step(c[9], a4, b1);
      c[10] = step(c[10], a5, b0);
      c[11] = step(c[11], a5, b1);
      c[12] = step(c[12], a6, b0);
      c[13] = step(c[13], a6, b1);
      c[14] = step(c[14], a7, b0);
      c[15] = step(c[15], a7, b1);
    }
    workgroupBarrier();
  }
  var sums = c; // the copy may lie in memory and be indexed by a variable
  for (var i = 0u; i < 16u; i++) {
    stores(origin.x + ty + 8u * (i / 2u), origin.y + tx + 32u * (i % 2u), sums[i]);
  }
}

//# tile32
// 32 x 32 tile, 256 invocations: four groups of 64 take a quarter of every 64 k, 4 x 4 sums each, and add up at the end
// in one fixed order. For few rows (a denoising step has 64): four times as many workgroups as tile64, and four times
// as many invocations a tile to hide the latency of loads. 16 KiB of shared memory, the least that WebGPU promises;
// the exclusive or spreads eight neighbours over the banks without padding.
var<workgroup> a: array<vec4f, 512>;
var<workgroup> b: array<vec4f, 512>;

fn slot(row: u32, k: u32) -> u32 {
  return row * 16u + (k ^ (row & 7u));
}

@compute @workgroup_size(256)
fn tile32(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let origin = tileOrigin(group, groups, 32u);
  if (origin.x >= rowCount()) { return; }
  let part = lane / 64u;
  let place = lane % 64u;
  let tx = place % 8u;
  let ty = place / 8u;
  var c0 = vec4f();
  var c1 = vec4f();
  var c2 = vec4f();
  var c3 = vec4f();
  for (var k0 = 0u; k0 < depth(); k0 += 16u) {
    for (var i = lane; i < 512u; i += 256u) {
      let l = loaded(i, LEFT_BY_ROW, 32u, 16u);
      let r = loaded(i, RIGHT_BY_ROW, 32u, 16u);
      a[slot(l.x, l.y)] = left(origin.x + l.x, k0 + l.y);
      b[slot(r.x, r.y)] = right(origin.y + r.x, k0 + r.y);
    }
    workgroupBarrier();
    for (var k = part * 4u; k < part * 4u + 4u; k++) {
      let bk = transpose(mat4x4f(b[slot(tx, k)], b[slot(tx + 8u, k)], b[slot(tx + 16u, k)], b[slot(tx + 24u, k)]));
      c0 = step(c0, a[slot(ty, k)], bk);
      c1 = step(c1, a[slot(ty + 8u, k)], bk);
      c2 = step(c2, a[slot(ty + 16u, k)], bk);
      c3 = step(c3, a[slot(ty + 24u, k)], bk);
    }
    workgroupBarrier();
  }
  let mine = (part % 2u) * 256u + place;
  if (part < 2u) {
    a[mine] = c0;
    a[mine + 64u] = c1;
    a[mine + 128u] = c2;
    a[mine + 192u] = c3;
  } else {
    b[mine] = c0;
    b[mine + 64u] = c1;
    b[mine + 128u] = c2;
    b[mine + 192u] = c3;
  }
  workgroupBarrier();
  let row = part * 64u + place; // each group finishes a quarter of the rows
  stores(origin.x + ty + 8u * part, origin.y + tx, (a[row] + a[row + 256u]) + (b[row] + b[row + 256u]));
}

//# plain
// 64 x 64 tile, 64 invocations of 8 x 8 sums each, straight from storage: software adapters, where shared memory is as
// slow as any (llvmpipe: 0.15 GFLOP/s with shared tiles, 1.7 so; 2 cores, 2026-11-21).
@compute @workgroup_size(64)
fn plain(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let origin = tileOrigin(group, groups, 64u);
  if (origin.x >= rowCount()) { return; }
  let m = origin.x + lane / 8u;
  let n = origin.y + lane % 8u;
  var a: array<vec4f, 8>;
  var b: array<vec4f, 8>;
  var c = array<vec4f, 16>();
  for (var k = 0u; k < depth(); k++) {
    for (var i = 0u; i < 8u; i++) { // one call of each loader in the text: SwiftShader took minutes to compile sixteen
      a[i] = left(m + 8u * i, k);
      b[i] = right(n + 8u * i, k);
    }
    let b0 = transpose(mat4x4f(b[0], b[1], b[2], b[3]));
    let b1 = transpose(mat4x4f(b[4], b[5], b[6], b[7]));
    c[0] = step(c[0], a[0], b0);
    c[1] = step(c[1], a[0], b1);
    c[2] = step(c[2], a[1], b0);
    c[3] = step(c[3], a[1], b1);
    c[4] = step(c[4], a[2], b0);
    c[5] = step(c[5], a[2], b1);
    c[6] = step(c[6], a[3], b0);
    c[7] = step(c[7], a[3], b1);
    c[8] = step(c[8], a[4], b0);
    c[9] = step(c[9], a[4], b1);
    c[10] = step(c[10], a[5], b0);
    c[11] = step(c[11], a[5], b1);
    c[12] = step(c[12], a[6], b0);
    c[13] = step(c[13], a[6], b1);
    c[14] = step(c[14], a[7], b0);
    c[15] = step(c[15], a[7], b1);
  }
  var sums = c;
  for (var i = 0u; i < 16u; i++) { stores(m + 8u * (i / 2u), n + 32u * (i % 2u), sums[i]); }
}
