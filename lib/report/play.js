// The page of `far.ts play`: a key or a button is an action, the answer is the next frame.
const STRIP = 16;
const at = (id) => document.getElementById(id);
let keys = {}, busy = false, waiting = null;

async function ask(path, body) {
  const answer = await fetch(path, body === undefined ? {} : { method: "POST", body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(await answer.text());
  return await answer.json();
}

function addToStrip(url) {
  const image = document.createElement("img");
  image.src = url;
  image.alt = "";
  at("strip").append(image);
  while (at("strip").children.length > STRIP) at("strip").firstChild.remove();
}

function show({ frame, truth, text }) {
  at("frame").src = frame;
  addToStrip(frame);
  if (truth) at("truth").src = truth;
  at("facts").textContent = text;
}

// One frame at a time. Of keys that are pressed meanwhile the last one counts, so that a held key never runs ahead.
async function act(action) {
  if (busy) {
    waiting = action;
    return;
  }
  busy = true;
  try {
    show(await ask("act", { action }));
    at("message").textContent = "";
  } catch (error) {
    at("message").textContent = error.message;
    waiting = null;
  } finally {
    busy = false;
    document.documentElement.dataset.frames = Number(document.documentElement.dataset.frames ?? 0) + 1;
  }
  const next = waiting;
  waiting = null;
  if (next !== null) await act(next);
}

async function record() {
  at("message").textContent = "recording ...";
  try {
    at("message").textContent = `wrote ${(await ask("record", {})).files.join(", ")}`;
  } catch (error) {
    at("message").textContent = error.message;
  }
}

function toggleTruth() {
  at("beside").hidden = !at("beside").hidden;
  at("show").textContent = at("beside").hidden ? "show the world (T)" : "hide the world (T)";
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key in keys) act(keys[event.key]);
  else if (event.key.toLowerCase() === "t" && !at("show").hidden) toggleTruth();
  else if (event.key.toLowerCase() === "r" && !event.repeat) record();
  else return;
  event.preventDefault();
});
at("show").addEventListener("click", toggleTruth);
at("record").addEventListener("click", record);

const { title, stamp, names, strip, truth, ...more } = await ask("state");
keys = more.keys;
at("title").textContent = title;
at("stamp").textContent = stamp;
at("stamp").hidden = stamp === "";
at("show").hidden = !truth;
if (truth) at("truth").src = truth;
for (const [action, name] of names.entries()) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.title = Object.keys(keys).filter((key) => keys[key] === action).join(" or ");
  button.addEventListener("click", () => act(action));
  at("actions").append(button);
}
strip.forEach(addToStrip);
at("frame").src = strip.at(-1);
document.documentElement.dataset.ready = "true";
