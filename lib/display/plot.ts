/**
 * Line charts by Observable Plot, drawn into a document without a browser. Loading this module takes some 0.2 s (cpu,
 * 2026-11-21), so callers import it where they need it.
 *
 * @module
 */
// deno-lint-ignore no-import-prefix -- lib/ is also imported where no import map is
import * as Plot from "npm:@observablehq/plot@0.6.17";
// deno-lint-ignore no-import-prefix -- as above
import { parseHTML } from "npm:linkedom@0.18.12";
import { escapeHtml } from "./html.ts";

/** A point of a curve, with the half width of the band around it where there is one. */
export type Point = readonly [x: number, y: number, error?: number];

/** A line of a chart. */
export interface Curve {
  /** Named in the legend. */
  readonly name: string;
  /** In order of x. A y that is not finite leaves a gap. */
  readonly points: readonly Point[];
}

/** A chart of one or more curves. */
export interface Chart {
  /** Alternative text. */
  readonly title: string;
  /** Unit of x, e.g. `frame`. */
  readonly x: string;
  /** Quantity and unit of y. */
  readonly y: string;
  /** Told apart by colour, in this order. */
  readonly curves: readonly Curve[];
  /** A horizontal line at this y. */
  readonly rule?: number;
}

/** Told apart by people with any kind of colour vision (Okabe and Ito, 2008). */
export const COLOURS: readonly string[] = [
  "#0072b2",
  "#d55e00",
  "#009e73",
  "#cc79a7",
  "#e69f00",
  "#56b4e9",
  "#9b8700",
  "#777777",
];

const WIDTH = 720, HEIGHT = 260, LEFT = 56, RIGHT = 16, TOP = 24, BOTTOM = 36;

/** A curve with at most as many points as the chart has pixels: the mean of what falls together. */
export function thinned(points: readonly Point[], most: number = WIDTH): readonly Point[] {
  if (points.length <= most) return points;
  const per = points.length / most;
  return Array.from({ length: most }, (_, i) => {
    const own = points.slice(Math.floor(i * per), Math.floor((i + 1) * per));
    const finite = own.filter(([, y]) => Number.isFinite(y));
    const mean = (of: readonly Point[], axis: 0 | 1 | 2) =>
      of.reduce((sum, p) => sum + (p[axis] ?? 0), 0) / of.length;
    const error = finite.length > 0 && finite[0][2] !== undefined ? [mean(finite, 2)] as const : [];
    return [mean(own, 0), mean(finite, 1), ...error] as Point;
  });
}

const exponential = (value: number) => value === 0 ? "0" : Number(value.toPrecision(3)).toExponential();

/** A logarithmic value axis for values above zero that span more than a factor of ten, else a linear one. */
function valueAxis(values: readonly number[]) {
  if (values.length === 0) return { domain: [0, 1] };
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  if (low <= 0 || high / low <= 10) {
    // A constant stands in the middle; numbers such as a learning rate of 1e-5 are short enough for the margin.
    const domain = low < high ? {} : { domain: [Math.min(0, 2 * low), Math.max(0, 2 * low) || 1] };
    const largest = Math.max(Math.abs(low), Math.abs(high));
    return { nice: true, ticks: 6, ...domain, ...(largest < 5e-3 ? { tickFormat: exponential } : {}) };
  }
  const decades = Math.log10(high / low), first = Math.ceil(Math.log10(low));
  const powers = Array.from(
    { length: Math.floor(Math.log10(high)) - first + 1 },
    (_, i) => 10 ** (first + i),
  );
  return { type: "log" as const, tickFormat: "~g", ticks: decades > 3 ? powers : 6 };
}

interface Row {
  readonly x: number;
  readonly y: number;
  readonly error: number;
  readonly name: string;
}

/** Style of a chart. */
interface Look {
  /** A colour by curve. */
  readonly colours: readonly string[];
  /** The title and the names of the curves are written into the picture, which is a file of its own. */
  readonly alone: boolean;
}

function draw({ title, x, y, curves, rule }: Chart, { colours, alone }: Look): string {
  const { document } = parseHTML("<html><body></body></html>") as unknown as { document: never };
  const rows = curves.flatMap(({ name, points }): Row[] =>
    thinned(points).map(([x, y, error = NaN]) => ({ x, y: Number.isFinite(y) ? y : NaN, error, name }))
  );
  const finite = rows.filter((r) => Number.isFinite(r.y));
  const ends = rows.map((r) => r.x);
  const low = ends.reduce((a, b) => Math.min(a, b), Infinity),
    high = ends.reduce((a, b) => Math.max(a, b), -Infinity);
  const domain = low < high ? [low, high] : low === high ? [low - 1, high + 1] : [0, 1];
  const channels = { x: "x", y: "y", z: "name", stroke: "name" } as const;
  const single = curves.filter(({ points }) => points.length === 1).map((c) => c.name);
  const top = alone ? TOP + 18 : TOP;
  const svg = Plot.plot({
    document,
    ...{ width: WIDTH, height: alone ? 400 : HEIGHT },
    ...{ marginLeft: LEFT, marginRight: RIGHT, marginTop: top, marginBottom: BOTTOM },
    style: alone ? { background: "white", color: "black" } : { background: "none", fontSize: "12px" },
    x: { label: x, domain, tickFormat: (v: number) => String(v) },
    y: {
      label: y,
      grid: true,
      labelAnchor: alone ? "center" as const : "top" as const,
      ...valueAxis(finite.map((r) => r.y)),
    },
    color: { domain: curves.map((c) => c.name), range: curves.map((_, i) => colours[i % colours.length]) },
    marks: [
      ...(rule === undefined ? [] : [Plot.ruleY([rule], { strokeOpacity: 0.5 })]),
      Plot.areaY(finite.filter((r) => r.error > 0), {
        ...{ x: "x", z: "name", fill: "name", fillOpacity: 0.18 },
        ...{ y1: (r: Row) => r.y - r.error, y2: (r: Row) => r.y + r.error },
      }),
      Plot.line(rows, { ...channels, strokeWidth: 1.6, strokeLinejoin: "round", strokeLinecap: "round" }),
      Plot.dot(finite.filter((r) => single.includes(r.name)), { ...channels, fill: "name", r: 3 }),
      ...(alone
        ? [
          Plot.text([title], { frameAnchor: "top-left", dx: 4 - LEFT, dy: -26, fontSize: 14 }),
          ...curves.map(({ name }, i) =>
            Plot.text([`— ${name}`], {
              ...{ frameAnchor: "top-right" as const, dy: 4 + 16 * i, fontSize: 12 },
              fill: colours[i % colours.length],
            })
          ),
        ]
        : []),
    ],
  }) as unknown as { readonly outerHTML: string };
  // Written here because linkedom leaves a `<` in attributes as it is, which XML forbids.
  const attributes = {
    xmlns: "http://www.w3.org/2000/svg",
    role: "img",
    "aria-label": `${title}: ${y} by ${x}; ${curves.map((c) => c.name).join(", ")}`,
    "data-domain": domain.join(" "),
    "data-range": `${LEFT} ${WIDTH - RIGHT}`,
  };
  const text = Object.entries(attributes).map(([name, value]) => `${name}="${escapeHtml(value)}"`).join(" ");
  return svg.outerHTML.replace(/^<svg/, () => `<svg ${text}`);
}

/** A chart as SVG for a page that defines the colours `--c0`, `--c1`, …, with a line that marks a place on x. */
export function chartSvg(chart: Chart): string {
  const svg = draw(chart, { colours: COLOURS.map((_, i) => `var(--c${i})`), alone: false });
  const cursor = `<line class="cursor" y1="${TOP}" y2="${HEIGHT - BOTTOM}" x1="0" x2="0"/>`;
  return svg.replace(/<\/svg>$/, `${cursor}</svg>`);
}

/** A chart as a picture of its own, with its title and the names of its curves in it: SVG. */
export const chartPicture = (chart: Chart): string => draw(chart, { colours: COLOURS, alone: true });

/**
 * Curves over training steps as an SVG file, with a logarithmic value axis where they span more than a factor of ten. Values
 * that are not finite are left out.
 *
 * @param title Written above.
 * @param curves The lines.
 */
export function curvesSvg(title: string, curves: readonly Curve[]): string {
  return `${chartPicture({ title, x: "step", y: "loss", curves })}\n`;
}
