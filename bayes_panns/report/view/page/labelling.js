// What a person says of the selected stretch, saved at once; and how it is taken back.

import { put } from "./api.js";
import { clock, element } from "./format.js";

const by = (id) => document.getElementById(id);

export class Labelling {
  constructor({ saved, told, failed }) {
    Object.assign(this, { saved, told, failed });
    this.history = [];
  }

  open(overview) {
    this.overview = overview;
    by("names").replaceChildren(...overview.labels.map((label) => new Option(label)));
  }

  // What has been said of a stretch.
  static of(marks, { start, end }) {
    return marks.find((mark) => Math.abs(mark.start - start) < 1e-5 && Math.abs(mark.end - end) < 1e-5);
  }

  label(selection) {
    return this.overview.labels[selection.label];
  }

  async heard(selection, marks) {
    const [label, mark] = [this.label(selection), Labelling.of(marks, selection)];
    await this.write(selection, {
      labels: [...without(mark?.labels, label), label], refuted: without(mark?.refuted, label),
    }, `${label}: heard`);
  }

  async refuted(selection, marks) {
    const [label, mark] = [this.label(selection), Labelling.of(marks, selection)];
    await this.write(selection, {
      labels: without(mark?.labels, label), refuted: [...without(mark?.refuted, label), label],
    }, `${label}: not heard`);
  }

  async nothing(selection) {
    await this.write(selection, { labels: [], refuted: [] }, "none of the labels is heard");
  }

  // Another label is heard; that of an event is then not.
  async other(selection, marks, name) {
    const [label, mark] = [this.label(selection), Labelling.of(marks, selection)];
    const instead = selection.event && name !== label;
    const labels = without(mark?.labels, instead ? label : name);
    const refuted = without(mark?.refuted, name);
    await this.write(selection, {
      labels: [...without(labels, name), name],
      refuted: instead ? [...without(refuted, label), label] : refuted,
    }, instead ? `${name}, not ${label}` : `${name}: heard`);
  }

  async write(selection, mark, text) {
    const { recording, start, end } = selection;
    try {
      const found = await put(`recordings/${recording}/labels`, { start, end, ...mark });
      this.history.push({ selection: { ...selection }, before: found.before });
      this.saved(recording, found);
      this.told(`${clock(start)}: ${text}. Saved.`);
    } catch (error) {
      this.failed(error);
      throw error;
    }
  }

  async undo() {
    const last = this.history.pop();
    if (!last) {
      return null;
    }
    const { selection: { recording, start, end }, before } = last;
    try {
      const mark = before ?? { labels: null, refuted: [] };
      this.saved(recording, await put(`recordings/${recording}/labels`,
        { start, end, labels: mark.labels, refuted: mark.refuted }));
      this.told(`${clock(start)}: taken back.`);
    } catch (error) {
      this.history.push(last);
      this.failed(error);
    }
    return last.selection;
  }

  // Ask for a label; null if none was given.
  ask(guesses) {
    const dialog = by("relabel");
    const input = by("name");
    input.value = "";
    return new Promise((done) => {
      const close = (name) => {
        dialog.removeEventListener("close", closed);
        if (dialog.open) {
          dialog.close();
        }
        done(name);
      };
      const closed = () => close(dialog.returnValue === "ok" && input.value.trim() ? input.value.trim() : null);
      by("guesses").replaceChildren(...guesses.map((name) => {
        const button = element("button", "", name);
        button.type = "button";
        button.addEventListener("click", () => close(name));
        return button;
      }));
      dialog.returnValue = "";
      dialog.addEventListener("close", closed);
      dialog.showModal();
      input.focus();
    });
  }
}

const without = (labels = [], label) => labels.filter((each) => each !== label);
