"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const several = data.task === "multi-label";
const place = `bayes-panns label ${data.key}`;
// Not s, which skips, and u, which undoes.
const KEYS = [..."123456789abcdefghijklmnopqrtvwxyz"];
// More buttons than these would bury the page; the others are found by typing.
const MOST = 40;

// What was said of each clip: null, or {kind: "labels", "none" or "skip", labels: names}.
let answers = data.clips.map(() => null);
let added = [];
let past = [];
let at = 0;
let atOnce = false;

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(place));
    if (kept && kept.answers.length === answers.length) {
      ({ answers, added, past, at, atOnce } = kept);
    }
  } catch {
    // Without storage, labels last as long as the page is open.
  }
}

function keep() {
  try {
    localStorage.setItem(place, JSON.stringify({ answers, added, past, at, atOnce }));
  } catch {
    say("This browser keeps nothing: download the labels before you close the page.");
  }
}

const names = () => [...data.labels, ...added];
const chosen = () => (answers[at] && answers[at].kind === "labels" ? answers[at].labels : []);
const said = (answer) => ({ labels: () => answer.labels.join(", "), none: () => "none of these", skip: () => "skipped" })[answer.kind]();
const say = (text) => { find("status").textContent = text; };

// The labels in the order of their keys. Few labels keep their places; of many, the most probable come first.
function ordered() {
  const all = names();
  if (all.length <= KEYS.length) {
    return all;
  }
  const first = data.clips[at].guess.map((guess) => data.labels[guess.label]);
  const mine = [...new Set([...first, ...added, ...chosen()])];
  return [...mine, ...all.filter((name) => !mine.includes(name))];
}

function keyOf(position) {
  const few = names().length <= KEYS.length;
  return position < (few ? KEYS.length : 9) ? KEYS[position] : "";
}

function element(kind, text, attributes = {}) {
  const made = document.createElement(kind);
  made.textContent = text;
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  return made;
}

function showLabels() {
  const wanted = find("filter").value.trim().toLowerCase();
  const all = ordered().map((name, position) => ({ name, key: keyOf(position) }));
  const matching = all.filter(({ name }) => name.toLowerCase().includes(wanted));
  const shown = matching.slice(0, MOST);
  find("labels").replaceChildren(...shown.map(({ name, key }) => {
    const button = element("button", "", { type: "button", "aria-pressed": String(chosen().includes(name)) });
    if (key) {
      button.setAttribute("aria-keyshortcuts", key);
      button.append(element("kbd", key), " ");
    }
    button.append(name);
    button.addEventListener("click", (event) => {
      unfocus(event);
      choose(name);
    });
    return button;
  }));
  const rest = matching.length - shown.length;
  find("more").textContent = rest > 0 ? `${rest} more: type a part of the name.` : "";
  find("add").disabled = !wanted;
  find("add").textContent = wanted && !matching.length ? "Add" : "Take";
}

function showCounts() {
  const done = answers.filter(Boolean);
  const count = (kind) => done.filter((answer) => answer.kind === kind).length;
  const parts = [`${count("labels")} of ${answers.length} labelled`];
  [["none", "none of these"], ["skip", "skipped"]].forEach(([kind, text]) => {
    if (count(kind)) {
      parts.push(`${count(kind)} ${text}`);
    }
  });
  find("count").textContent = parts.join(", ");
  find("bar").value = done.length / answers.length;
  find("download").disabled = !rows().length;
  find("undo").disabled = !past.length;
  find("back").disabled = at === 0;
  const finished = done.length === answers.length;
  find("done").hidden = !finished;
  const fresh = answers.some((answer) => answer && answer.labels.some((name) => !data.labels.includes(name)));
  find("pack").textContent = data.pack + (fresh ? "" : data.known);
  find("finetune").textContent = data.finetune;
  find("same").hidden = fresh;
  find("fresh").hidden = !fresh;
}

function show() {
  const clip = data.clips[at];
  find("name").textContent = `${at + 1}. ${clip.name}`;
  const picture = find("spectrogram");
  if (picture.src !== clip.picture) {
    picture.src = clip.picture;
    picture.alt = `Spectrogram of ${clip.name}, up to ${clip.top} kilohertz`;
    find("audio").src = clip.sound;
    find("audio").setAttribute("aria-label", clip.name);
    find("top").textContent = `${clip.top} kHz`;
    find("length").textContent = `${(clip.end - clip.start).toFixed(1)} s`;
    find("picture").style.setProperty("--played", 0);
  }
  find("guess").tBodies[0].replaceChildren(...clip.guess.slice(0, 5).map((guess) => {
    const row = document.createElement("tr");
    const cell = document.createElement("td"), rail = element("div", "", { class: "rail" });
    rail.style.setProperty("--mean-share", guess.mean);
    rail.style.setProperty("--low", Math.max(0, guess.mean - guess.deviation));
    rail.style.setProperty("--high", Math.min(1, guess.mean + guess.deviation));
    rail.append(document.createElement("i"), document.createElement("b"));
    cell.append(rail);
    const percent = (value) => (100 * value).toFixed(0);
    row.append(
      element("th", data.labels[guess.label], { scope: "row" }),
      cell,
      element("td", `${percent(guess.mean)} ± ${percent(guess.deviation)} %`, { class: "number" }),
    );
    return row;
  }));
  const share = clip.entropy > 0 ? Math.round((100 * clip.disagreement) / clip.entropy) : 0;
  find("trust").textContent = `Uncertainty: ${clip.entropy.toFixed(2)} nats; ${share} % of it because the draws of the `
    + "weights disagree, which labels can change. The dark bar is their spread.";
  const answer = answers[at];
  say(answer ? `${several || answer.kind !== "labels" ? "So far" : "Label"}: ${said(answer)}` : "No label yet");
  find("none").setAttribute("aria-pressed", String(Boolean(answer && answer.kind === "none")));
  find("skip").setAttribute("aria-pressed", String(Boolean(answer && answer.kind === "skip")));
  showLabels();
  showCounts();
}

function move(to) {
  at = Math.min(Math.max(0, to), data.clips.length - 1);
  find("audio").pause();
  find("filter").value = "";
  keep();
  show();
  if (find("clip").getBoundingClientRect().top < 0) {
    find("clip").scrollIntoView();
  }
  if (atOnce) {
    play();
  }
}

// The next clip that nothing was said of; after the last one, the next clip.
function onward() {
  const after = [...answers.keys()].map((step) => (at + 1 + step) % answers.length);
  const next = after.find((index) => !answers[index]);
  move(next === undefined ? at : next);
}

function answer(value, leave) {
  past.push({ at, before: answers[at] });
  answers[at] = value;
  const before = at;
  if (leave) {
    onward();
    if (value) {
      say(`${data.clips[before].name}: ${said(value)}`);
    }
  } else {
    keep();
    show();
  }
}

function choose(name) {
  if (!several) {
    answer({ kind: "labels", labels: [name] }, true);
    return;
  }
  const now = chosen(), rest = now.filter((other) => other !== name);
  const labels = rest.length < now.length ? rest : [...now, name];
  answer(labels.length ? { kind: "labels", labels } : null, false);
}

function undo() {
  const last = past.pop();
  if (last) {
    answers[last.at] = last.before;
    move(last.at);
  }
}

function take() {
  const field = find("filter"), wanted = field.value.trim();
  if (!wanted) {
    return;
  }
  const same = (name) => name.toLowerCase() === wanted.toLowerCase();
  const known = names().find(same) || ordered().find((name) => name.toLowerCase().includes(wanted.toLowerCase()));
  if (!known && (wanted.includes(data.separator) || /[\u0000-\u001f\u007f]/.test(wanted))) {
    say(`A label cannot hold ${data.separator}, which stands between labels.`);
    return;
  }
  if (!known) {
    added.push(wanted);
  }
  field.value = "";
  field.blur();
  choose(known || wanted);
}

// A pause or another clip may come before it has begun to play.
function unlessPaused(error) {
  if (error.name !== "AbortError") {
    throw error;
  }
}

function play() {
  const audio = find("audio");
  if (audio.paused) {
    audio.play().catch(unlessPaused);
  } else {
    audio.pause();
  }
}

// A button that was touched or clicked should not take the keys; one that was reached by keyboard keeps them.
function unfocus(event) {
  if (event.detail > 0) {
    event.currentTarget.blur();
  }
}

const none = () => answer({ kind: "none", labels: [] }, true);
const skip = () => answer({ kind: "skip", labels: [] }, true);

function quoted(text) {
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// Every clip of a one-of-k task has a label; where several may be heard, none of them is an answer too.
function rows() {
  return data.clips.flatMap((clip, index) => {
    const given = answers[index];
    if (!given || given.kind === "skip" || (given.kind === "none" && !several)) {
      return [];
    }
    const labels = given.labels.join(data.separator);
    const times = clip.whole ? ["", ""] : [clip.start.toFixed(3), clip.end.toFixed(3)];
    return [[clip.file, labels, ...(data.timed ? times : [])]];
  });
}

function download() {
  const head = ["file", "labels", ...(data.timed ? ["start", "end"] : [])];
  const text = [head, ...rows()].map((row) => `${row.map(quoted).join(",")}\n`).join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "labels.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const actions = { back: () => move(at - 1), next: () => (several ? onward() : move(at + 1)), none, skip, undo, download };
Object.entries(actions).forEach(([id, act]) => {
  find(id).addEventListener("click", (event) => {
    unfocus(event);
    act();
  });
});
find("search").addEventListener("submit", (event) => {
  event.preventDefault();
  take();
});
find("filter").addEventListener("input", showLabels);
find("at-once").addEventListener("change", (event) => {
  atOnce = event.target.checked;
  keep();
});
find("picture").addEventListener("click", (event) => {
  const box = find("picture").getBoundingClientRect(), audio = find("audio");
  audio.currentTime = (audio.duration || 0) * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  audio.play().catch(unlessPaused);
});

function follow() {
  const audio = find("audio");
  find("picture").style.setProperty("--played", audio.duration ? Math.min(1, audio.currentTime / audio.duration) : 0);
  if (!audio.paused) {
    requestAnimationFrame(follow);
  }
}
find("audio").addEventListener("play", follow);
find("audio").addEventListener("seeked", follow);

addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (target === find("at-once") && key === " ") {
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  if (target === find("filter")) {
    if (key === "Escape") {
      target.value = "";
      target.blur();
      showLabels();
    }
    return;
  }
  // Buttons and the player have these keys for themselves.
  if ((key === " " || key === "Enter") && target.closest("button, a")) {
    return;
  }
  if (target.closest("audio") && (key === " " || key.startsWith("Arrow"))) {
    return;
  }
  const position = ordered().findIndex((_, index) => keyOf(index) === key.toLowerCase());
  const act = {
    " ": play, ArrowLeft: actions.back, ArrowRight: actions.next, 0: none, s: skip, u: undo,
    "/": () => find("filter").focus(), Enter: () => (several ? onward() : null),
  }[key.length === 1 ? key.toLowerCase() : key];
  if (act) {
    act();
  } else if (position >= 0) {
    choose(ordered()[position]);
  } else {
    return;
  }
  event.preventDefault();
});

load();
find("at-once").checked = atOnce;
show();
