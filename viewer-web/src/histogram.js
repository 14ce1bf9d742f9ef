// A histogram in which a range is chosen by dragging; two fields beneath it say the same in numbers.
import { el, number } from "./dom.js";

const WIDE = 280, HIGH = 58;

export function histogram(column, changed) {
  const canvas = el("canvas", { width: WIDE * 2, height: HIGH * 2, class: "histogram", title: "drag to choose a range; double click for all" });
  const field = (label) => el("input", { type: "number", step: "any", "aria-label": `${label} of ${column.name}`, placeholder: label });
  const low = field("least"), high = field("greatest");
  const title = el("span", { title: column.about ?? "" }, column.name, column.unit && !column.name.endsWith(column.unit) ? el("small", {}, ` ${column.unit}`) : null);
  const all = el("button", { class: "quiet", title: "All values", onclick: () => set(null) }, "all");
  const root = el("div", { class: "block" }, el("div", { class: "row" }, title, all), canvas, el("div", { class: "row" }, low, el("span", { class: "dim" }, "to"), high));
  let data = null, range = null, from = null;

  function set(wanted) {
    range = wanted;
    fill();
    changed(range);
  }
  function fill() {
    low.value = range && Math.abs(range[0]) < 1e29 ? +range[0].toPrecision(5) : "";
    high.value = range && Math.abs(range[1]) < 1e29 ? +range[1].toPrecision(5) : "";
    all.disabled = !range;
    draw();
  }
  function draw() {
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
    pen.setTransform(2, 0, 0, 2, 0, 0);
    pen.clearRect(0, 0, WIDE, HIGH);
    if (!data) return;
    const most = Math.max(1, ...data.bars), step = WIDE / data.bars.length, span = data.high - data.low;
    data.bars.forEach((bar, i) => {
      const at = data.low + (span * (i + 0.5)) / data.bars.length;
      const kept = !range || (at >= range[0] && at <= range[1]);
      pen.fillStyle = style.getPropertyValue(kept ? "--accent" : "--faint");
      const tall = Math.max(bar ? 1.5 : 0, (bar / most) * (HIGH - 14));
      pen.fillRect(i * step, HIGH - 12 - tall, step - 0.8, tall);
    });
    pen.fillStyle = style.getPropertyValue("--dim");
    pen.font = "10px system-ui, sans-serif";
    pen.textAlign = "left";
    pen.fillText(number(+data.low.toPrecision(3)), 0, HIGH - 1);
    pen.textAlign = "right";
    pen.fillText(number(+data.high.toPrecision(3)), WIDE, HIGH - 1);
  }
  const valueAt = (event) => {
    const box = canvas.getBoundingClientRect();
    return data.low + (data.high - data.low) * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  // The lowest and the highest bar also hold what lies beyond them.
  const open = ([a, b]) => [a <= data.low ? -1e30 : a, b >= data.high ? 1e30 : b];
  canvas.addEventListener("pointerdown", (event) => {
    if (!data) return;
    canvas.setPointerCapture(event.pointerId);
    from = valueAt(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (from === null) return;
    const to = valueAt(event);
    range = open([Math.min(from, to), Math.max(from, to)]);
    draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const to = valueAt(event), wide = Math.abs(to - from) > (data.high - data.low) / 100;
    const chosen = wide ? open([Math.min(from, to), Math.max(from, to)]) : range && !wide ? null : range;
    from = null;
    set(chosen);
  });
  canvas.addEventListener("dblclick", () => set(null));
  const typed = () => {
    const least = low.value === "" ? -1e30 : Number(low.value), most = high.value === "" ? 1e30 : Number(high.value);
    set(low.value === "" && high.value === "" ? null : [least, most]);
  };
  low.addEventListener("change", typed);
  high.addEventListener("change", typed);
  return {
    root,
    show(shown, chosen) {
      data = shown;
      if (from === null) range = chosen ?? null;
      for (const [input, at] of [[low, range?.[0]], [high, range?.[1]]]) if (document.activeElement !== input) input.value = at === undefined || Math.abs(at) > 1e29 ? "" : +at.toPrecision(5);
      all.disabled = !range;
      draw();
    },
    draw,
  };
}
