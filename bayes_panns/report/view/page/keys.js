// The keys, and what each does.

export function onKeys(actions) {
  const named = new Map(Object.entries({
    " ": actions.play, p: actions.hear, j: () => actions.step(1), k: () => actions.step(-1),
    y: actions.heard, n: actions.refuted, r: actions.other, 0: actions.nothing, u: actions.undo,
    w: actions.window, "+": () => actions.zoom(0.5), "=": () => actions.zoom(0.5), "-": () => actions.zoom(2),
    "−": () => actions.zoom(2), f: actions.all, "[": () => actions.beside(-1), "]": () => actions.beside(1),
    a: actions.auto, "?": actions.help,
  }));
  // Who chose from a list with the mouse goes on with the page's keys; who chose with keys goes on in the list.
  let pointed = false;
  addEventListener("pointerdown", () => { pointed = true; }, true);
  addEventListener("change", ({ target }) => {
    if (pointed && target.matches("select, input[type=range]")) {
      target.blur();
    }
  });
  addEventListener("keydown", (event) => {
    pointed = false;
    const { target } = event;
    if (document.querySelector("dialog[open]") || event.altKey || event.isComposing) {
      return;
    }
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !target.matches("input[type=search]")) {
      event.preventDefault();
      actions.undo();
      return;
    }
    if (event.ctrlKey || event.metaKey || target.matches("input:not([type=checkbox]), select, textarea")) {
      return;
    }
    // A button is pressed by its own keys.
    if (event.key === " " && target.matches("button, a, summary, input")) {
      return;
    }
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      actions.move(event.key === "ArrowRight" ? 1 : -1, event.shiftKey);
      return;
    }
    const action = named.get(event.key.length === 1 ? event.key.toLowerCase() : event.key);
    if (action) {
      event.preventDefault();
      action();
    }
  });
}
