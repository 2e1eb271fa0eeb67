// Plays a recording from any second. Its sound comes in files of up to an hour, which the server decodes as it plays.

const MARGIN = 0.4; // Seconds that are heard before and after a selection.

export class Player {
  constructor(audio, { moved, changed, failed }) {
    this.audio = audio;
    this.moved = moved;
    this.changed = changed;
    this.stopAt = null;
    this.position = 0;
    this.part = null;
    audio.addEventListener("play", () => { changed(); this.follow(); });
    audio.addEventListener("pause", () => changed());
    audio.addEventListener("ended", () => this.ended());
    audio.addEventListener("error", () => {
      if (audio.getAttribute("src")) {
        failed();
      }
    });
  }

  open(recording) {
    this.audio.pause();
    this.audio.removeAttribute("src");
    this.recording = recording;
    this.part = null;
    this.position = 0;
    this.stopAt = null;
  }

  get playing() {
    return !this.audio.paused;
  }

  load(part) {
    if (part !== this.part) {
      const { playbackRate } = this.audio;
      this.part = part;
      this.audio.src = `recordings/${this.recording.key}/sound/${part}.wav`;
      this.audio.defaultPlaybackRate = playbackRate;
      this.audio.playbackRate = playbackRate;
    }
  }

  seek(seconds) {
    this.position = Math.min(Math.max(0, seconds), this.recording.seconds);
    this.stopAt = null;
    if (this.playing) {
      this.start();
    }
    this.moved(this.position);
  }

  async start() {
    const { part, missing, seconds } = this.recording;
    if (missing) {
      return;
    }
    if (this.position >= seconds - 0.05) {
      this.position = 0;
    }
    const number = Math.min(Math.floor(this.position / part), Math.ceil(seconds / part) - 1);
    this.load(number);
    this.audio.currentTime = this.position - number * part;
    try {
      await this.audio.play();
    } catch (error) {
      // A pause or another place came first.
      if (error.name !== "AbortError") {
        this.changed();
      }
    }
  }

  toggle() {
    if (this.playing) {
      this.audio.pause();
    } else {
      this.stopAt = null;
      this.start();
    }
  }

  hear(start, end) {
    this.position = Math.max(0, start - MARGIN);
    this.stopAt = Math.min(this.recording.seconds, end + MARGIN);
    this.start();
    this.moved(this.position);
  }

  follow() {
    if (!this.playing) {
      return;
    }
    // Before a place that was asked for is reached, the element may still tell the one before.
    if (!this.audio.seeking && this.audio.readyState > 0) {
      this.position = this.part * this.recording.part + this.audio.currentTime;
      if (this.stopAt !== null && this.position >= this.stopAt) {
        this.audio.pause();
        this.stopAt = null;
      }
      this.moved(this.position, true);
    }
    requestAnimationFrame(() => this.follow());
  }

  ended() {
    const next = (this.part + 1) * this.recording.part;
    if (next < this.recording.seconds) {
      this.position = next;
      this.start();
    } else {
      this.position = this.recording.seconds;
      this.moved(this.position);
      this.changed();
    }
  }
}
