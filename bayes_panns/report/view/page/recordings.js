// The list of recordings.

import { count, element, length } from "./format.js";

const by = (id) => document.getElementById(id);

export class RecordingList {
  constructor(choose) {
    this.choose = choose;
    this.buttons = new Map();
    by("find").addEventListener("input", () => this.find());
  }

  open(overview) {
    this.overview = overview;
    const several = overview.recordings.length > 1;
    document.querySelector(".app").classList.toggle("several", several);
    document.querySelector("nav").hidden = !several;
    by("count").textContent = overview.recordings.length.toLocaleString("en");
    by("find").hidden = overview.recordings.length < 8;
    this.buttons.clear();
    by("list").replaceChildren(...overview.recordings.map((recording) => this.row(recording)));
    this.find();
    this.mark(this.current);
  }

  row(recording) {
    const item = element("li");
    const button = element("button");
    button.type = "button";
    const folders = recording.file.split("/");
    button.append(element("span", "name", folders.pop()), element("span", "soft"));
    button.title = recording.file;
    button.dataset.folder = folders.join("/");
    if (recording.skipped === null) {
      button.addEventListener("click", () => this.choose(recording.key));
    } else {
      button.disabled = true;
      button.title = recording.skipped;
    }
    this.buttons.set(recording.key, button);
    this.say(recording);
    item.append(button);
    return item;
  }

  say(recording) {
    const said = recording.skipped !== null ? ["skipped"] : [
      length(recording.seconds), count(recording.events, "event"),
      ...(recording.labelled ? [count(recording.labelled, "label")] : []),
    ];
    const button = this.buttons.get(recording.key);
    button.lastChild.textContent = [...said, ...(button.dataset.folder ? [button.dataset.folder] : [])].join(" · ");
  }

  // How many stretches of a recording are labelled has changed.
  labelled(key, number) {
    const recording = this.overview.recordings.find((each) => each.key === key);
    recording.labelled = number;
    this.say(recording);
  }

  find() {
    const wanted = by("find").value.trim().toLowerCase();
    for (const recording of this.overview.recordings) {
      this.buttons.get(recording.key).parentElement.hidden = !recording.file.toLowerCase().includes(wanted);
    }
  }

  mark(key) {
    this.buttons.get(this.current)?.removeAttribute("aria-current");
    this.current = key;
    const button = this.buttons.get(key);
    button?.setAttribute("aria-current", "true");
    const list = by("list");
    if (button && (button.offsetTop < list.scrollTop || button.offsetTop > list.scrollTop + list.clientHeight - 40)) {
      list.scrollTop = button.offsetTop - list.offsetTop - list.clientHeight / 3;
    }
  }

  // The readable recording so many places on.
  beside(steps) {
    const readable = this.overview.recordings.filter((each) => each.skipped === null);
    const place = readable.findIndex((each) => each.key === this.current);
    return readable[place + steps]?.key;
  }
}
