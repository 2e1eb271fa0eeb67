"use strict";

// Tables: each column heading becomes a button that sorts the table by that column.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const keys = new Map();
  for (const row of body.rows) {
    keys.set(row, [...row.cells].map((cell) => {
      const number = Number(cell.dataset.key);
      return cell.classList.contains("number") || !Number.isNaN(number) ? number : cell.dataset.key;
    }));
  }
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      // Numbers start with the largest, names with A.
      const numbers = [...keys.values()].some((key) => typeof key[column] === "number");
      const before = heading.getAttribute("aria-sort");
      const order = before === null ? (numbers ? "descending" : "ascending") :
        before === "ascending" ? "descending" : "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const sorted = [...body.rows].sort((one, two) => compare(keys.get(one)[column], keys.get(two)[column], sign));
      body.append(...sorted);
    });
  });
}

// Undefined values come last in both directions.
function compare(one, two, sign) {
  if (Number.isNaN(one) || Number.isNaN(two)) {
    return Number.isNaN(one) - Number.isNaN(two);
  }
  return sign * (typeof one === "number" && typeof two === "number" ? one - two : String(one).localeCompare(String(two)));
}

// A pause may come before it has begun to play.
function unlessPaused(error) {
  if (error.name !== "AbortError") {
    throw error;
  }
}

// Clips: one plays at a time; a line on its spectrogram shows the position, and a click there moves it.
for (const sound of document.querySelectorAll(".sound")) {
  const audio = sound.querySelector("audio");
  const picture = sound.querySelector(".picture");
  if (audio === null) {
    continue;
  }
  const seconds = () => (Number.isFinite(audio.duration) ? audio.duration : 0);
  const show = () => {
    picture.style.setProperty("--played", seconds() ? Math.min(1, audio.currentTime / seconds()) : 0);
    picture.style.setProperty("--playing", audio.currentTime > 0 ? 1 : 0);
    if (!audio.paused) {
      requestAnimationFrame(show);
    }
  };
  picture.classList.add("seekable");
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    audio.currentTime = seconds() * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    audio.play().catch(unlessPaused);
  });
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) {
      if (other !== audio) {
        other.pause();
      }
    }
    show();
  });
  audio.addEventListener("seeked", show);
}

// Folded tables are opened for printing.
const folded = () => [...document.querySelectorAll("details:not([open])")];
let opened = [];
addEventListener("beforeprint", () => {
  opened = folded();
  opened.forEach((each) => { each.open = true; });
});
addEventListener("afterprint", () => {
  opened.forEach((each) => { each.open = false; });
});
