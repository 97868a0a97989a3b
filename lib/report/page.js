// The behaviour of a report: a player over frames or training steps, curves that mark its place and say their values there,
// tables that sort. Nothing is loaded; what there is to show stands in the page.

const byId = (id) => document.getElementById(id);
const { player, charts } = JSON.parse(byId("data").textContent);
const figures = [...document.querySelectorAll("figure.chart")];
const scrubber = byId("scrubber");

/** Draws what belongs to a position; replaced by the kind of viewer that the page has. */
let draw = (_index) => {};
let index = 0;

/** Index of the last number that is not above `value`; -1 where all are. */
function lastUpTo(numbers, value) {
  let low = 0, high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function nearest(numbers, value) {
  const at = Math.max(0, lastUpTo(numbers, value));
  return at + 1 < numbers.length && numbers[at + 1] - value < value - numbers[at] ? at + 1 : at;
}

const numbersOf = (text) => text.split(" ").map(Number);

/** Where a chart's x begins and ends, in its unit and in its pixels. */
function axis(svg) {
  const [x0, x1] = numbersOf(svg.dataset.domain), [p0, p1] = numbersOf(svg.dataset.range);
  return { x0, x1, toPixel: (x) => p0 + (x - x0) / (x1 - x0) * (p1 - p0), p0, p1 };
}

function markCharts(position) {
  for (const [i, figure] of figures.entries()) {
    const svg = figure.querySelector("svg"),
      cursor = svg.querySelector(".cursor"),
      { x0, x1, toPixel } = axis(svg);
    const inside = position >= x0 && position <= x1;
    cursor.style.display = inside ? "" : "none";
    cursor.setAttribute("x1", toPixel(position));
    cursor.setAttribute("x2", toPixel(position));
    const { digits, curves } = charts[i];
    const say = (value) => digits === null ? String(Number(value.toPrecision(4))) : value.toFixed(digits);
    for (const [c, shown] of [...figure.querySelectorAll(".legend b")].entries()) {
      const { x, y, error } = curves[c], at = lastUpTo(x, position), value = y[at];
      shown.textContent = !inside || at < 0
        ? ""
        : value === null
        ? "∞"
        : say(value) + (error ? ` ± ${say(error[at])}` : "");
    }
  }
}

/** Goes to a position by its index; everything on the page follows. */
function go(to) {
  index = Math.min(player.positions.length - 1, Math.max(0, to));
  const position = player.positions[index], { unit, predictedFrom } = player;
  const kind = predictedFrom === null ? "" : position < predictedFrom ? ", context" : ", predicted";
  const last = player.positions[player.positions.length - 1];
  scrubber.value = index;
  scrubber.setAttribute("aria-valuetext", `${unit} ${position}${kind}`);
  byId("position").textContent = `${unit} ${position} of ${last}${kind}`;
  draw(index);
  markCharts(position);
}

/** Panels of frames, each from a sprite of the sheets. */
async function framePlayer() {
  const { sprites: { width, height, columns, perSheet }, panels, predictedFrom } = player;
  const sheets = [...document.querySelectorAll("img.sprites")], difference = byId("difference");
  await Promise.all(sheets.map((sheet) => sheet.decode()));
  const screens = panels.map((_, i) => byId(`panel-${i}`).getContext("2d", { willReadFrequently: true }));
  const truth = panels.findIndex((panel) => !panel.predicted);
  const show = (screen, cell) => {
    screen.clearRect(0, 0, width, height);
    if (cell < 0) return;
    const place = cell % perSheet;
    const left = place % columns * width, top = Math.floor(place / columns) * height;
    screen.drawImage(sheets[Math.floor(cell / perSheet)], left, top, width, height, 0, 0, width, height);
  };
  const subtract = (screen, real) => {
    const made = screen.getImageData(0, 0, width, height),
      other = real.getImageData(0, 0, width, height).data;
    for (let i = 0; i < made.data.length; i++) {
      if (i % 4 !== 3) made.data[i] = Math.min(255, 4 * Math.abs(made.data[i] - other[i]));
    }
    screen.putImageData(made, 0, 0);
  };
  draw = (at) => {
    panels.forEach(({ cells, predicted }, i) => {
      show(screens[i], cells[at]);
      const edge = cells[at] < 0
        ? "none"
        : predicted && player.positions[at] >= (predictedFrom ?? 0)
        ? "predicted"
        : "given";
      screens[i].canvas.dataset.edge = edge;
    });
    if (!difference?.checked) return;
    panels.forEach(({ cells, predicted }, i) => {
      if (predicted && cells[at] >= 0 && panels[truth].cells[at] >= 0) subtract(screens[i], screens[truth]);
    });
  };
  difference?.addEventListener("change", () => draw(index));
}

/** Pictures of which one is seen. */
function picturePlayer(pictures) {
  draw = (at) => pictures.forEach((picture, i) => picture.hidden = i !== at);
}

let playing = null;
/** When the speed was last chosen, and the positions that were shown since. */
let began = 0, shown = 0;

function pause() {
  if (playing !== null) cancelAnimationFrame(playing);
  playing = null;
  const play = byId("play");
  if (play) play.textContent = "▶";
}

function count() {
  began = performance.now();
  shown = 0;
}

function tick(now) {
  const due = Math.floor((now - began) / 1000 * player.fps * Number(byId("speed")?.value ?? 1));
  if (due > shown) {
    go((index + due - shown) % player.positions.length);
    shown = due;
  }
  playing = requestAnimationFrame(tick);
}

function start() {
  count();
  if (index === player.positions.length - 1) go(0);
  byId("play").textContent = "⏸";
  playing = requestAnimationFrame(tick);
}

const toggle = () => playing === null ? start() : pause();

function step(by) {
  pause();
  go(index + by);
}

function onKey(event) {
  const { key, target, shiftKey } = event;
  if (
    event.ctrlKey || event.metaKey || event.altKey ||
    target.closest("select, input:not([type=range]), .sortable")
  ) return;
  const by = shiftKey ? 10 : 1;
  const act = {
    " ": () => byId("play") && toggle(),
    ArrowLeft: () => step(-by),
    ArrowRight: () => step(by),
    Home: () => step(-index),
    End: () => step(player.positions.length),
    d: () => byId("difference")?.click(),
  }[key];
  if (!act || (key === " " && target.closest("button, summary, a"))) return;
  event.preventDefault();
  act();
}

/** A click or a drag in a chart goes to that place. */
function seekIn(svg) {
  const seek = (event) => {
    const { left, width } = svg.getBoundingClientRect(), { x0, x1, p0, p1 } = axis(svg);
    const pixel = (event.clientX - left) / width * svg.viewBox.baseVal.width;
    pause();
    go(nearest(player.positions, x0 + (pixel - p0) / (p1 - p0) * (x1 - x0)));
  };
  svg.addEventListener("pointerdown", (event) => {
    svg.setPointerCapture(event.pointerId);
    seek(event);
  });
  svg.addEventListener("pointermove", (event) => event.buttons && seek(event));
}

/** Sorts rows by the column whose head was pressed: numbers downwards first, texts upwards; empty cells come last. */
function sortBy(head) {
  const body = head.closest("table").tBodies[0],
    column = head.cellIndex,
    before = head.getAttribute("aria-sort");
  const numeric = head.classList.contains("number");
  const direction = before === null ? (numeric ? -1 : 1) : before === "ascending" ? -1 : 1;
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  const textOf = (row) => row.cells[column].textContent,
    valueOf = (row) => Number(row.cells[column].dataset.value);
  const [filled, empty] = [true, false].map((some) =>
    [...body.rows].filter((row) => (textOf(row) !== "") === some)
  );
  filled.sort((a, b) => direction * (numeric ? valueOf(a) - valueOf(b) : textOf(a).localeCompare(textOf(b))));
  body.append(...filled, ...empty);
}

for (const button of document.querySelectorAll("th > button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}

if (player) {
  if (player.sprites) await framePlayer();
  const pictures = [...document.querySelectorAll("figure.picture")];
  if (pictures.length > 0) picturePlayer(pictures);
  scrubber.addEventListener("input", () => {
    pause();
    go(Number(scrubber.value));
  });
  byId("play")?.addEventListener("click", toggle);
  byId("speed")?.addEventListener("change", count);
  byId("back")?.addEventListener("click", () => step(-1));
  byId("on")?.addEventListener("click", () => step(1));
  document.addEventListener("keydown", onKey);
  figures.forEach((figure) => seekIn(figure.querySelector("svg")));
  go(Math.max(0, player.positions.indexOf(player.start)));
}
document.documentElement.dataset.ready = "true";
