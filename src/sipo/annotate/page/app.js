// The annotator's page. Every answer is sent until the server has kept it; nothing else is shown before.
import { Together, Zoom, load, release } from "./media.js";

const $ = (id) => document.getElementById(id);
const LETTERS = "ABCDEFGHI";
let texts, config, state, shown = null, busy = true, shownAt = 0, videos = null, zoom = null, ranks = {}, resting = false;
const loaded = new Map(); // slot -> promise of the results' elements and of the source's, if the item has one

const say = (key, values = {}) => Object.entries(values).reduce((text, [name, value]) => text.replaceAll(`{${name}}`, value), texts[key]);
const announce = (text, lasting = false) => { $("status").textContent = text; $("status").classList.toggle("lasting", lasting); };
const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

async function ask(path, body) {
  // Tries until there is an answer: a lost connection or a server that starts again loses nothing.
  for (let pause = 0.5; ; pause = Math.min(pause * 2, 8)) {
    try {
      const request = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
      const answer = await fetch(path, request);
      if (answer.status === 401 || answer.status === 403) { message("", say("refused_link")); throw new Refusal(); }
      if (answer.status < 500) { if ($("status").classList.contains("lasting")) announce(""); return { code: answer.status, ...(await answer.json()) }; }
    } catch (error) {
      if (error instanceof Refusal) throw error;
    }
    announce(texts ? say("offline") : "...", true);
    await wait(pause);
  }
}
class Refusal extends Error {}

function freshId() { return [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join(""); }

function fetched(item) {
  if (!loaded.has(item.slot)) {
    const media = Promise.all([load(item.media, config.kind), source(item)]);
    media.catch(() => loaded.delete(item.slot));
    loaded.set(item.slot, media);
  }
  return loaded.get(item.slot);
}

const source = (item) => load(item.source ? [item.source] : [], "image");

async function show() {
  $("progress").max = state.total || 1;
  $("progress").value = state.answered;
  $("count").textContent = say("progress", state);
  $("undo").disabled = !state.last || !["open", "done"].includes(state.status);
  if (state.status !== "open") return message(say(`${state.status}_title`), say(state.status));
  if (resting) return rest();
  busy = true;
  const item = state.items[0];
  let elements, sources;
  try {
    [elements, sources] = await fetched(item);
  } catch {
    await wait(0.5); // the names were used or forgotten, for example because the server started again
    state = await ask("state");
    return show();
  }
  clear();
  shown = item;
  ranks = Object.fromEntries(config.dimensions.map((dimension) => [dimension, []]));
  $("prompt").textContent = item.prompt;
  $("source").hidden = !sources.length;
  for (const picture of sources) {
    const frame = Object.assign(document.createElement("div"), { className: "frame" });
    picture.alt = say("source");
    frame.append(picture);
    $("source").append(frame);
    new Zoom([frame]);
  }
  $("results").dataset.count = elements.length;
  const frames = elements.map((element, n) => {
    const figure = document.createElement("figure"), frame = document.createElement("div"), caption = document.createElement("figcaption");
    frame.className = "frame";
    caption.textContent = config.mode === "ranking" ? n + 1 : LETTERS[n];
    element[element.tagName === "IMG" ? "alt" : "ariaLabel"] = `${say("result")} ${caption.textContent}`;
    frame.append(element);
    figure.append(frame, caption);
    $("results").append(figure);
    return frame;
  });
  zoom = new Zoom(frames);
  const moving = elements.filter((element) => element.tagName === "VIDEO");
  videos = moving.length ? new Together(moving) : null;
  $("play").hidden = !videos;
  if (videos && !matchMedia("(prefers-reduced-motion: reduce)").matches) videos.play();
  playLabel();
  answers();
  $("message").hidden = true;
  $("judge").hidden = false;
  await new Promise(requestAnimationFrame);
  shownAt = performance.now();
  busy = false;
  document.body.dataset.slot = item.slot;
  if (state.items[1]) fetched(state.items[1]).catch(() => {});
}

function clear() {
  if (!shown) return;
  videos?.end();
  const old = [...$("judge").querySelectorAll("img, video")];
  release(old);
  loaded.delete(shown.slot);
  $("results").replaceChildren();
  $("source").replaceChildren();
  [shown, videos] = [null, null];
  delete document.body.dataset.slot;
}

function button(text, key, kind, act) {
  const it = document.createElement("button"), label = document.createElement("span"), hint = document.createElement("kbd");
  [label.textContent, hint.textContent, it.className, it.onclick] = [text, key, kind, act];
  it.append(label, hint);
  return it;
}

function answers() {
  if (config.mode === "ranking") return ranking();
  const all = [button(say("a_better"), "←", "side", () => vote("left")), button(say("tie"), "↓", "", () => vote("tie"))];
  if (config.both_bad) all.push(button(say("both_bad"), "X", "", () => vote("bad")));
  $("answers").replaceChildren(...all, button(say("b_better"), "→", "side", () => vote("right")));
}

const open = () => config.dimensions.find((dimension) => ranks[dimension].length < shown.media.length);

function ranking() {
  const current = open(), rows = config.dimensions.map((dimension) => {
    const row = document.createElement("div"), name = document.createElement("span"), clear = button(say("clear"), "⌫", "quiet", () => { ranks[dimension] = []; ranking(); });
    row.className = dimension === current ? "rank current" : "rank";
    name.textContent = dimension;
    name.className = "name";
    clear.disabled = !ranks[dimension].length;
    const places = shown.media.map((_, place) => {
      const rank = ranks[dimension].indexOf(place), pick = button(place + 1, rank < 0 ? "" : `#${rank + 1}`, rank < 0 ? "pick" : "pick picked", () => choose(dimension, place));
      pick.ariaLabel = `${dimension}: ${say("result")} ${place + 1}${rank < 0 ? "" : `, ${rank + 1}`}`;
      return pick;
    });
    row.append(name, ...places, clear);
    return row;
  });
  const save = button(say("save"), "Enter", "main", () => vote(ranks));
  save.disabled = Boolean(current);
  const hint = document.createElement("p");
  hint.textContent = current ? say("rank_next", { dimension: current }) : say("rank_done");
  $("answers").className = "answers ranks";
  $("answers").replaceChildren(hint, ...rows, save);
}

function choose(dimension, place) {
  if (!dimension || busy || place >= shown.media.length || ranks[dimension].includes(place)) return;
  ranks[dimension].push(place);
  if (ranks[dimension].length === shown.media.length - 1) ranks[dimension].push(shown.media.findIndex((_, n) => !ranks[dimension].includes(n)));
  ranking();
}

async function vote(answer) {
  if (busy || !shown) return;
  busy = true;
  const seconds = (performance.now() - shownAt) / 1000;
  $("judge").classList.add("sending");
  state = await ask("vote", { slot: shown.slot, vote: freshId(), answer, seconds });
  $("judge").classList.remove("sending");
  const known = { number: state.answered + 1, total: state.total };
  announce(state.refused === "answered" ? say("elsewhere") : state.status === "open" ? say("saved", known) : "");
  await show();
}

async function undo() {
  if ((busy && shown) || $("undo").disabled) return;
  busy = true;
  state = await ask("undo", { vote: state.last });
  announce(say("undone", { number: state.answered + 1, total: state.total }));
  await show();
}

function message(title, text, action) {
  clear();
  $("judge").hidden = true;
  $("message").hidden = false;
  $("message").querySelector("h1").textContent = title;
  $("message").querySelector("p").textContent = text;
  $("resume").hidden = !action;
  if (texts) $("resume").textContent = say("continue");
  $("resume").onclick = action;
  if (action) $("resume").focus();
}

function rest() {
  if (state.status !== "open") return;
  resting = true;
  message(say("resting_title"), say("resting"), async () => { resting = false; state = await ask("state"); await show(); });
}

function playLabel() { $("play").querySelector("span").textContent = say(videos?.playing ? "stop" : "play"); }
function playPause() { videos?.toggle(); playLabel(); }

async function guide(first) {
  $("guide-title").textContent = say("guideline_title");
  const text = config.guideline || say(config.mode === "ranking" ? "guideline_ranking" : "guideline");
  $("guide-text").replaceChildren(...text.split(/\n\s*\n/).map((part) => Object.assign(document.createElement("p"), { textContent: part })));
  $("guide-keys").textContent = say(config.mode === "ranking" ? "keys_ranking" : "keys_pairwise") + (config.both_bad ? ` · ${say("keys_bad")}` : "");
  $("start").textContent = say(first ? "start" : "continue");
  videos?.pause();
  playLabel();
  $("guide").showModal();
  if (config.examples.length && !$("guide-examples").childElementCount) {
    const title = Object.assign(document.createElement("h2"), { textContent: say("examples") });
    $("guide-examples").append(title);
    for (const example of config.examples) {
      const prompt = Object.assign(document.createElement("p"), { textContent: example.prompt, className: "prompt", dir: "auto" });
      const row = Object.assign(document.createElement("div"), { className: "results" });
      $("guide-examples").append(prompt, row);
      const [elements, sources] = await Promise.all([load(example.media, config.kind), source(example)]).catch(() => [[], []]);
      sources.forEach((picture) => Object.assign(picture, { alt: say("source"), className: "source" }));
      row.before(...sources);
      row.dataset.count = elements.length;
      elements.forEach((element) => { if (element.tagName === "VIDEO") element.controls = true; else element.alt = say("result"); });
      row.append(...elements);
    }
  }
}

const KEYS = {
  ArrowLeft: () => vote("left"), ArrowRight: () => vote("right"), ArrowDown: () => vote("tie"),
  x: () => config.both_bad && vote("bad"), u: undo, z: () => zoom?.toggle(), p: rest, h: () => guide(false), " ": playPause,
};
const RANKING_KEYS = {
  ...KEYS, ArrowLeft: null, ArrowRight: null, ArrowDown: null, x: null,
  Enter: () => !open() && vote(ranks),
  Backspace: () => { const filled = config.dimensions.filter((d) => ranks[d].length); ranks[filled.at(-1)]?.splice(-2 + (ranks[filled.at(-1)].length < shown.media.length)); ranking(); },
};

document.addEventListener("keydown", (event) => {
  if (!config || event.repeat || event.ctrlKey || event.metaKey || event.altKey || $("guide").open) return;
  const onButton = event.target.closest?.("button") && (event.key === " " || event.key === "Enter");
  if (onButton || (event.target === $("prompt") && event.key === "ArrowDown" && $("prompt").scrollHeight > $("prompt").clientHeight)) return;
  const ranked = config.mode === "ranking";
  if (ranked && shown && /^[1-9]$/.test(event.key)) return choose(open(), Number(event.key) - 1);
  const act = (ranked ? RANKING_KEYS : KEYS)[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act && (shown || ["u", "h"].includes(event.key.toLowerCase()))) { event.preventDefault(); act(); }
});

$("undo").onclick = undo;
$("rest").onclick = rest;
$("help").onclick = () => guide(false);
$("zoom").onclick = () => zoom?.toggle();
$("play").onclick = playPause;
$("start").onclick = () => $("guide").close();
$("guide").onclose = () => { shownAt = performance.now(); if (videos) { videos.play(); playLabel(); } };

texts = await ask("page/texts.json");
document.documentElement.lang = texts.language;
for (const it of document.querySelectorAll("[data-text]")) it.textContent = say(it.dataset.text);
$("prompt").ariaLabel = say("prompt");
$("progress").ariaLabel = say("title");
config = await ask("config");
document.title = config.title || say("title");
state = await ask("state");
await show();
if (state.status === "open" && state.answered === 0 && config.help !== false) await guide(true);
