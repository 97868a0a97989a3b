// pool: max-pooling of images. One invocation makes one element; neighbours read neighbouring channels.

//# window
// Where the largest pixel of a window lies, the first in row order where several are equal.
fn winner(b: u32, oy: u32, ox: u32, c: u32) -> u32 {
  let top = oy * p.stride;
  let left = ox * p.stride;
  var best = 0u;
  var largest = 0.0;
  var found = false;
  // Coordinates are those of the padded image.
  for (var y = max(top, p.pad); y < min(top + p.K, p.H + p.pad); y++) {
    for (var x0 = max(left, p.pad); x0 < min(left + p.K, p.W + p.pad); x0++) {
      let at = ((b * p.H + y - p.pad) * p.W + x0 - p.pad) * p.C + c;
      let value = x[at];
      if (!found || value > largest) {
        found = true;
        largest = value;
        best = at;
      }
    }
  }
  return best;
}

//# maxPool2d
@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.B * p.OH * p.OW * p.C) { return; }
  let pixel = i / p.C;
  y[i] = x[winner(pixel / (p.OW * p.OH), pixel / p.OW % p.OH, pixel % p.OW, i % p.C)];
}

//# maxPool2dGrad
// An invocation owns a pixel of x and looks for it in every window that covers it.

// First window that covers a coordinate of the padded image.
fn firstWindow(at: u32) -> u32 {
  return (max(at + 1u, p.K) - p.K + p.stride - 1u) / p.stride;
}

@compute @workgroup_size(64)
fn backward(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.y * groups.x + group.x) * 64u + lane;
  if (i >= p.B * p.H * p.W * p.C) { return; }
  let c = i % p.C;
  let b = i / (p.C * p.W * p.H);
  let py = i / (p.C * p.W) % p.H + p.pad;
  let px = i / p.C % p.W + p.pad;
  var sum = 0.0;
  for (var oy = firstWindow(py); oy < min(py / p.stride + 1u, p.OH); oy++) {
    for (var ox = firstWindow(px); ox < min(px / p.stride + 1u, p.OW); ox++) {
      if (winner(b, oy, ox, c) == i) { sum += dy[((b * p.OH + oy) * p.OW + ox) * p.C + c]; }
    }
  }
  dx[i] = sum;
}
