// Draws the timeline: time, spectrogram, a lane for each label, strips of uncertainty, and what a person has said.

import { absolute, clock } from "./format.js";

const AXIS = 22;
const GAP = 5;
const GUTTER = 104; // Where the rows' names are, on a wide screen; on a narrow one they are over the rows.
const STRIP = 15;
const COLUMNS = 512;
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800];

const NAMES = ["paper", "ink", "soft", "grid", "blue", "vermilion", "pink", "orange", "grey", "good", "link"];

export class Stage {
  constructor(drawing, cursor, overview) {
    this.canvas = { drawing, cursor, overview };
    this.context = Object.fromEntries(
      Object.entries(this.canvas).map(([name, canvas]) => [name, canvas.getContext("2d")])
    );
    this.colours();
  }

  colours() {
    const style = getComputedStyle(document.documentElement);
    this.colour = Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.font = getComputedStyle(document.body).fontFamily;
  }

  // Where the rows are, for a number of lanes.
  layout(width, lanes) {
    const narrow = width < 560;
    const spectrogram = narrow ? 84 : 104;
    const lane = 40;
    const rows = { axis: 0, spectrogram: AXIS, lanes: [], height: 0, left: narrow ? 0 : GUTTER };
    let at = AXIS + spectrogram + GAP;
    for (let index = 0; index < lanes; index += 1) {
      rows.lanes.push(at);
      at += lane + GAP;
    }
    for (const name of ["others", "aleatoric", "epistemic", "flags", "labels"]) {
      rows[name] = at;
      at += STRIP + 3;
    }
    return Object.assign(rows, { spectrogramHeight: spectrogram, lane, height: at + 3, width });
  }

  size(canvas, width, height) {
    const scale = devicePixelRatio || 1;
    const pixels = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== pixels[0] || canvas.height !== pixels[1]) {
      [canvas.width, canvas.height] = pixels;
      canvas.style.height = `${height}px`;
    }
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  // `shown` has recording, from, to, lanes (indices of labels), labels, pieces, tiles, events, marks, selection.
  draw(shown) {
    const width = this.canvas.drawing.parentElement.clientWidth;
    const rows = this.layout(width, shown.lanes.length);
    const context = this.size(this.canvas.drawing, width, rows.height);
    this.rows = rows;
    this.shown = shown;
    const perPixel = (shown.to - shown.from) / (width - rows.left);
    const x = (seconds) => rows.left + (seconds - shown.from) / perPixel;
    Object.assign(this, { x, seconds: (pixel) => shown.from + (pixel - rows.left) * perPixel });
    context.save();
    context.beginPath();
    context.rect(rows.left, 0, width - rows.left, rows.height);
    context.clip();
    const pieces = shown.pieces.between(shown.from, shown.to, perPixel, shown.lanes);
    this.drawAxis(context, rows, shown, width);
    this.drawSpectrogram(context, rows, shown, width, perPixel);
    shown.lanes.forEach((label, lane) => this.drawLane(context, rows.lanes[lane], rows.lane, label, lane, pieces));
    this.drawEvents(context, rows);
    this.drawStrips(context, rows, pieces);
    this.drawMarks(context, rows);
    this.drawSelection(context, rows);
    context.restore();
    this.names(context, rows);
    return rows.height;
  }

  drawAxis(context, rows, { recording, from, to }, width) {
    const step = STEPS.find((each) => each * width / (to - from) >= 84) ?? STEPS.at(-1);
    // Round times of the day, where they are known.
    const start = absolute(recording.recorded_at, 0);
    const offset = start ? start.time.split(":").reduce((sum, part) => sum * 60 + Number(part), 0) : 0;
    context.font = `11px ${this.font}`;
    context.textBaseline = "middle";
    context.textAlign = "left";
    for (let at = Math.ceil((from + offset) / step) * step - offset; at <= to; at += step) {
      const place = Math.round(this.x(at)) + 0.5;
      context.strokeStyle = this.colour.grid;
      context.beginPath();
      context.moveTo(place, rows.axis + 14);
      context.lineTo(place, rows.height);
      context.globalAlpha = 0.7;
      context.stroke();
      context.globalAlpha = 1;
      context.fillStyle = this.colour.soft;
      const text = start && step >= 1 ? absolute(recording.recorded_at, at + 0.001).time : clock(at, step < 1 ? 1 : 0);
      context.fillText(text, place + 4, rows.axis + 11);
    }
  }

  drawSpectrogram(context, rows, { recording, from, to, tiles }, width, perPixel) {
    const { spectrogram: top, spectrogramHeight: height } = rows;
    const end = Math.min(width, this.x(recording.seconds));
    context.fillStyle = recording.missing ? this.colour.paper : "#0b0714";
    context.fillRect(rows.left, top, end - rows.left, height);
    if (recording.missing) {
      context.fillStyle = this.colour.soft;
      context.font = `12px ${this.font}`;
      context.textAlign = "center";
      context.fillText("no sound: the recording is not there", (rows.left + width) / 2, top + height / 2);
      context.textAlign = "left";
      return;
    }
    context.imageSmoothingQuality = "high";
    for (const tile of tiles.between(from, to, perPixel / (devicePixelRatio || 1), COLUMNS)) {
      // Half a pixel more, so that no seam is seen.
      context.drawImage(tile.image, this.x(tile.from), top, this.x(tile.to) - this.x(tile.from) + 0.5, height);
    }
  }

  drawLane(context, top, height, label, lane, pieces) {
    const { colour, x } = this;
    const y = (thousandths) => top + height - 1 - (height - 2) * thousandths / 1000;
    context.fillStyle = colour.paper;
    context.fillRect(this.rows.left, top, x(this.shown.recording.seconds) - this.rows.left, height);
    context.strokeStyle = colour.grid;
    context.setLineDash([2, 4]);
    context.beginPath();
    context.moveTo(0, Math.round(y(500)) + 0.5);
    context.lineTo(this.rows.width, Math.round(y(500)) + 0.5);
    context.stroke();
    context.setLineDash([]);
    for (const piece of pieces) {
      this.clipped(context, piece, top, height, () => {
        const { start, end } = piece;
        const count = start.length;
        // With overlapping windows a value stands from its window's start to the next one's.
        const stop = (index) => (index + 1 < count ? start[index + 1] : end[index]);
        const path = (values, back) => {
          for (let step = 0; step < count; step += 1) {
            const index = back ? count - 1 - step : step;
            const [one, other] = back ? [stop(index), start[index]] : [start[index], stop(index)];
            context.lineTo(x(one), y(values[index]));
            context.lineTo(x(other), y(values[index]));
          }
        };
        context.beginPath();
        path(piece.high[lane], false);
        path(piece.low[lane], true);
        context.fillStyle = colour.blue;
        context.globalAlpha = 0.28;
        context.fill();
        context.globalAlpha = 1;
        context.beginPath();
        path(piece.probability[lane], false);
        context.strokeStyle = colour.blue;
        context.lineWidth = 1.5;
        context.stroke();
        context.lineWidth = 1;
      });
    }
  }

  clipped(context, piece, top, height, draw) {
    context.save();
    if (piece.from !== undefined) {
      context.beginPath();
      context.rect(this.x(piece.from), top, this.x(piece.to) - this.x(piece.from), height);
      context.clip();
    }
    draw();
    context.restore();
  }

  drawEvents(context, rows) {
    const { colour, shown } = this;
    for (const event of shown.events) {
      if (event.offset < shown.from || event.onset > shown.to) {
        continue;
      }
      const lane = shown.lanes.indexOf(event.label);
      const top = lane < 0 ? rows.others : rows.lanes[lane];
      const height = lane < 0 ? STRIP : rows.lane;
      const left = this.x(event.onset);
      const width = Math.max(3, this.x(event.offset) - left);
      const kind = event.verdict === null ? colour.orange : event.verdict ? colour.good : colour.grey;
      context.fillStyle = kind;
      context.globalAlpha = event.verdict === false ? 0.1 : 0.16;
      context.beginPath();
      context.roundRect(left, top, width, height, 3);
      context.fill();
      context.globalAlpha = 1;
      context.strokeStyle = kind;
      context.setLineDash(event.verdict === false ? [4, 3] : []);
      context.stroke();
      context.setLineDash([]);
      if (event.verdict !== null && width > 14) {
        context.fillStyle = kind;
        context.font = `bold 11px ${this.font}`;
        context.textAlign = "right";
        context.fillText(event.verdict ? "✓" : "✗", left + width - 3, top + 8);
        context.textAlign = "left";
      }
    }
  }

  drawStrips(context, rows, pieces) {
    const { colour, shown, x } = this;
    for (const [name, kind] of [["aleatoric", colour.soft], ["epistemic", colour.blue]]) {
      const top = shown.recording.scales[name] || 1;
      this.each(pieces, rows[name], (piece, index, left, width) => {
        context.fillStyle = kind;
        context.globalAlpha = 0.05 + 0.9 * Math.min(1, piece[name][index] / top);
        context.fillRect(left, rows[name], width, STRIP);
      });
    }
    context.globalAlpha = 1;
    this.each(pieces, rows.flags, (piece, index, left, width) => {
      if (piece.outside[index]) {
        context.fillStyle = colour.pink;
        context.fillRect(left, rows.flags, Math.max(1.5, width), STRIP / 2 - 0.5);
      }
      if (piece.left[index]) {
        context.fillStyle = colour.vermilion;
        context.fillRect(left, rows.flags + STRIP / 2 + 0.5, Math.max(1.5, width), STRIP / 2 - 0.5);
      }
    });
    context.strokeStyle = colour.grid;
    for (const name of ["others", "flags", "labels"]) {
      context.strokeRect(rows.left - 1, rows[name] + 0.5, x(shown.recording.seconds) - rows.left + 1, STRIP);
    }
  }

  each(pieces, top, draw) {
    const context = this.context.drawing;
    for (const piece of pieces) {
      this.clipped(context, piece, top, STRIP, () => {
        piece.start.forEach((start, index) => {
          const stop = index + 1 < piece.start.length ? piece.start[index + 1] : piece.end[index];
          const left = this.x(start);
          draw(piece, index, left, this.x(stop) - left + 0.3);
        });
      });
    }
  }

  drawMarks(context, rows) {
    const { colour, shown } = this;
    context.font = `10px ${this.font}`;
    for (const mark of shown.marks) {
      const left = this.x(mark.start);
      const width = Math.max(3, this.x(mark.end ?? shown.recording.seconds) - left);
      const heard = mark.labels.length > 0;
      context.fillStyle = heard ? colour.good : colour.grey;
      context.strokeStyle = context.fillStyle;
      context.globalAlpha = heard ? 0.85 : 0.25;
      context.beginPath();
      context.roundRect(left, rows.labels + 1, width, STRIP - 2, 3);
      context.fill();
      context.globalAlpha = 1;
      const text = heard ? mark.labels.join(", ") : mark.refuted.length ? `no ${mark.refuted.join(", ")}` : "nothing";
      if (width > 26) {
        context.save();
        context.beginPath();
        context.rect(left, rows.labels, width - 2, STRIP);
        context.clip();
        context.fillStyle = heard ? colour.paper : colour.ink;
        context.fillText(text, Math.max(left, rows.left) + 4, rows.labels + STRIP / 2 + 0.5);
        context.restore();
      }
    }
  }

  drawSelection(context, rows) {
    const { selection } = this.shown;
    if (!selection) {
      return;
    }
    const left = this.x(selection.start);
    const width = Math.max(3, this.x(selection.end) - left);
    context.strokeStyle = this.colour.link;
    context.fillStyle = this.colour.link;
    context.globalAlpha = 0.07;
    context.fillRect(left, AXIS, width, rows.height - AXIS);
    context.globalAlpha = 1;
    context.lineWidth = 2;
    const lane = this.shown.lanes.indexOf(selection.label);
    context.beginPath();
    if (lane < 0) {
      context.roundRect(left, AXIS, width, rows.height - AXIS - 2, 3);
    } else {
      context.roundRect(left, rows.lanes[lane], width, rows.lane, 3);
    }
    context.stroke();
    context.lineWidth = 1;
  }

  // What each row is: beside it, or over what is drawn in it.
  names(context, rows) {
    const { shown, colour } = this;
    context.lineJoin = "round";
    context.textBaseline = "middle";
    const write = (text, top, height, size) => {
      context.font = `${size}px ${this.font}`;
      context.fillStyle = colour.ink;
      if (rows.left) {
        const lines = this.lines(context, text, rows.left - 14, Math.max(1, Math.floor(height / (size + 2))));
        context.textAlign = "right";
        lines.forEach((line, index) => {
          const place = top + height / 2 + (index - (lines.length - 1) / 2) * (size + 2);
          context.fillText(line, rows.left - 8, place);
        });
        context.textAlign = "left";
        return;
      }
      context.lineWidth = 3;
      context.strokeStyle = colour.paper;
      context.globalAlpha = 0.85;
      context.strokeText(text, 6, top + Math.min(height / 2, 9));
      context.globalAlpha = 1;
      context.fillText(text, 6, top + Math.min(height / 2, 9));
      context.lineWidth = 1;
    };
    shown.lanes.forEach((label, lane) => write(shown.labels[label], rows.lanes[lane], rows.lane, 12));
    for (const [name, text] of [["others", "other events"], ["aleatoric", "aleatoric"], ["epistemic", "epistemic"],
      ["flags", "outside · left"], ["labels", "your labels"]]) {
      write(text, rows[name], STRIP, 10.5);
    }
  }

  // The words of a text in lines of at most a width; what has no room is cut off.
  lines(context, text, width, most) {
    const made = [];
    for (const word of text.split(" ")) {
      const longer = made.length ? `${made.at(-1)} ${word}` : word;
      if (made.length && context.measureText(longer).width <= width) {
        made[made.length - 1] = longer;
      } else {
        made.push(word);
      }
    }
    const kept = made.slice(0, most);
    if (made.length > most) {
      kept[most - 1] += " …";
    }
    return kept.map((line) => {
      let short = line;
      while (short.length > 1 && context.measureText(short).width > width) {
        short = `${short.replace(/…$/, "").slice(0, -1)}…`;
      }
      return short;
    });
  }

  drawCursor(seconds) {
    if (!this.rows) {
      return;
    }
    const context = this.size(this.canvas.cursor, this.rows.width, this.rows.height);
    const place = this.x(seconds);
    if (place >= this.rows.left && place <= this.rows.width) {
      context.fillStyle = this.colour.paper;
      context.fillRect(place - 1.5, AXIS - 6, 3, this.rows.height);
      context.fillStyle = this.colour.ink;
      context.fillRect(place - 0.75, AXIS - 6, 1.5, this.rows.height);
      context.beginPath();
      context.moveTo(place - 5, AXIS - 8);
      context.lineTo(place + 5, AXIS - 8);
      context.lineTo(place, AXIS - 1);
      context.fill();
    }
  }

  // The whole recording in a line: events, what is said of them, and the part that the timeline shows.
  drawOverview({ recording, from, to, events, marks }) {
    const canvas = this.canvas.overview;
    const width = canvas.clientWidth;
    const height = 26;
    const context = this.size(canvas, width, height);
    const x = (seconds) => seconds / recording.seconds * width;
    for (const event of events) {
      const { good, grey, orange } = this.colour;
      context.fillStyle = event.verdict === null ? orange : event.verdict ? good : grey;
      context.globalAlpha = 0.75;
      const tall = 4 + 12 * event.probability;
      context.fillRect(x(event.onset), height - 6 - tall, Math.max(1.5, x(event.offset) - x(event.onset)), tall);
    }
    context.globalAlpha = 1;
    for (const mark of marks) {
      context.fillStyle = mark.labels.length ? this.colour.good : this.colour.grey;
      context.fillRect(x(mark.start), height - 4, Math.max(2, x(mark.end ?? recording.seconds) - x(mark.start)), 3);
    }
    context.fillStyle = this.colour.link;
    context.globalAlpha = 0.14;
    context.fillRect(x(from), 0, Math.max(4, x(to) - x(from)), height);
    context.globalAlpha = 1;
    context.strokeStyle = this.colour.link;
    context.strokeRect(x(from) + 0.5, 0.5, Math.max(3, x(to) - x(from) - 1), height - 1);
  }
}
