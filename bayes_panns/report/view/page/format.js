// Times and numbers as text.

const two = (number) => String(number).padStart(2, "0");

// Seconds as h:mm:ss, with as many decimals as asked for.
export function clock(seconds, decimals = 1) {
  const scale = 10 ** decimals;
  const total = Math.round(Math.max(0, seconds) * scale);
  const whole = Math.floor(total / scale);
  const rest = decimals ? "." + String(total % scale).padStart(decimals, "0") : "";
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return (hours ? `${hours}:${two(minutes)}` : String(minutes)) + `:${two(whole % 60)}${rest}`;
}

// The time of day and the date at a moment of a recording, on the recorder's own clock; null if that is unknown.
export function absolute(recordedAt, seconds) {
  const found = /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d+)?)/.exec(recordedAt || "");
  if (!found) {
    return null;
  }
  const moment = new Date(Date.parse(`${found[1]}T${found[2].slice(0, 8)}Z`) + Math.round(seconds * 1000));
  return { date: moment.toISOString().slice(0, 10), time: moment.toISOString().slice(11, 19) };
}

export function length(seconds) {
  if (seconds < 60) {
    return `${Number(seconds.toFixed(1))} s`;
  }
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function count(number, one, many = one + "s") {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

export const decimal = (number) => number.toFixed(2);

// An element with a class and a text.
export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

// A bar of a probability and its band.
export function bar(low, mean, high) {
  const made = element("span", "bar");
  for (const [name, value] of Object.entries({ low, mean, high })) {
    made.style.setProperty(`--${name}`, value);
  }
  made.append(document.createElement("i"), document.createElement("b"));
  made.setAttribute("aria-hidden", "true");
  return made;
}
