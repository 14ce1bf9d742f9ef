// The slides of a cohort or folder as thumbnails with their figures, outliers first.
import { classColour } from "./colours.js";
import { count, el, number } from "./dom.js";

const ORDERS = {
  "outliers first": null,
  "name": (row) => row.name,
  "most nuclei": (row) => -row.nuclei,
  "densest": (row) => -(row.nuclei_per_mm2 ?? 0),
  "largest tissue": (row) => -(row.tissue_mm2 ?? 0),
};
const AT_ONCE = 400;

export function gallery(rows, open) {
  const order = el("select", { "aria-label": "Order", onchange: show }, ...Object.keys(ORDERS).map((name) => el("option", {}, name)));
  const words = el("input", { type: "search", placeholder: "find a slide", "aria-label": "Find a slide", oninput: show });
  const grid = el("div", { class: "cards" });
  const done = rows.filter((row) => !row.state), bad = rows.length - done.length;
  const total = done.reduce((sum, row) => sum + row.nuclei, 0), mm2 = done.reduce((sum, row) => sum + (row.tissue_mm2 ?? 0), 0);
  const odd = done.filter((row) => row.why?.length).length;
  const figures = [[count(done.length), "slides"], [count(total), "nuclei"], [`${number(+mm2.toPrecision(4))} mm²`, "tissue"], [count(odd), "stand out"], [count(bad), "not done"]];
  const root = el("main", { class: "gallery" },
    el("header", {}, el("h1", {}, "Results"), el("div", { class: "figures" }, ...figures.map(([value, name]) => el("div", {}, el("b", {}, value), " ", name))), el("div", { class: "tools" }, words, order)),
    grid);
  show();
  return root;

  function show() {
    const key = ORDERS[order.value], text = words.value.toLowerCase();
    let shown = rows.filter((row) => row.name.toLowerCase().includes(text));
    if (key) shown = [...shown].sort((a, b) => (a.state ? 1 : 0) - (b.state ? 1 : 0) || (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
    grid.replaceChildren(...shown.slice(0, AT_ONCE).map(card));
    if (shown.length > AT_ONCE) grid.append(el("p", { class: "dim" }, `and ${count(shown.length - AT_ONCE)} more: find them by name`));
  }

  function card(row) {
    if (row.state) return el("div", { class: "card bad" }, el("div", { class: "picture" }), el("b", {}, row.name), el("p", { class: "dim" }, row.state));
    const shares = Object.entries(row.classes).filter(([, n]) => n);
    const bar = el("div", { class: "shares", title: shares.map(([name, n]) => `${name}: ${count(n)}`).join("\n") }, ...shares.map(([name, n]) => el("i", { style: { flexGrow: n, background: classColour(name) } })));
    return el("a", { class: row.why?.length ? "card odd" : "card", href: `#s=${row.id}`, onclick: (event) => { event.preventDefault(); open(row.id); } },
      el("div", { class: "picture" }, el("img", { src: `/api/${row.id}/thumbnail`, loading: "lazy", alt: `thumbnail of ${row.name}` })),
      el("b", {}, row.name),
      el("div", { class: "numbers" }, el("span", {}, `${count(row.nuclei)} nuclei`), el("span", {}, row.nuclei_per_mm2 ? `${count(row.nuclei_per_mm2)} / mm²` : "")),
      bar,
      ...(row.why ?? []).slice(0, 3).map((why) => el("p", { class: "why" }, why)));
  }
}
