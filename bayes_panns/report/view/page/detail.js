// The selected event or window: its numbers, and what has been said of it.

import { absolute, bar, clock, decimal, element, length } from "./format.js";
import { Labelling } from "./labelling.js";

const by = (id) => document.getElementById(id);
const BUTTONS = ["yes", "no", "other", "nothing", "hear"];

// `ask` makes a label the one in question.
export function showDetail({ selection, numbers, marks, labels, recording }, ask) {
  for (const id of BUTTONS) {
    by(id).disabled = !selection || (id === "hear" && recording.missing !== null);
  }
  if (!selection) {
    by("what").textContent = "Nothing is selected";
    by("when").textContent = "Choose an event, or a moment of the timeline.";
    by("said").textContent = "";
    by("numbers").hidden = true;
    by("variances").textContent = "";
    return;
  }
  const label = labels[selection.label] ?? "";
  by("what").textContent = selection.event ? label : `${label}?`;
  const day = absolute(recording.recorded_at, selection.start);
  by("when").textContent = `${selection.event ? "Event" : "Window"} ${clock(selection.start)} – ${clock(selection.end)}`
    + ` (${length(selection.end - selection.start)})${day ? ` · ${day.date} ${day.time}` : ""}`
    + (selection.event ? ` · probability ${decimal(selection.probability)}, 90 % of the draws between `
      + `${decimal(selection.low)} and ${decimal(selection.high)}` : "");
  showSaid(selection, marks, label);
  showNumbers(selection, numbers, labels, ask);
}

function showSaid(selection, marks, label) {
  const mark = Labelling.of(marks, selection);
  const nothing = mark !== undefined && !mark.labels.length && !mark.refuted.length;
  by("yes").setAttribute("aria-pressed", mark?.labels.includes(label) ?? false);
  by("no").setAttribute("aria-pressed", mark?.refuted.includes(label) ?? false);
  by("nothing").setAttribute("aria-pressed", nothing);
  const said = [];
  if (mark?.labels.length) {
    said.push(`heard: ${mark.labels.join(", ")}`);
  }
  if (mark?.refuted.length) {
    said.push(`not heard: ${mark.refuted.join(", ")}`);
  }
  by("said").textContent = nothing ? "You said: none of the labels is heard."
    : said.length ? `You said: ${said.join("; ")}.` : "You have not said anything of it.";
}

function showNumbers(selection, numbers, labels, ask) {
  const table = by("numbers");
  table.hidden = !numbers;
  by("variances").textContent = "";
  if (!numbers) {
    return;
  }
  table.tBodies[0].replaceChildren(...numbers.labels.map((each) => {
    const row = element("tr");
    const head = element("th");
    head.scope = "row";
    const button = element("button", "", labels[each.index]);
    button.type = "button";
    button.title = "Ask about this label";
    button.addEventListener("click", () => ask(each.index));
    head.append(button);
    const strip = element("td");
    strip.append(bar(each.low, each.probability, each.high));
    row.append(head, strip, element("td", "number", decimal(each.probability)),
      element("td", "number soft", `${decimal(each.low)}–${decimal(each.high)}`));
    if (each.index === selection.label) {
      row.setAttribute("aria-current", "true");
    }
    return row;
  }));
  const of = numbers.labels.find((each) => each.index === selection.label) ?? numbers.labels[0];
  const said = [`Window ${clock(numbers.start)} – ${clock(numbers.end)}`,
    `aleatoric ${of.aleatoric.toFixed(3)}`, `epistemic ${of.epistemic.toFixed(3)}`,
    `entropy ${decimal(numbers.entropy)} nats`];
  if (numbers.outside) {
    said.push("out of distribution");
  }
  if (numbers.left) {
    said.push("left to a person");
  }
  by("variances").textContent = said.join(" · ");
}
