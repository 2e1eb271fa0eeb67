// The list of events: its order and filters, and which of them is selected.

import { get } from "./api.js";
import { bar, clock, decimal, element } from "./format.js";

const SIGNS = { true: ["✓", "heard"], false: ["✗", "refuted"], null: ["", "open"] };
const by = (id) => document.getElementById(id);

export class EventList {
  constructor(choose, failed) {
    this.choose = choose;
    this.failed = failed;
    this.rows = [];
    this.total = 0;
    this.index = -1;
    for (const id of ["scope", "order", "show", "label"]) {
      by(id).addEventListener("change", () => this.load());
    }
    by("least").addEventListener("input", () => {
      by("from").value = by("least").value;
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.load(), 150);
    });
    by("more").addEventListener("click", () => this.load(this.rows.length));
  }

  open(overview, recording) {
    this.overview = overview;
    const other = this.recording !== recording;
    this.recording = recording;
    return other && (by("scope").value === "one" || !this.rows.length) ? this.load() : undefined;
  }

  async load(offset = 0) {
    const asked = new URLSearchParams({ offset });
    for (const id of ["order", "show", "label", "least"]) {
      asked.set(id, by(id).value);
    }
    if (by("scope").value === "one") {
      asked.set("recording", this.recording.key);
    }
    const turn = (this.turn ?? 0) + 1;
    this.turn = turn;
    try {
      const found = await get(`events?${asked}`);
      if (turn !== this.turn) {
        return;
      }
      this.total = found.total;
      this.rows = offset ? [...this.rows, ...found.events] : found.events;
      this.choices(found.labels);
      this.show(offset);
    } catch (error) {
      this.failed(error);
    }
  }

  // The labels to choose from, with how many events each has.
  choices(counts) {
    const select = by("label");
    const chosen = select.value;
    const labels = Object.entries(counts).sort((one, other) => other[1] - one[1]);
    select.replaceChildren(new Option("any", ""), ...labels.map(
      ([index, number]) => new Option(`${this.overview.labels[index]} (${number})`, index)
    ));
    if (chosen && !(chosen in counts)) {
      select.add(new Option(`${this.overview.labels[chosen]} (0)`, chosen));
    }
    select.value = chosen;
  }

  show(offset) {
    const list = by("events");
    by("total").textContent = this.total.toLocaleString("en");
    const made = this.rows.slice(offset).map((event, place) => this.row(event, offset + place));
    if (offset) {
      list.append(...made);
    } else {
      list.replaceChildren(...made);
      list.scrollTop = 0;
      this.index = -1;
    }
    if (!this.rows.length) {
      list.replaceChildren(element("li", "empty", "No such events."));
    }
    by("more").hidden = this.rows.length >= this.total;
    this.mark(this.selected);
  }

  row(event, index) {
    const item = element("li");
    const button = element("button");
    button.type = "button";
    const label = this.overview.labels[event.label];
    const bars = bar(event.low, event.probability, event.high);
    button.append(element("span", "sign"), element("span", "name", label), bars,
      element("span", "number", decimal(event.probability)), element("span", "time", clock(event.onset)));
    if (by("scope").value === "all") {
      button.append(element("span", "of", this.files().get(event.recording)));
    }
    button.addEventListener("click", () => this.select(index));
    item.append(button);
    this.say(button, event);
    return item;
  }

  files() {
    return new Map(this.overview.recordings.map((each) => [each.key, each.file]));
  }

  say(button, event) {
    const [sign, kind] = SIGNS[event.verdict];
    const mark = button.querySelector(".sign");
    mark.textContent = sign;
    mark.className = `sign ${kind}`;
    button.className = `is-${kind}`;
    const said = { heard: ", heard", refuted: ", not heard", open: "" }[kind];
    button.setAttribute("aria-label", `${this.overview.labels[event.label]} at ${clock(event.onset)}, probability `
      + `${decimal(event.probability)}, 90 % from ${decimal(event.low)} to ${decimal(event.high)}${said}`);
  }

  select(index) {
    const event = this.rows[index];
    if (event) {
      this.choose(event);
    }
  }

  // Show which event is selected, if it is in the list.
  mark(selection) {
    this.selected = selection;
    const list = by("events");
    list.querySelector("[aria-current]")?.removeAttribute("aria-current");
    const found = selection ? this.rows.findIndex((event) => same(event, selection)) : -1;
    if (found >= 0) {
      this.index = found;
      const button = list.children[found].querySelector("button");
      button.setAttribute("aria-current", "true");
      const [box, outer] = [button.getBoundingClientRect(), list.getBoundingClientRect()];
      if (box.top < outer.top || box.bottom > outer.bottom) {
        list.scrollTop += box.top - outer.top - outer.height / 3;
      }
    }
  }

  async step(steps) {
    const next = this.index + steps;
    if (next >= this.rows.length && this.rows.length < this.total) {
      await this.load(this.rows.length);
    }
    const within = Math.min(Math.max(0, next), this.rows.length - 1);
    if (within !== this.index) {
      this.select(within);
    }
    return within !== this.index;
  }

  // What is said of events has changed.
  update(recording, verdicts) {
    for (const said of verdicts) {
      const index = this.rows.findIndex((event) => same(event, { ...said, recording }));
      if (index >= 0) {
        this.rows[index].verdict = said.verdict;
        this.say(by("events").children[index].querySelector("button"), this.rows[index]);
      }
    }
  }
}

export function same(event, other) {
  return event.recording === other.recording && event.label === other.label
    && event.onset === (other.onset ?? other.start) && event.offset === (other.offset ?? other.end);
}
