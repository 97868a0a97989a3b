// gemm: sums over k of left(m, k) * right(n, k), in three shapes of tile. The shader that takes this text supplies
//
//   fn rowCount() -> u32, fn columnCount() -> u32, fn depth() -> u32 (in steps of four k)
//   fn leftRow(m: u32, q: u32) -> LeftRow, fn rightRow(n: u32, q: u32, tile: u32) -> RightRow
//     what an invocation keeps in registers of a row that it loads, from step q on; `tile` is the first n of the tile, the same
//     for all invocations
//   fn left(row: LeftRow, k: u32) -> vec4f, fn right(row: RightRow, k: u32) -> vec4f
//     four consecutive k of step k + q, zero beyond the end (which `exact` = 1 says is never asked for); any value where m or n
//     is beyond its count. k is the same for all invocations.
//   fn store(m: u32, n: u32, sum: f32)
//
// Operands of a forward pass lie K-major, and so do tiles, which hold vec4 along k; the 4x4 transposition below only renames
// registers. Loops over registers and shared memory are written out (see unroll.ts): a variable index costs a clamp. While a stage is summed up, the next one is on its way from storage to registers.

//# common
// Whether rows that follow each other (not k) lie side by side in storage, for either operand; set by gemm.ts.
const LEFT_BY_ROW = 0u;
const RIGHT_BY_ROW = 0u;

// Row and step that invocation i of a tile of so many rows and steps loads: neighbours read what lies side by side.
fn loaded(i: u32, byRow: u32, rows: u32, steps: u32) -> vec2u {
  if (byRow == 1u) { return vec2u(i % rows, i / rows); }
  return vec2u(i / steps, i % steps);
}

// First row and column of a tile; the row is beyond the last one where there is no such tile.
fn tileOrigin(tile: u32, height: u32, width: u32) -> vec2u {
  let across = (columnCount() + width - 1u) / width;
  return vec2u(tile / across * height, tile % across * width);
}

fn tileCount(height: u32, width: u32) -> u32 {
  return (rowCount() + height - 1u) / height * ((columnCount() + width - 1u) / width);
}

// The steps that a part sums up, in whole stages: first, end.
fn stepsOf(part: u32, stage: u32) -> vec2u {
  let stages = (depth() + stage - 1u) / stage;
  let each = (stages + parts - 1u) / parts;
  return min(vec2u(part, part + 1u) * each, vec2u(stages)) * stage;
}

fn step(c: vec4f, a: vec4f, b: mat4x4f) -> vec4f {
  return fma(a.xxxx, b[0], fma(a.yyyy, b[1], fma(a.zzzz, b[2], fma(a.wwww, b[3], c))));
}

fn finishes(part: u32, m: u32, n: u32, results: vec4f) { // columns n, n+8, n+16, n+24
  if (m >= rowCount()) { return; }
  for (var j = 0u; j < 4u; j++) {
    if (n + 8u * j < columnCount()) { finish(part, m, n + 8u * j, results[j]); }
  }
}

//# whole
// One workgroup sums up a tile.
const parts = 1u;

fn finish(part: u32, m: u32, n: u32, sum: f32) { store(m, n, sum); }

//# partial
// Several workgroups sum up parts of a tile: few rows or columns would leave most of a GPU idle.
fn finish(part: u32, m: u32, n: u32, sum: f32) { sums[(part * rowCount() + m) * columnCount() + n] = sum; }

//# combine
// The parts of each sum, added in the order of k.
@compute @workgroup_size(64)
fn combine(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  let count = rowCount() * columnCount();
  if (i >= count) { return; }
  var sum = 0.0;
  for (var part = 0u; part < parts; part++) { sum += sums[part * count + i]; }
  store(i / columnCount(), i % columnCount(), sum);
}

//# large
// 128 x 64 tile, 128 invocations of 8 x 8 sums each, 16 k at a time through 15 KiB of shared memory. A quarter of a row of the tile
// takes ten vec4 instead of eight, and all of them 41: eight neighbours read and write different banks. Not measured on hardware
// yet, nor is the choice between this tile and the small one (gemm.ts).
var<workgroup> a: array<array<vec4f, 41>, 16>; // [row % 16][10 k + row / 16]
var<workgroup> b: array<array<vec4f, 41>, 8>; // [column % 8][10 k + column / 8]

@compute @workgroup_size(128)
fn large(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let index = group.y * groups.x + group.x;
  let part = index / tileCount(128u, 64u);
  if (part >= parts) { return; }
  let origin = tileOrigin(index % tileCount(128u, 64u), 128u, 64u);
  let k = stepsOf(part, 4u);
  var rows: array<LeftRow, 4>;
  var columns: array<RightRow, 2>;
  var toA: array<vec2u, 4>; // where what it loads lies in shared memory
  var toB: array<vec2u, 2>;
  for (var j = 0u; j < 4u; j++) { // unroll
    let at = loaded(lane + 128u * j, LEFT_BY_ROW, 128u, 4u);
    rows[j] = leftRow(origin.x + at.x, at.y);
    toA[j] = vec2u(at.x % 16u, 10u * at.y + at.x / 16u);
    a[toA[j].x][toA[j].y] = left(rows[j], k.x);
  }
  for (var j = 0u; j < 2u; j++) { // unroll
    let at = loaded(lane + 128u * j, RIGHT_BY_ROW, 64u, 4u);
    columns[j] = rightRow(origin.y + at.x, at.y, origin.y);
    toB[j] = vec2u(at.x % 8u, 10u * at.y + at.x / 8u);
    b[toB[j].x][toB[j].y] = right(columns[j], k.x);
  }
  let x = lane % 8u;
  let y = lane / 8u;
  var c = array<vec4f, 16>();
  for (var k0 = k.x; k0 < k.y; k0 += 4u) {
    workgroupBarrier();
    var nextA: array<vec4f, 4>;
    var nextB: array<vec4f, 2>;
    let next = min(k0 + 4u, k.y - 4u); // after the last stage the same again: a branch would cost copies of registers
    for (var j = 0u; j < 4u; j++) { // unroll
      nextA[j] = left(rows[j], next);
    }
    for (var j = 0u; j < 2u; j++) { // unroll
      nextB[j] = right(columns[j], next);
    }
    for (var q = 0u; q < 4u; q++) { // unroll
      let b0 = transpose(mat4x4f(b[x][10u * q], b[x][10u * q + 1u], b[x][10u * q + 2u], b[x][10u * q + 3u]));
      let b1 = transpose(mat4x4f(b[x][10u * q + 4u], b[x][10u * q + 5u], b[x][10u * q + 6u], b[x][10u * q + 7u]));
      for (var i = 0u; i < 8u; i++) { // unroll
        let ai = a[y][10u * q + i];
        c[2u * i] = step(c[2u * i], ai, b0);
        c[2u * i + 1u] = step(c[2u * i + 1u], ai, b1);
      }
    }
    workgroupBarrier();
    for (var j = 0u; j < 4u; j++) { // unroll
      a[toA[j].x][toA[j].y] = nextA[j];
    }
    for (var j = 0u; j < 2u; j++) { // unroll
      b[toB[j].x][toB[j].y] = nextB[j];
    }
  }
  var results = c; // the copy may lie in memory and be indexed by a variable
  for (var i = 0u; i < 16u; i++) {
    finishes(part, origin.x + y + 16u * (i / 2u), origin.y + x + 32u * (i % 2u), results[i]);
  }
}

//# small
// 32 x 32 tile, 128 invocations: four groups of 32 take a quarter of every 64 k, 8 x 4 sums each, and add up at the end
// in one fixed order. For few rows (a denoising step has 64): eight times as many workgroups as the large tile. 16 KiB of shared
// memory, the least that WebGPU promises: no room for padding, so an exclusive or keeps neighbours that write apart.
var<workgroup> a: array<array<vec4f, 16>, 32>; // [8 (k % 4) + row / 4][4 (k / 4) + row % 4, scattered by k]
var<workgroup> b: array<array<vec4f, 32>, 16>; // [4 (k % 4) + column / 8][8 (k / 4) + column % 8, scattered by k]

fn placeA(row: u32, k: u32) -> u32 { return 4u * (k / 4u) + ((row ^ k) & 3u); }
fn placeB(column: u32, k: u32) -> u32 { return 8u * (k / 4u) + ((column ^ k) & 7u); }

@compute @workgroup_size(128)
fn small(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let index = group.y * groups.x + group.x;
  let part = index / tileCount(32u, 32u);
  if (part >= parts) { return; }
  let origin = tileOrigin(index % tileCount(32u, 32u), 32u, 32u);
  let k = stepsOf(part, 16u);
  var rows: array<LeftRow, 4>;
  var columns: array<RightRow, 4>;
  var toA: array<vec2u, 4>; // where what it loads lies in shared memory
  var toB: array<vec2u, 4>;
  for (var j = 0u; j < 4u; j++) { // unroll
    let l = loaded(lane + 128u * j, LEFT_BY_ROW, 32u, 16u);
    let r = loaded(lane + 128u * j, RIGHT_BY_ROW, 32u, 16u);
    rows[j] = leftRow(origin.x + l.x, l.y);
    columns[j] = rightRow(origin.y + r.x, r.y, origin.y);
    toA[j] = vec2u(8u * (l.y % 4u) + l.x / 4u, placeA(l.x, l.y));
    toB[j] = vec2u(4u * (r.y % 4u) + r.x / 8u, placeB(r.x, r.y));
    a[toA[j].x][toA[j].y] = left(rows[j], k.x);
    b[toB[j].x][toB[j].y] = right(columns[j], k.x);
  }
  let quarter = lane / 32u;
  let place = lane % 32u;
  let x = place % 8u;
  let y = place / 8u;
  var atA: array<u32, 4>;
  var atB: array<u32, 4>;
  for (var q = 0u; q < 4u; q++) { // unroll
    atA[q] = placeA(y, 4u * quarter + q);
    atB[q] = placeB(x, 4u * quarter + q);
  }
  var c = array<vec4f, 8>();
  for (var k0 = k.x; k0 < k.y; k0 += 16u) {
    workgroupBarrier();
    var nextA: array<vec4f, 4>;
    var nextB: array<vec4f, 4>;
    let next = min(k0 + 16u, k.y - 16u);
    for (var j = 0u; j < 4u; j++) { // unroll
      nextA[j] = left(rows[j], next);
      nextB[j] = right(columns[j], next);
    }
    for (var q = 0u; q < 4u; q++) { // unroll
      let at = atB[q];
      let bq = transpose(mat4x4f(b[4u * q][at], b[4u * q + 1u][at], b[4u * q + 2u][at], b[4u * q + 3u][at]));
      for (var i = 0u; i < 8u; i++) { // unroll
        c[i] = step(c[i], a[8u * q + i][atA[q]], bq);
      }
    }
    workgroupBarrier();
    for (var j = 0u; j < 4u; j++) { // unroll
      a[toA[j].x][toA[j].y] = nextA[j];
      b[toB[j].x][toB[j].y] = nextB[j];
    }
  }
  workgroupBarrier();
  // Quarters 0 and 1 leave their sums in a, 2 and 3 in b: 8 of each of 32 invocations.
  for (var i = 0u; i < 8u; i++) { // unroll
    let at = 8u * (quarter % 2u) + i;
    if (quarter < 2u) { a[2u * at + place / 16u][place % 16u] = c[i]; }
    else { b[at][place] = c[i]; }
  }
  workgroupBarrier();
  for (var i = 2u * quarter; i < 2u * quarter + 2u; i++) { // each quarter finishes two of the rows
    let first = a[2u * i + place / 16u][place % 16u] + a[2u * i + 16u + place / 16u][place % 16u];
    finishes(part, origin.x + y + 4u * i, origin.y + x, first + (b[i][place] + b[8u + i][place]));
  }
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
  let origin = tileOrigin(group.y * groups.x + group.x, 64u, 64u);
  if (origin.x >= rowCount()) { return; }
  let m = origin.x + lane / 8u;
  let n = origin.y + lane % 8u;
  var rows: array<LeftRow, 8>;
  var columns: array<RightRow, 8>;
  for (var i = 0u; i < 8u; i++) {
    rows[i] = leftRow(m + 8u * i, 0u);
    columns[i] = rightRow(n + 8u * i, 0u, origin.y);
  }
  var a: array<vec4f, 8>;
  var b: array<vec4f, 8>;
  var c = array<vec4f, 16>();
  for (var k = 0u; k < depth(); k++) {
    for (var i = 0u; i < 8u; i++) { // one call of each loader in the text: SwiftShader took minutes to compile sixteen
      a[i] = left(rows[i], k);
      b[i] = right(columns[i], k);
    }
    let b0 = transpose(mat4x4f(b[0], b[1], b[2], b[3]));
    let b1 = transpose(mat4x4f(b[4], b[5], b[6], b[7]));
    for (var i = 0u; i < 8u; i++) { // unroll
      c[2u * i] = step(c[2u * i], a[i], b0);
      c[2u * i + 1u] = step(c[2u * i + 1u], a[i], b1);
    }
  }
  var results = c;
  for (var i = 0u; i < 16u; i++) { finishes(0u, m + 8u * (i / 2u), n + 32u * (i % 2u), results[i]); }
}
