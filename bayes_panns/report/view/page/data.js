// The pieces of a recording's timeline and of its spectrogram, fetched when they are to be drawn.

import { Kept, Queue, get } from "./api.js";

const BINS_APART = 1.5; // Pixels that a bin has at least.

export class Pieces {
  constructor(changed) {
    this.changed = changed;
    this.kept = new Kept(400);
    this.queue = new Queue(3, 24);
    this.asked = new Set();
  }

  open(recording) {
    this.recording = recording;
    this.hop = recording.windows ? recording.seconds / recording.windows : 1;
    this.queue.clear();
    this.asked.clear();
    this.kept.clear();
  }

  level(secondsPerPixel) {
    return Math.max(0, Math.ceil(Math.log2(BINS_APART * secondsPerPixel / this.hop)));
  }

  // The pieces from one second to another; a piece that is not there yet is asked for, and the nearest coarser one
  // stands in for it.
  between(from, to, secondsPerPixel, labels) {
    const { windows, bins } = this.recording;
    if (!windows) {
      return [];
    }
    const level = this.level(secondsPerPixel);
    const size = bins * 2 ** level;
    // A window begins near its number times the hop; one piece more on each side makes up for what is not exact.
    const first = Math.max(0, Math.floor(from / this.hop / size) - (level ? 0 : 1));
    const last = Math.min(Math.ceil(windows / size) - 1, Math.floor(to / this.hop / size) + 1);
    const found = [];
    for (let number = first; number <= last; number += 1) {
      const piece = this.piece(level, number, labels);
      found.push(piece ?? this.coarser(level, number, labels));
    }
    return found.filter(Boolean);
  }

  piece(level, number, labels) {
    const key = `${level}/${number}/${labels.join()}`;
    const piece = this.kept.get(key);
    if (piece === undefined && !this.asked.has(key)) {
      const { recording } = this;
      this.queue.add(key, async () => {
        if (recording !== this.recording || this.asked.has(key)) {
          return;
        }
        this.asked.add(key);
        try {
          const found = await get(`recordings/${recording.key}/windows/${level}/${number}?labels=${labels.join()}`);
          if (recording === this.recording) {
            this.kept.set(key, found);
            this.changed();
          }
        } finally {
          this.asked.delete(key);
        }
      });
    }
    return piece;
  }

  coarser(level, number, labels) {
    const { bins } = this.recording;
    for (let up = 1; up < 12; up += 1) {
      const piece = this.kept.get(`${level + up}/${Math.floor(number / 2 ** up)}/${labels.join()}`);
      if (piece) {
        const size = bins * 2 ** level * this.hop;
        return { ...piece, from: number * size, to: (number + 1) * size };
      }
    }
    return null;
  }
}

export class Tiles {
  constructor(changed, failed) {
    this.changed = changed;
    this.failed = failed;
    this.kept = new Kept(160);
    this.queue = new Queue(2, 64);
  }

  open(recording) {
    this.recording = recording;
    this.queue.clear();
    this.kept.clear();
  }

  // Pictures from one second to another, each with where it begins and ends; the coarser ones come first.
  between(from, to, secondsPerPixel, columns) {
    const { tiles, seconds, missing } = this.recording;
    if (missing) {
      return [];
    }
    let level = 0;
    while (level + 1 < tiles.length && tiles[level + 1] / columns <= secondsPerPixel) {
      level += 1;
    }
    const found = [];
    for (let other = tiles.length - 1; other > level; other -= 1) {
      found.push(...this.inside(other, from, to, false));
    }
    return [...found, ...this.inside(level, from, Math.min(to, seconds), true)];
  }

  inside(level, from, to, ask) {
    const { tiles, seconds } = this.recording;
    const span = tiles[level];
    const found = [];
    const first = Math.max(0, Math.floor(from / span));
    // What is asked for last comes first: the picture grows from the left.
    for (let number = Math.ceil(Math.min(to, seconds) / span) - 1; number >= first; number -= 1) {
      const image = ask ? this.tile(level, number) : this.kept.map.get(`${level}/${number}`);
      if (image && image !== "asked") {
        found.push({ image, from: number * span, to: Math.min(seconds, (number + 1) * span) });
      }
    }
    return found;
  }

  tile(level, number) {
    const key = `${level}/${number}`;
    const image = this.kept.get(key);
    if (image === undefined) {
      const { recording } = this;
      this.queue.add(key, async () => {
        if (recording !== this.recording || this.kept.get(key) !== undefined) {
          return;
        }
        this.kept.set(key, "asked");
        const made = new Image();
        made.src = `recordings/${recording.key}/spectrogram/${key}`;
        try {
          await made.decode();
        } catch {
          this.failed(recording);
          return;
        }
        if (recording === this.recording) {
          this.kept.set(key, made);
          this.changed();
        }
      });
    }
    return image;
  }
}
