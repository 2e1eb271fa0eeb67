// What the server is asked for. All addresses are relative to the page's, which holds the token.

export async function get(path) {
  return answer(await fetch(path));
}

export async function put(path, body) {
  return answer(await fetch(path, {
    method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  }));
}

async function answer(response) {
  const value = await response.json();
  if (!response.ok) {
    throw new Error(value.error);
  }
  return value;
}

// Runs few jobs at a time, those last asked for first: what is on the screen now comes before what was.
export class Queue {
  constructor(width, most) {
    this.width = width;
    this.most = most;
    this.running = 0;
    this.waiting = [];
  }

  add(key, job) {
    this.waiting = this.waiting.filter((each) => each.key !== key);
    this.waiting.push({ key, job });
    // What has left the screen long ago is not worth making.
    this.waiting.splice(0, Math.max(0, this.waiting.length - this.most));
    this.next();
  }

  clear() {
    this.waiting = [];
  }

  next() {
    while (this.running < this.width && this.waiting.length) {
      const { job } = this.waiting.pop();
      this.running += 1;
      job().catch(() => {}).finally(() => {
        this.running -= 1;
        this.next();
      });
    }
  }
}

// Keeps the values used last.
export class Kept {
  constructor(most) {
    this.most = most;
    this.map = new Map();
  }

  get(key) {
    const value = this.map.get(key);
    if (value !== undefined) {
      this.map.delete(key);
      this.map.set(key, value);
    }
    return value;
  }

  set(key, value) {
    this.map.delete(key);
    this.map.set(key, value);
    if (this.map.size > this.most) {
      this.map.delete(this.map.keys().next().value);
    }
  }

  clear() {
    this.map.clear();
  }
}
