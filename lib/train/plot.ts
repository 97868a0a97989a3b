/**
 * The curve of a training run as an SVG picture.
 *
 * @module
 */

/** A line of the plot. */
export interface Curve {
  /** Named in the legend. */
  readonly name: string;
  /** Steps and values, in order of steps. */
  readonly points: readonly (readonly [step: number, value: number])[];
}

const WIDTH = 720, HEIGHT = 400, LEFT = 64, RIGHT = 16, TOP = 40, BOTTOM = 44;
/** Told apart by people with any kind of colour vision (Okabe and Ito). */
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/** About `count` round numbers between two others. */
function ticks(from: number, to: number, count: number): number[] {
  const raw = (to - from) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((m) => m * power >= raw) ?? 10);
  const out: number[] = [];
  for (let i = Math.ceil(from / step); i * step <= to * (1 + 1e-9); i++) {
    out.push(Number((i * step).toPrecision(12)));
  }
  return out;
}

const escape = (text: string) => text.replace(/[<>&"]/g, (c) => `&#${c.charCodeAt(0)};`);

/** Fewer points than pixels: the mean of what falls together. */
function thinned(points: Curve["points"], count: number): Curve["points"] {
  if (points.length <= count) return points;
  const per = points.length / count;
  return Array.from({ length: count }, (_, i) => {
    const own = points.slice(Math.floor(i * per), Math.floor((i + 1) * per));
    const mean = (axis: 0 | 1) => own.reduce((a, p) => a + p[axis], 0) / own.length;
    return [mean(0), mean(1)] as const;
  });
}

/**
 * Curves over steps, with a logarithmic value axis where they span more than a factor of ten. Values that are not finite
 * are left out.
 *
 * @param title Written above.
 * @param curves At most four.
 */
export function curvesSvg(title: string, curves: readonly Curve[]): string {
  const clean = curves.map((c) => ({ ...c, points: c.points.filter(([, v]) => Number.isFinite(v)) }));
  const all = clean.flatMap((c) => c.points);
  const steps = all.map(([s]) => s), values = all.map(([, v]) => v);
  const least = (v: number[], none: number) => v.reduce((a, b) => Math.min(a, b), v[0] ?? none);
  const most = (v: number[], none: number) => v.reduce((a, b) => Math.max(a, b), v[0] ?? none);
  const s0 = least(steps, 0), s1 = Math.max(most(steps, 1), s0 + 1);
  let low = least(values, 0), high = most(values, 1);
  const log = low > 0 && high / low > 10;
  if (!log) {
    const pad = (high - low || 1) * 0.05;
    [low, high] = [low - pad, high + pad];
  }
  const scale = (v: number) => log ? Math.log10(v) : v;
  const x = (s: number) => LEFT + (s - s0) / (s1 - s0) * (WIDTH - LEFT - RIGHT);
  const y = (v: number) =>
    TOP + (scale(high) - scale(v)) / (scale(high) - scale(low)) * (HEIGHT - TOP - BOTTOM);
  const marks = log ? ticks(Math.log10(low), Math.log10(high), 5).map((e) => 10 ** e) : ticks(low, high, 6);
  const out = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>`,
    `<text x="${LEFT}" y="22" font-size="15">${escape(title)}</text>`,
  ];
  for (const v of marks) {
    const at = y(v).toFixed(1), label = Number(v.toPrecision(3));
    out.push(`<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${at}" y2="${at}" stroke="#ddd"/>`);
    out.push(`<text x="${LEFT - 6}" y="${at}" text-anchor="end" dominant-baseline="middle">${label}</text>`);
  }
  for (const s of ticks(s0, s1, 7)) {
    out.push(`<text x="${x(s).toFixed(1)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle">${s}</text>`);
  }
  out.push(`<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 8}" text-anchor="middle">step</text>`);
  clean.forEach(({ name, points }, i) => {
    const path = thinned(points, WIDTH).map(([s, v]) => `${x(s).toFixed(1)},${y(v).toFixed(1)}`).join(" ");
    const colour = COLOURS[i % COLOURS.length], at = WIDTH - RIGHT - 130 * (clean.length - i);
    out.push(`<polyline fill="none" stroke="${colour}" stroke-width="1.5" points="${path}"/>`);
    if (points.length === 1) {
      out.push(
        `<circle cx="${x(points[0][0]).toFixed(1)}" cy="${
          y(points[0][1]).toFixed(1)
        }" r="3" fill="${colour}"/>`,
      );
    }
    out.push(`<rect x="${at}" y="14" width="16" height="4" fill="${colour}"/>`);
    out.push(`<text x="${at + 22}" y="20">${escape(name)}</text>`);
  });
  return [...out, "</svg>", ""].join("\n");
}
