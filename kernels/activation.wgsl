// activation: exp to 1e-7 and the activations that other kernels fuse. A shader takes the parts that it uses.

//# exp
// WGSL allows exp an error of 3 + 2|x| ulp, 3e-6 at x = -20, and drivers use it. This one: 2^n times a Taylor
// polynomial of the rest, |r| <= 0.35, whose first dropped term is 6e-9. Below -87 it gives 1.6e-38, above 88 1.7e38.
fn expAccurate(x: f32) -> f32 {
  let t = select(select(x, -87.0, x < -87.0), 88.0, x > 88.0); // keeps NaN
  let n = round(t * 1.4426950408889634);
  let r = fma(n, 2.12194440e-4, fma(n, -0.693359375, t)); // ln 2 in two parts; n times the first is exact
  var y = fma(r, 1.0 / 5040.0, 1.0 / 720.0);
  y = fma(y, r, 1.0 / 120.0);
  y = fma(y, r, 1.0 / 24.0);
  y = fma(y, r, 1.0 / 6.0);
  y = fma(y, r, 0.5);
  y = fma(y, r, 1.0);
  y = fma(y, r, 1.0);
  return y * bitcast<f32>(u32(i32(n) + 127) << 23u);
}

//# silu
fn silu(x: f32) -> f32 {
  return x / (1.0 + expAccurate(-x));
}

// With s = 1 / (1 + e) and e = exp(-u), 1 - s is e s, which loses nothing where s is near 1.
fn siluGrad(x: f32) -> f32 {
  let e = expAccurate(-x);
  let s = 1.0 / (1.0 + e);
  return fma(x * s, e * s, s);
}

//# activate
// By the flag `act`: 0 none, 1 silu, 2 gelu (tanh approximation), 3 relu, 4 leaky relu.
fn activate(x: f32) -> f32 {
  switch act {
    case 1u: { return silu(x); }
    // 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)), which loses nothing where tanh(u) is near -1.
    case 2u: { return x / (1.0 + expAccurate(-1.5957691216057308 * fma(0.044715 * x * x, x, x))); }
    case 3u: { return select(x, 0.0, x < 0.0); }
    case 4u: { return select(0.2 * x, x, x > 0.0); }
    default: { return x; }
  }
}

//# activateGrad
fn activateGrad(x: f32) -> f32 {
  switch act {
    case 1u: { return siluGrad(x); }
    case 2u: {
      let e = expAccurate(-1.5957691216057308 * fma(0.044715 * x * x, x, x));
      let s = 1.0 / (1.0 + e);
      return fma(x * s, e * s * 1.5957691216057308 * fma(0.134145 * x, x, 1.0), s);
    }
    case 3u: { return select(0.0, 1.0, x > 0.0); }
    case 4u: { return select(0.2, 1.0, x > 0.0); }
    default: { return 1.0; }
  }
}
