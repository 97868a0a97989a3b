/**
 * The part of a report that plays: panels of frames or pictures over one scrubber, and the charts that it marks.
 *
 * @module
 */
import { concatFrames, type Frames } from "../io/frames.ts";
import { type Html, html, pngUrl, raw } from "../display/html.ts";
import { type Chart, chartSvg, thinned } from "../display/plot.ts";
import { fitting, spritesOf, thinFrames } from "./sprites.ts";

/** A clip beside others; all begin with the same context. */
export interface Track {
  /** A few words. */
  readonly name: string;
  /** Frames after the context; may be fewer than those of others. */
  readonly frames: Frames;
  /** Whether a model made it. */
  readonly predicted: boolean;
}

/** Clips that are played together. */
export interface Clips {
  readonly context: Frames;
  readonly tracks: readonly Track[];
  /** Frames per second. */
  readonly fps: number;
}

/** Input of the page's script; see page.js. */
export interface Player {
  /** Unit of a position: `frame` or `step`. */
  readonly unit: string;
  /** Numbers of frames or steps, ascending. */
  readonly positions: readonly number[];
  /** Position to begin with. */
  readonly start: number;
  /** First position that a model made; null where it made all, or none. */
  readonly predictedFrom: number | null;
  readonly fps: number;
  /** Layout of the sprite sheets; null where there are none. */
  readonly sprites: {
    readonly height: number;
    readonly width: number;
    readonly columns: number;
    readonly perSheet: number;
  } | null;
  /** By panel: for each position the number of its sprite, or -1. */
  readonly panels: readonly {
    readonly name: string;
    readonly predicted: boolean;
    readonly cells: readonly number[];
  }[];
}

/** Markup, with what the script needs for it. */
export interface Viewer {
  readonly body: Html;
  readonly player: Player;
}

/** Clips beyond this many are not shown. */
export const MOST_TRACKS = 8;

const button = (id: string, label: string, text: string, keys: string) =>
  html`
    <button type="button" id="${id}" aria-label="${label}"
      title="${label} (${keys})">${text}</button>
  `;

const SPEEDS = [0.25, 0.5, 1, 2, 4];

/** Controls beside the scrubber. */
interface Controls {
  readonly play?: boolean;
  readonly speed?: boolean;
  readonly difference?: boolean;
}

/** Buttons, scrubber and number of the frame. */
function controls({ positions, start, unit }: Player, { play, speed, difference }: Controls): Html {
  return html`<div class="controls" role="group" aria-label="Playback">
${
    play && [
      button("play", "Play or pause", "▶", "space"),
      button("back", `Previous ${unit}`, "‹", "←"),
      button("on", `Next ${unit}`, "›", "→"),
    ]
  }
<input type="range" id="scrubber" aria-label="${unit}" min="0" max="${positions.length - 1}" step="1"
 value="${positions.indexOf(start)}">
<output id="position" for="scrubber">${unit} ${start}</output>
${
    speed && html`<label>speed <select id="speed">${
      SPEEDS.map((s) =>
        html`
          <option value="${s}" ${s === 1 && raw(" selected")}>${s}×</option>
        `
      )
    }</select></label>`
  }
${
    difference &&
    html`<label title="d"><input type="checkbox" id="difference"> difference from truth, ×4</label>`
  }
</div>`;
}

/**
 * Clips side by side over a scrubber.
 *
 * @param most Pixels of all frames together, see `MOST_PIXELS` in sprites.ts.
 */
export function clipViewer({ context, tracks: all, fps }: Clips, most?: number): Viewer {
  const tracks = all.slice(0, MOST_TRACKS);
  const longest = Math.max(...tracks.map((t) => t.frames.frames)), total = context.frames + longest;
  const { height, width } = tracks[0].frames;
  const parts = [context, ...tracks.map((t) => t.frames)];
  const fit = fitting(parts.reduce((n, p) => n + p.frames, 0), height, width, most);
  // The first predicted frame is always among those that are shown.
  const first = context.frames % fit.every;
  const positions: number[] = [];
  for (let p = first; p < total; p += fit.every) positions.push(p);
  const kept = parts.map((part, i) => thinFrames(part, i === 0 ? first : 0, fit));
  const sprites = spritesOf(concatFrames(kept.filter((part) => part.frames > 0)));
  let next = kept[0].frames;
  const panels = tracks.map(({ name, predicted }, i) => {
    const begin = next, count = kept[i + 1].frames;
    next += count;
    const cells = positions.map((_, at) => {
      const after = at - kept[0].frames;
      return after < 0 ? at : after < count ? begin + after : -1;
    });
    return { name, predicted, cells };
  });
  const player: Player = {
    ...{ unit: "frame", positions, fps: fps / fit.every, panels },
    start: context.frames,
    predictedFrom: context.frames === 0 ? null : context.frames,
    sprites: {
      ...{ height: sprites.height, width: sprites.width },
      ...{ columns: sprites.columns, perSheet: sprites.perSheet },
    },
  };
  const scale = Math.max(
    Math.ceil(256 / sprites.width),
    Math.floor((tracks.length > 3 ? 256 : 384) / sprites.width),
    1,
  );
  const notes = [
    fit.every > 1 && `Every ${ordinal(fit.every)} frame is in this page.`,
    fit.shrink > 1 && `Frames are shown at 1/${fit.shrink} of their size.`,
    tracks.length < all.length && `${tracks.length} of ${all.length} clips are in this page.`,
    (fit.every > 1 || fit.shrink > 1 || tracks.length < all.length) &&
    "All frames are in the videos beside it.",
  ].filter((note) => note !== false);
  const body = html`<section aria-label="Frames" id="viewer">
<div class="panels" style="--width:${sprites.width * scale}px">
${
    tracks.map(({ name }, i) =>
      html`
        <figure class="panel">
          <figcaption>${name}</figcaption>
          <canvas id="panel-${i}" width="${sprites.width}" height="${sprites.height}" role="img"
            aria-label="${name}"></canvas>
        </figure>
      `
    )
  }</div>
${controls(player, { play: true, speed: true, difference: new Set(tracks.map((t) => t.predicted)).size > 1 })}
${notes.length > 0 && html`<p class="note">${notes.join(" ")}</p>`}
<noscript><p class="note">The scrubber needs JavaScript; the contact sheet below shows the frames without it.</p></noscript>
<div hidden>${
    sprites.sheets.map((sheet) =>
      html`
        <img class="sprites" alt="" src="${pngUrl(sheet)}">
      `
    )
  }</div>
</section>`;
  return { body, player };
}

const ordinal = (n: number) => n === 2 ? "second" : n === 3 ? "third" : `${n}th`;

/** A picture at a position. */
export interface Picture {
  readonly position: number;
  /** Description of the picture. */
  readonly alt: string;
  /** PNG. */
  readonly png: Uint8Array;
}

/** Pictures over a scrubber, one at a time; without script all below each other. */
export function pictureViewer(unit: string, pictures: readonly Picture[]): Viewer {
  const positions = pictures.map((p) => p.position);
  const player: Player = {
    ...{ unit, positions, predictedFrom: null, fps: 2, sprites: null, panels: [] },
    start: positions[positions.length - 1],
  };
  const body = html`<section aria-label="Samples" id="viewer">
${controls(player, { play: true })}
<div class="pictures">${
    pictures.map(({ alt, png, position }) =>
      html`
        <figure class="picture"
          data-position="${position}"><figcaption>${unit} ${position}</figcaption><img alt="${alt}" src="${pngUrl(
            png,
          )}"></figure>
      `
    )
  }</div></section>`;
  return { body, player };
}

/** A scrubber for charts alone. */
export function chartScrubber(unit: string, positions: readonly number[]): Viewer {
  const player: Player = {
    ...{ unit, positions, predictedFrom: null, fps: 1, sprites: null, panels: [] },
    start: unit === "step" ? positions[positions.length - 1] : positions[0],
  };
  return {
    body: html`<section aria-label="Place in the curves" id="viewer">${controls(player, {})}</section>`,
    player,
  };
}

/** Data that the script reads at the place of the scrubber: one entry per curve of a chart. */
export interface ChartData {
  /** Digits after the point; null for four that count. */
  readonly digits: number | null;
  readonly curves: readonly {
    readonly x: readonly number[];
    readonly y: readonly (number | null)[];
    readonly error: readonly number[] | null;
  }[];
}

/**
 * A chart with its legend, which says the values at the place of the scrubber.
 *
 * @param digits Digits after the point; null for four that count.
 */
export function chartFigure(
  chart: Chart,
  digits: number | null,
): { readonly body: Html; readonly data: ChartData } {
  const round = (v: number) => Number(v.toPrecision(6));
  const body = html`
    <figure class="chart"><figcaption>${chart.title}</figcaption>
    <ul class="legend">${chart.curves.map(({ name }, i) =>
      html`<li><i style="--c:var(--c${i % 8})"></i>${name} <b></b></li>`
    )}</ul>
    ${raw(chartSvg(chart))}</figure>
  `;
  const curves = chart.curves.map(({ points: all }) => {
    const points = thinned(all), banded = points.length > 0 && points.some((p) => (p[2] ?? 0) > 0);
    return {
      x: points.map((p) => round(p[0])),
      y: points.map((p) => Number.isFinite(p[1]) ? round(p[1]) : null),
      error: banded ? points.map((p) => round(p[2] ?? 0)) : null,
    };
  });
  return { body, data: { digits, curves } };
}
