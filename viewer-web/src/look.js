// What the page shows, and the part of its address behind # that keeps it.
export const LAYERS = [
  ["nuclei", "Nuclei", "o"],
  ["fill", "Filled", "f"],
  ["tissue", "Tissue searched", "t"],
  ["roi", "ROI", "r"],
  ["grid", "Tiles and seams", "g"],
  ["skipped", "Skipped tiles", "k"],
  ["lost", "Lost places", "l"],
  ["groups", "Row groups of the table", ""],
];

export function freshLook() {
  return { store: "", other: "", side: false, colour: "class", hidden: new Set(), ranges: {}, place: null, opacity: 0.9, nuclei: true, fill: false, tissue: false, roi: true, grid: false, skipped: false, lost: true, groups: false, chosen: 0, theme: "" };
}

export function toHash(look) {
  const query = new URLSearchParams();
  if (look.store) query.set("s", look.store);
  if (look.other) query.set("o", look.other);
  if (look.side) query.set("side", "1");
  if (look.place) query.set("at", [look.place.x.toFixed(1), look.place.y.toFixed(1), look.place.zoom.toPrecision(5)].join(","));
  if (look.colour !== "class") query.set("c", look.colour);
  if (look.hidden.size) query.set("hide", JSON.stringify([...look.hidden]));
  if (Object.keys(look.ranges).length) query.set("r", JSON.stringify(look.ranges));
  query.set("l", LAYERS.map(([name]) => (look[name] ? 1 : 0)).join(""));
  if (look.opacity !== 0.9) query.set("a", look.opacity);
  if (look.chosen) query.set("n", look.chosen);
  if (look.theme) query.set("theme", look.theme);
  return `#${query}`;
}

// Whatever somebody wrote there: what makes no sense is left out.
export function fromHash(text) {
  const look = freshLook(), query = new URLSearchParams(text.replace(/^#/, ""));
  look.store = query.get("s") ?? "";
  look.other = query.get("o") ?? "";
  look.side = query.get("side") === "1";
  const place = (query.get("at") ?? "").split(",").map(Number);
  if (place.length === 3 && place.every(Number.isFinite) && place[2] > 0) look.place = { x: place[0], y: place[1], zoom: place[2] };
  look.colour = query.get("c") ?? "class";
  const parsed = (name, otherwise) => {
    try {
      return JSON.parse(query.get(name)) ?? otherwise;
    } catch {
      return otherwise;
    }
  };
  const hidden = parsed("hide", []);
  look.hidden = new Set(Array.isArray(hidden) ? hidden.filter((name) => typeof name === "string") : []);
  for (const [name, range] of Object.entries(parsed("r", {}))) {
    if (Array.isArray(range) && range.length === 2 && range.every(Number.isFinite)) look.ranges[name] = range;
  }
  const flags = query.get("l") ?? "";
  if (flags) LAYERS.forEach(([name], i) => (look[name] = flags[i] === "1"));
  const opacity = Number(query.get("a"));
  if (opacity > 0 && opacity <= 1) look.opacity = opacity;
  look.chosen = Math.max(0, Math.floor(Number(query.get("n")) || 0));
  look.theme = ["dark", "light"].includes(query.get("theme")) ? query.get("theme") : "";
  return look;
}
