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

/** 2 to the power x for x up to 127; 0 from -127 down (also for -Infinity); relative error about 1e-7. */
@inline
export function exp2(x: v128): v128 {
  // 1.5 * 2^23 + 127: adding it rounds to the nearest integer, whose float exponent then stands in the low bits.
  const magic = f32x4.splat(12583039.0);
  const z = f32x4.pmax(x, f32x4.splat(-127.0));
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
  return f32x4.mul(p, i32x4.shl(t, 23)); // at -127 the exponent is 0, the float 0
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

/** 1 / (1 + 2^x). */
@inline
export function logistic2(x: v128): v128 {
  const one = f32x4.splat(1.0);
  return f32x4.div(one, f32x4.add(one, exp2(f32x4.pmin(x, f32x4.splat(127.0)))));
}

/** x / (1 + 2^u). */
@inline
function halved(x: v128, u: v128): v128 {
  return f32x4.div(x, f32x4.add(f32x4.splat(1.0), exp2(f32x4.pmin(u, f32x4.splat(127.0)))));
}

/** x / (1 + e^-x). */
@inline
export function silu(x: v128): v128 {
  return halved(x, f32x4.mul(x, f32x4.splat(-1.44269504)));
}

/**
 * GELU, tanh approximation: 0.5 x (1 + tanh u) is x sigmoid(2u), which does not cancel for negative x. The factors are
 * those of -2u, in exponents of 2.
 */
@inline
export function gelu(x: v128): v128 {
  return halved(x, f32x4.mul(x, madd(f32x4.mul(x, x), f32x4.splat(-0.102943240), f32x4.splat(-2.30220820))));
}

@inline
function activation(code: u32, x: v128): v128 {
  if (code == 1) return silu(x);
  if (code == 2) return gelu(x);
  if (code == 3) return f32x4.pmax(x, f32x4.splat(0.0));
  if (code == 4) return f32x4.pmax(x, f32x4.mul(x, f32x4.splat(0.2)));
  return x;
}

/** The activation with this code (kernels/activation.ts). */
export function activate(code: u32, x: v128): v128 {
  return activation(code, x);
}

/** `bytes` bytes of a row through the activation with this code. A loop for each: a call per vector costs as much again. */
export function activateRow(code: u32, x: usize, bytes: usize, to: usize): void {
  const end = x + (bytes & ~15);
  if (code == 1) {
    for (; x < end; x += 16, to += 16) v128.store(to, silu(v128.load(x)));
  } else if (code == 2) {
    for (; x < end; x += 16, to += 16) v128.store(to, gelu(v128.load(x)));
  } else {
    for (; x < end; x += 16, to += 16) v128.store(to, activation(code, v128.load(x)));
  }
  for (let rest = bytes & 15; rest > 0; rest -= 4) {
    store<f32>(to, f32x4.extract_lane(activate(code, v128.load_splat<f32>(x)), 0));
    x += 4;
    to += 4;
  }
}

/**
 * Fetches `count` rows of `bytes` bytes, `stride` bytes apart, into the caches. Loads that wait for nothing take a fraction
 * of the time that a product would wait for one cache line after the other: linear layers of FAR-B on 64 rows gain 1.08
 * times (EPYC, one thread, 2026-11-21). What was read goes to 16 bytes at `sink`, or the compiler would drop the loads.
 */
export function prefetch(from: usize, stride: usize, count: i32, bytes: usize, sink: usize): void {
  let all = f32x4.splat(0.0);
  for (; count > 0; count--) {
    for (let at = from, end = from + bytes; at < end; at += 64) all = v128.or(all, v128.load(at));
    from += stride;
  }
  v128.store(sink, all);
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
