// Fingers, mouse and wheel on the timeline: drag to move, pinch or turn the wheel to zoom, click to choose.

const CLICK = 5; // Pixels that a click may move.

export function onTimeline(stage, { pan, zoom, click }) {
  const down = new Map();
  let moved = 0;
  const place = (event) => event.clientX - stage.getBoundingClientRect().left;

  stage.addEventListener("pointerdown", (event) => {
    if (event.button === 0) {
      down.set(event.pointerId, place(event));
      moved = 0;
    }
  });
  stage.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (before === undefined) {
      return;
    }
    const now = place(event);
    if (down.size === 1) {
      moved += Math.abs(now - before);
      if (moved > CLICK) {
        if (!stage.hasPointerCapture(event.pointerId)) {
          stage.setPointerCapture(event.pointerId);
        }
        stage.classList.add("dragging");
        pan(before - now);
      }
    } else {
      const other = [...down].find(([id]) => id !== event.pointerId)[1];
      moved = Infinity;
      if (Math.abs(now - other) > 8 && Math.abs(before - other) > 8) {
        zoom(Math.abs(before - other) / Math.abs(now - other), (now + other) / 2);
      }
    }
    down.set(event.pointerId, now);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    stage.addEventListener(name, (event) => {
      if (down.delete(event.pointerId) && name === "pointerup" && moved <= CLICK) {
        click(place(event), event.clientY - stage.getBoundingClientRect().top);
      }
      stage.classList.remove("dragging");
    });
  }
  stage.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      zoom(1.0015 ** event.deltaY, place(event));
    } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
      event.preventDefault();
      pan(event.deltaX || event.deltaY);
    }
  }, { passive: false });
}

// A press or a drag on the overview, as a share of its width.
export function onOverview(canvas, go) {
  const share = (event) => {
    const box = canvas.getBoundingClientRect();
    go(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    share(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) {
      share(event);
    }
  });
}
