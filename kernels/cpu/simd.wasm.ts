// Vector functions that the kernels of the cpu device share. Each thread has its own instance of the module; nothing
// here keeps state. Written for the AssemblyScript compiler.

/** a * b + c: one rounding with relaxed SIMD (on processors with FMA), two in the plain build. */
@inline
export function madd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(f32x4.mul(a, b), c);
}

/** Sum of the four lanes, in a fixed order. */
@inline
export function lanes(v: v128): f32 {
  return (f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1)) +
    (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3));
}

/** 2 to the power x for x in [-126, 127]; 0 below (also for -Infinity); relative error about 1e-7. */
@inline
export function exp2(x: v128): v128 {
  // 1.5 * 2^23: adding it rounds to the nearest integer, which then stands in the low bits.
  const magic = f32x4.splat(12582912.0);
  const low = f32x4.splat(-126.0);
  const z = f32x4.pmax(f32x4.pmin(x, f32x4.splat(127.0)), low);
  const t = f32x4.add(z, magic);
  const f = f32x4.sub(z, f32x4.sub(t, magic)); // [-0.5, 0.5]
  // Coefficients of Cephes' exp2f.
  let p = f32x4.splat(1.535336188319500e-4);
  p = madd(p, f, f32x4.splat(1.339887440266574e-3));
  p = madd(p, f, f32x4.splat(9.618437357674640e-3));
  p = madd(p, f, f32x4.splat(5.550332471162809e-2));
  p = madd(p, f, f32x4.splat(2.402264791363012e-1));
  p = madd(p, f, f32x4.splat(6.931472028550421e-1));
  p = madd(p, f, f32x4.splat(1.0));
  const scale = i32x4.add(i32x4.shl(t, 23), i32x4.splat(0x3f800000));
  return v128.andnot(f32x4.mul(p, scale), f32x4.lt(x, low));
}

/** e to the power x, with the argument reduced in two parts; 0 below -87.3, saturates near 88. */
@inline
export function exp(x: v128): v128 {
  const magic = f32x4.splat(12582912.0);
  const low = f32x4.splat(-87.3);
  const z = f32x4.pmax(f32x4.pmin(x, f32x4.splat(88.0)), low);
  const t = madd(z, f32x4.splat(1.44269504), magic);
  const n = f32x4.sub(t, magic);
  let f = madd(n, f32x4.splat(-0.693359375), z); // ln 2 = 0.693359375 - 2.12194440e-4
  f = madd(n, f32x4.splat(2.12194440e-4), f);
  let p = f32x4.splat(1.9875691500e-4); // Cephes' expf
  p = madd(p, f, f32x4.splat(1.3981999507e-3));
  p = madd(p, f, f32x4.splat(8.3334519073e-3));
  p = madd(p, f, f32x4.splat(4.1665795894e-2));
  p = madd(p, f, f32x4.splat(1.6666665459e-1));
  p = madd(p, f, f32x4.splat(5.0000001201e-1));
  p = f32x4.add(madd(p, f32x4.mul(f, f), f), f32x4.splat(1.0));
  const scale = i32x4.add(i32x4.shl(t, 23), i32x4.splat(0x3f800000));
  return v128.andnot(f32x4.mul(p, scale), f32x4.lt(x, low));
}

/** x / (1 + e^-x). */
@inline
export function silu(x: v128): v128 {
  return f32x4.div(x, f32x4.add(f32x4.splat(1.0), exp(f32x4.neg(x))));
}

/** GELU, tanh approximation: 0.5 x (1 + tanh u) is x sigmoid(2u), which does not cancel for negative x. */
@inline
export function gelu(x: v128): v128 {
  const u = f32x4.mul(x, madd(f32x4.mul(x, x), f32x4.splat(0.0713548163), f32x4.splat(1.5957691216)));
  return f32x4.div(x, f32x4.add(f32x4.splat(1.0), exp(f32x4.neg(u))));
}

/** The activation with this code (kernels/activation.ts). */
export function activate(code: u32, x: v128): v128 {
  if (code == 1) return silu(x);
  if (code == 2) return gelu(x);
  if (code == 3) return f32x4.pmax(x, f32x4.splat(0.0));
  if (code == 4) return f32x4.pmax(x, f32x4.mul(x, f32x4.splat(0.2)));
  return x;
}

/**
 * Four halves, sign-extended to 32 bits, as floats. Exact, subnormals, infinities and NaN included.
 *
 * No operand is a subnormal float, which processors are slow on; weights that begin at zero are subnormal halves for the
 * first steps of training. Measured 2026-11-21: times 2^112 instead, such weights made a layer of 4 rows 10 times slower.
 */
@inline
export function halves(h: v128): v128 {
  const bits = i32x4.shl(h, 13);
  // The exponent with the other bias. Below 2^-14, where it is 0, this is 2^-15 (1 + m) instead of 2^-14 m.
  const moved = i32x4.add(v128.and(bits, i32x4.splat(0x0fffe000)), i32x4.splat(0x38000000));
  const value = f32x4.add(moved, f32x4.pmin(f32x4.sub(moved, f32x4.splat(0.00006103515625)), f32x4.splat(0.0)));
  const special = v128.and(f32x4.ge(moved, f32x4.splat(65536.0)), i32x4.splat(0x7f800000));
  return v128.or(v128.or(value, special), v128.and(bits, i32x4.splat(0x80000000)));
}

/** The half at an address as a float. */
@inline
export function halfAt(from: usize): f32 {
  return f32x4.extract_lane(halves(i32x4.splat(<i32>load<i16>(from))), 0);
}
