// The page: opens recordings, holds what is shown of one, and ties list, timeline, sound and labels together.

import { get } from "./api.js";
import { Pieces, Tiles } from "./data.js";
import { showDetail } from "./detail.js";
import { EventList, same } from "./events.js";
import { absolute, clock, count, length } from "./format.js";
import { onOverview, onTimeline } from "./gestures.js";
import { onKeys } from "./keys.js";
import { Labelling } from "./labelling.js";
import { Player } from "./player.js";
import { RecordingList } from "./recordings.js";
import { Stage } from "./stage.js";

const by = (id) => document.getElementById(id);
const SCREEN = 120; // Seconds that are shown at first.
const CLOSEST = 2; // Seconds that are shown at least.
const EVENTS = 5000; // The most events that are drawn.

const state = { overview: null, recording: null, from: 0, to: 1, lanes: [], events: [], marks: [], selection: null };
const redraw = once(() => draw());
const stage = new Stage(by("drawing"), by("cursor"), by("overview"));
const pieces = new Pieces(redraw);
const tiles = new Tiles(redraw, () => tell("The spectrogram could not be made; the recording may be damaged.", true));
const player = new Player(by("audio"), {
  moved: (seconds, playing) => moved(seconds, playing),
  changed: () => showPlaying(),
  failed: () => tell("The recording cannot be played; it may have moved, or bayes-panns view has ended.", true),
});
const list = new EventList((event) => chooseEvent(event), (error) => tell(error.message, true));
const recordings = new RecordingList((key) => openRecording(key));
const labelling = new Labelling({
  saved: (key, found) => saved(key, found), told: (text) => tell(text), failed: (error) => tell(error.message, true),
});

// What is asked for several times before the next frame is done once.
function once(action) {
  let waiting = false;
  return () => {
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        action();
      });
    }
  };
}

function tell(text, bad = false) {
  by("status").textContent = text;
  by("status").classList.toggle("bad", bad);
}

// Opening.

async function openResults() {
  state.overview = await get("recordings");
  const { overview } = state;
  by("folder").textContent = overview.name;
  document.title = `${overview.name} · bayes-panns view`;
  recordings.open(overview);
  labelling.open(overview);
  await showLabelled();
  const asked = new URLSearchParams(location.hash.slice(1));
  const readable = overview.recordings.filter((each) => each.skipped === null);
  const first = readable.find((each) => each.key === asked.get("r")) ?? readable[0];
  if (!first) {
    by("file").textContent = overview.recordings.length ? "No recording could be read" : "No recording is finished yet";
    by("facts").textContent = overview.recordings.length ? "" : "This page shows them as predict finishes them.";
    return;
  }
  await openRecording(first.key, asked.get("r") === first.key ? asked : null);
}

async function openRecording(key, place = null) {
  if (state.recording?.key === key) {
    return;
  }
  recordings.mark(key);
  const known = state.overview.recordings.find((each) => each.key === key);
  tell(`Reading ${known.file} …`);
  state.opening = key;
  let found;
  try {
    found = await get(`recordings/${key}`);
  } catch (error) {
    tell(error.message, true);
    return;
  }
  if (state.opening !== key) {
    return;
  }
  tell(state.overview.problem ?? "", Boolean(state.overview.problem));
  Object.assign(state, { recording: found, events: [], marks: found.marks, selection: null, numbers: null });
  player.open(found);
  pieces.open(found);
  tiles.open(found);
  chooseLanes();
  showRecording();
  by("stage").setAttribute("aria-valuemax", found.seconds.toFixed(1));
  const [from, to, at] = ["a", "b", "t"].map((name) => Number(place?.get(name) ?? NaN));
  show(to > from ? from : 0, to > from ? to : Math.min(found.seconds, SCREEN));
  player.seek(at >= 0 ? at : 0);
  showDetail(detail(), ask);
  await Promise.all([list.open(state.overview, found), loadEvents(found)]);
}

async function loadEvents(recording) {
  const found = await get(`events?recording=${recording.key}&limit=${EVENTS}`);
  if (recording === state.recording) {
    state.events = found.events;
    redraw();
  }
}

function showRecording() {
  const { recording } = state;
  by("file").textContent = recording.file;
  const start = absolute(recording.recorded_at, 0);
  const facts = [...(start ? [`${start.date} ${start.time}`] : []), length(recording.seconds),
    count(recording.windows, "window"),
    ...(recording.outside ? [`${recording.outside.toLocaleString("en")} out of distribution`] : []),
    ...(recording.left ? [`${recording.left.toLocaleString("en")} left to a person`] : []), ...recording.notes];
  by("facts").textContent = facts.join(" · ");
  by("missing").hidden = recording.missing === null;
  by("missing").textContent = recording.missing ?? "";
  by("play").disabled = recording.missing !== null;
}

function chooseLanes() {
  const { recording, selection } = state;
  const most = Math.min(Number(by("lanes").value), recording.labels.length);
  const lanes = recording.labels.slice(0, most).map((each) => each.index);
  // The label in question always has a lane.
  if (selection && selection.label !== null && !lanes.includes(selection.label)) {
    lanes[most - 1] = selection.label;
  }
  state.lanes = lanes;
}

// Showing.

function show(from, to) {
  const { seconds } = state.recording;
  const span = Math.min(seconds, Math.max(CLOSEST, to - from));
  state.from = Math.min(Math.max(0, from), seconds - span);
  state.to = state.from + span;
  redraw();
  remember();
}

function draw() {
  if (!state.recording) {
    return;
  }
  const shown = { ...state, labels: state.overview.labels, pieces, tiles };
  by("stage").style.height = `${stage.draw(shown)}px`;
  stage.drawOverview(state);
  stage.drawCursor(player.position);
}

function moved(seconds, playing = false) {
  const { from, to, recording } = state;
  const span = to - from;
  if (playing && seconds > to - 0.1 * span && seconds < to + 1 && to < recording.seconds) {
    show(seconds - 0.1 * span, seconds + 0.9 * span);
  }
  stage.drawCursor(seconds);
  const day = absolute(recording.recorded_at, seconds);
  by("now").textContent = clock(seconds) + (day ? ` · ${day.time}` : "");
  // A screen reader would speak without end while it plays.
  if (!playing) {
    by("stage").setAttribute("aria-valuenow", seconds.toFixed(1));
    by("stage").setAttribute("aria-valuetext", `${clock(seconds)} of ${clock(recording.seconds, 0)}`);
    remember();
  }
}

function showPlaying() {
  by("play").textContent = player.playing ? "❚❚" : "▶";
  by("play").setAttribute("aria-label", player.playing ? "Pause" : "Play");
}

const detail = () => ({ ...state, labels: state.overview.labels });

let remembering;
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    const { recording, from, to } = state;
    const place = new URLSearchParams({
      r: recording.key, t: player.position.toFixed(1), a: from.toFixed(1), b: to.toFixed(1),
    });
    history.replaceState(null, "", `#${place}`);
  }, 250);
}

// Choosing.

async function select(selection) {
  state.selection = selection;
  state.numbers = null;
  chooseLanes();
  list.mark(selection);
  const { recording, start, end, label } = selection;
  const span = state.to - state.from;
  if (start < state.from || end > state.to) {
    const middle = (start + end) / 2;
    const wide = Math.max(span, 1.2 * (end - start));
    show(middle - wide / 2, middle + wide / 2);
  }
  redraw();
  showDetail(detail(), ask);
  try {
    const of = label === null ? "" : `&label=${label}`;
    const numbers = await get(`recordings/${recording}/window?start=${start}&end=${end}${of}`);
    if (state.selection === selection) {
      state.numbers = numbers;
      showDetail(detail(), ask);
    }
  } catch (error) {
    tell(error.message, true);
  }
}

async function chooseEvent(event, sound = true) {
  await openRecording(event.recording);
  if (state.recording?.key !== event.recording) {
    return;
  }
  player.seek(event.onset);
  const chosen = select({ ...event, start: event.onset, end: event.offset, event: true });
  if (sound && by("auto").checked) {
    player.hear(event.onset, event.offset);
  }
  await chosen;
}

// The window around a moment.
async function chooseWindow(seconds, label = null) {
  const { recording } = state;
  const of = label === null ? "" : `&label=${label}`;
  const found = await get(`recordings/${recording.key}/window?start=${seconds}&end=${seconds}${of}`);
  if (found && recording === state.recording) {
    const { start, end } = found;
    await select({ recording: recording.key, start, end, label: label ?? found.labels[0].index, event: false });
  }
}

function ask(label) {
  const { selection, events } = state;
  const event = events.find((each) => same(each, { ...selection, label }));
  select(event ? { ...event, start: event.onset, end: event.offset, event: true }
    : { ...selection, label, event: false });
}

// Something on the timeline was clicked.
function click(x, y) {
  const seconds = Math.min(Math.max(0, stage.seconds(x)), state.recording.seconds);
  const { rows } = stage;
  const lane = rows.lanes.findIndex((top) => y >= top && y < top + rows.lane);
  const label = lane < 0 ? null : state.lanes[lane];
  const other = y >= rows.others && y < rows.aleatoric - 3;
  const reach = 3 * (state.to - state.from) / rows.width;
  const hit = state.events.find((event) => event.onset - reach <= seconds && seconds <= event.offset + reach
    && (label === null ? other && !state.lanes.includes(event.label) : event.label === label));
  player.seek(seconds);
  if (hit) {
    chooseEvent(hit).then(() => player.playing || player.seek(seconds));
  } else {
    chooseWindow(seconds, label).catch((error) => tell(error.message, true));
  }
}

function zoom(factor, x = null) {
  const { from, to } = state;
  const middle = x === null ? within(player.position, from, to) ?? (from + to) / 2 : stage.seconds(x);
  show(middle - (middle - from) * factor, middle + (to - middle) * factor);
}

const within = (value, low, high) => (value >= low && value <= high ? value : null);

// Labelling.

async function decide(action) {
  const { selection } = state;
  if (!selection || selection.label === null) {
    tell("Choose an event, or a moment of the timeline, first.");
    return;
  }
  try {
    await action(selection);
  } catch {
    return;
  }
  by("status").textContent += undecided(selection);
  if (selection.event) {
    await list.step(1);
  }
}

// Packing takes the labels of a stretch for all that is heard in it.
function undecided({ recording, start, end }) {
  const open = state.events.filter((event) => event.recording === recording && event.verdict === null
    && event.onset < end && event.offset > start);
  return open.length ? ` ${count(open.length, "undecided event")} overlap${open.length === 1 ? "s" : ""} it: say what `
    + "they are too." : "";
}

async function relabel() {
  const { selection, numbers, overview } = state;
  if (!selection) {
    return;
  }
  const guesses = (numbers?.labels ?? []).map((each) => overview.labels[each.index]);
  const name = await labelling.ask(guesses);
  if (name) {
    await decide((of) => labelling.other(of, state.marks, name));
  }
}

function saved(key, { marks, verdicts }) {
  recordings.labelled(key, marks.length);
  list.update(key, verdicts);
  if (key === state.recording.key) {
    state.marks = marks;
    for (const said of verdicts) {
      const event = state.events.find((each) => same(each, { ...said, recording: key }));
      if (event) {
        event.verdict = said.verdict;
      }
    }
    redraw();
    showDetail(detail(), ask);
  }
  showLabelled().catch((error) => tell(error.message, true));
}

async function showLabelled() {
  const found = await get("labels");
  by("undo").disabled = !labelling.history.length;
  by("download").hidden = !found.stretches;
  by("download").textContent = `Download labels (${found.stretches.toLocaleString("en")})`;
  const code = document.createElement("code");
  code.textContent = found.command;
  by("next").replaceChildren(...(found.stretches ? ["Make clips of them: ", code] : []));
}

async function undo() {
  const selection = await labelling.undo();
  if (selection) {
    await openRecording(selection.recording);
    await select(selection);
  }
}

// Buttons, keys, fingers.

const actions = {
  play: () => player.toggle(),
  hear: () => state.selection && player.hear(state.selection.start, state.selection.end),
  step: (steps) => list.step(steps),
  heard: () => decide((selection) => labelling.heard(selection, state.marks)),
  refuted: () => decide((selection) => labelling.refuted(selection, state.marks)),
  nothing: () => decide((selection) => labelling.nothing(selection)),
  other: relabel,
  undo,
  window: () => chooseWindow(player.position).catch((error) => tell(error.message, true)),
  zoom,
  all: () => show(0, state.recording.seconds),
  beside: (steps) => recordings.beside(steps) && openRecording(recordings.beside(steps)),
  auto: () => {
    by("auto").checked = !by("auto").checked;
    tell(by("auto").checked ? "Each event that is selected is played." : "Events are not played by themselves.");
  },
  help: () => by("keys").showModal(),
  move: (steps, screen) => {
    const step = screen ? state.to - state.from : pieces.hop;
    const seconds = Math.min(Math.max(0, player.position + steps * step), state.recording.seconds);
    player.seek(seconds);
    if (within(seconds, state.from, state.to) === null) {
      const span = state.to - state.from;
      show(seconds - span / 2, seconds + span / 2);
    }
  },
};

const loaded = (action) => (...given) => state.recording && action(...given);
onKeys(Object.fromEntries(Object.entries(actions).map(([name, action]) => [name, loaded(action)])));
for (const [id, name] of Object.entries({
  play: "play", hear: "hear", yes: "heard", no: "refuted", other: "other", nothing: "nothing", undo: "undo", all: "all",
  help: "help",
})) {
  by(id).addEventListener("click", () => (id === "help" || state.recording) && actions[name]());
}
by("in").addEventListener("click", loaded(() => zoom(0.5)));
by("out").addEventListener("click", loaded(() => zoom(2)));
by("speed").addEventListener("change", () => { by("audio").playbackRate = Number(by("speed").value); });
by("lanes").addEventListener("change", loaded(() => { chooseLanes(); redraw(); }));
onTimeline(by("stage"), {
  pan: loaded((pixels) => {
    const shift = pixels * (state.to - state.from) / (stage.rows.width - stage.rows.left);
    show(state.from + shift, state.to + shift);
  }),
  zoom: loaded(zoom),
  click: loaded(click),
});
onOverview(by("overview"), loaded((share) => {
  const [middle, span] = [share * state.recording.seconds, state.to - state.from];
  show(middle - span / 2, middle + span / 2);
}));
new ResizeObserver(redraw).observe(by("stage").parentElement);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { stage.colours(); redraw(); });
// Predict may have finished more recordings, and labels.csv may have been changed elsewhere.
addEventListener("focus", async () => {
  try {
    state.overview = await get("recordings");
    recordings.open(state.overview);
    if (!state.recording) {
      await openResults();
    }
  } catch (error) {
    tell(error.message, true);
  }
});

const narrow = matchMedia("(max-width: 63.99rem)").matches;
by("recordings").open = !narrow;
by("lanes").value = matchMedia("(max-width: 40rem)").matches ? "3" : matchMedia("(max-height: 65rem)").matches ? "4" : "6";
openResults().catch((error) => tell(`${error.message} Is bayes-panns view still running?`, true));
