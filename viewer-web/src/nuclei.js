// The nuclei of one store as far as a view needs them: fetched in cells, kept while they may be needed again.
import { bytes, filterQuery, json, parseCell, parseDensity, queryOf } from "./api.js";
import { classColour, ramp, RAMP, rgbOf } from "./colours.js";

// Up to so many nuclei in view get outlines, or else points; more are a density.
const MOST_OUTLINED = 4000, MOST_POINTS = 40_000, MOST_CELLS = 80;
const KEPT_CELLS = 500, AT_ONCE = 6;
// A nucleus reaches no further from its centre; larger ones may be cut at the edge of the screen.
const REACH_UM = 15;
export const BASIC = ["score", "area_um2"];

export class Nuclei {
  // `changed` is called when there is something new to draw, `failed` with an error of the server.
  constructor(meta, layer, changed, failed) {
    this.failed = failed;
    this.refused = new Set();
    this.meta = meta;
    this.layer = layer;
    this.changed = changed;
    this.cells = new Map();
    this.queue = [];
    this.loading = 0;
    this.extents = {};
    this.version = 0;
    this.missing = new Set();
    this.shownAt = 0;
    this.colour = "class";
    this.filter = { hidden: new Set(), ranges: {} };
  }

  get path() {
    return `/api/${this.meta.id}`;
  }

  has(name) {
    return this.meta.columns.some((column) => column.name === name);
  }

  // Columns that come with each cell, beside those that always do.
  get values() {
    const names = new Set([this.colour, ...Object.keys(this.filter.ranges)]);
    return [...names].filter((name) => name !== "class" && !BASIC.includes(name) && this.has(name)).sort();
  }

  async setLook(colour, filter) {
    this.colour = colour === "class" || this.has(colour) ? colour : "class";
    this.filter = { hidden: filter.hidden, ranges: Object.fromEntries(Object.entries(filter.ranges).filter(([name]) => this.has(name))) };
    if (this.colour !== "class" && !this.extents[this.colour]) {
      const wanted = this.colour;
      this.extents[wanted] = await json(`${this.path}/extent${queryOf({ value: wanted })}`);
    }
    this.version++;
    this.refreshDensity();
    this.changed();
  }

  async refreshDensity() {
    const version = this.version, colour = this.colour;
    const query = { ...filterQuery(this.filter, this.meta.classes), value: colour === "class" ? "" : colour };
    let density;
    try {
      density = parseDensity(await bytes(`${this.path}/density${queryOf(query)}`));
    } catch (error) {
      return this.failed(error);
    }
    if (version !== this.version) return;
    this.all ??= sums(density);
    this.density = density;
    this.layer.setMap(density.width, density.height, this.mapColours(density));
    this.changed();
  }

  mapColours({ counts, values, width, height }) {
    const rgba = new Uint8Array(4 * width * height);
    const colours = this.meta.classes.map((entry) => rgbOf(classColour(entry.name)));
    const filled = counts.filter((count) => count > 0).sort();
    const full = Math.max(1, filled[Math.floor(filled.length * 0.98)] ?? 1);
    for (let i = 0; i < counts.length; i++) {
      if (!counts[i]) continue;
      const rgb = this.colour === "class" ? colours[values[i]] : ramp(values[i], this.extents[this.colour] ?? [0, 1]);
      rgba.set(rgb, 4 * i);
      rgba[4 * i + 3] = 70 + 170 * Math.min(1, counts[i] / full);
    }
    return rgba;
  }

  // How many nuclei of the store, whatever the filter, lie in the view.
  inView(view) {
    if (!this.all) return Infinity;
    const { bin, width, height, table } = this.all;
    const x = (l0) => Math.max(0, Math.min(width, Math.round(l0 / bin))), y = (l0) => Math.max(0, Math.min(height, Math.round(l0 / bin)));
    const [x0, y0, x1, y1] = [x(view.x), y(view.y), x(view.x1), y(view.y1)];
    const at = (column, row) => table[row * (width + 1) + column];
    return at(x1, y1) - at(x0, y1) - at(x1, y0) + at(x0, y0);
  }

  // "cell" (outlines), "points" or "density".
  kind(view) {
    const count = this.inView(view);
    if (count <= MOST_OUTLINED && this.covering(view, "cell").length <= MOST_CELLS) return "cell";
    return count <= MOST_POINTS && this.covering(view, "points").length <= MOST_CELLS ? "points" : "density";
  }

  edge(kind) {
    return this.meta.cell * (kind === "points" ? this.meta.pointCells : 1);
  }

  // Column, row of the cells that a view needs; a nucleus may reach over the edge of its cell by `reach` pixels.
  covering(view, kind, margin = 0) {
    const edge = this.edge(kind), each = kind === "points" ? this.meta.pointCells : 1;
    const most = this.meta.cells.map((count) => Math.ceil(count / each));
    const reach = REACH_UM / this.meta.mpp + margin;
    const low = [view.x - reach, view.y - reach].map((v) => Math.max(0, Math.floor(v / edge)));
    const high = [view.x1 + reach, view.y1 + reach].map((v, i) => Math.min(most[i] - 1, Math.floor(v / edge)));
    const out = [];
    for (let y = low[1]; y <= high[1]; y++) for (let x = low[0]; x <= high[0]; x++) out.push([x, y]);
    return out;
  }

  key(kind, x, y) {
    return `${kind}/${x}/${y}/${this.values.join(",")}`;
  }

  // The cells of the view that are here, and whether that is all of them. Asks for those that are not.
  visible(view, kind) {
    const here = [], missing = [];
    for (const [x, y] of this.covering(view, kind)) {
      const key = this.key(kind, x, y), cell = this.cells.get(key);
      if (cell) {
        this.cells.delete(key);
        this.cells.set(key, cell);
        here.push(cell);
      } else if (!this.refused.has(key)) missing.push([kind, x, y]);
    }
    this.queue = missing;
    this.missing = new Set(missing.map((cell) => this.key(...cell)));
    this.around = missing.length ? [] : this.ahead(view, kind);
    this.pump();
    return { cells: here, complete: !missing.length };
  }

  // What the next move may need: around the view, in the middle of it for a step closer, and for a step back.
  ahead(view, kind) {
    const wide = view.x1 - view.x, high = view.y1 - view.y, wanted = [];
    const scaled = (by) => ({ x: view.x + (wide * (1 - by)) / 2, x1: view.x1 - (wide * (1 - by)) / 2, y: view.y + (high * (1 - by)) / 2, y1: view.y1 - (high * (1 - by)) / 2 });
    if (kind !== "density") wanted.push([kind, scaled(1.8)]);
    for (const by of [0.5, 1.7]) {
      const other = this.kind(scaled(by));
      if (other !== kind && other !== "density") wanted.push([other, scaled(by)]);
    }
    return wanted
      .flatMap(([each, box]) => this.covering(box, each).map(([x, y]) => [each, x, y]))
      .filter(([each, x, y]) => !this.cells.has(this.key(each, x, y)))
      .slice(0, KEPT_CELLS / 3);
  }

  pump() {
    while (this.loading < AT_ONCE && this.queue.length) this.load(...this.queue.shift());
    clearTimeout(this.timer);
    // One after the other, and only while nothing is asked for.
    if (this.around?.length && !this.loading) this.timer = setTimeout(() => !this.loading && this.around.length && this.load(...this.around.shift()), 10);
  }

  async load(kind, x, y) {
    const key = this.key(kind, x, y);
    this.pending ??= new Set();
    if (this.cells.has(key) || this.pending.has(key)) return this.pump();
    this.pending.add(key);
    this.loading++;
    try {
      const values = this.values;
      const path = kind === "cell" ? "cell" : "points";
      const cell = parseCell(await bytes(`${this.path}/${path}/${x}/${y}${queryOf({ values: values.join(",") })}`), values, kind === "cell");
      Object.assign(cell, { kind, corner: [x * this.edge(kind), y * this.edge(kind)], edge: this.edge(kind), reach: REACH_UM / this.meta.mpp, painted: -1 });
      this.layer.upload(cell);
      this.cells.set(key, cell);
      for (const [old, gone] of this.cells) {
        if (this.cells.size <= KEPT_CELLS) break;
        this.layer.forget(gone);
        this.cells.delete(old);
      }
    } catch (error) {
      // Not again, since nothing would have changed.
      this.refused.add(key);
      this.failed(error);
    } finally {
      this.pending.delete(key);
      this.loading--;
    }
    // A picture costs more than a cell: one when all are here, and a few before.
    if (this.missing.delete(key) && (!this.missing.size || performance.now() - this.shownAt > 150)) {
      this.shownAt = performance.now();
      this.changed();
    }
    this.pump();
  }

  // Colours of the nuclei of a cell, as filter and colouring are now.
  paint(cell) {
    if (cell.painted === this.version) return;
    cell.painted = this.version;
    const rgba = new Uint8Array(4 * cell.n);
    const { hidden, ranges } = this.filter;
    const classes = this.meta.classes.map((entry) => (hidden.has(entry.name) ? null : rgbOf(classColour(entry.name))));
    const column = (name) => cell[name] ?? cell.more[name];
    const limits = Object.entries(ranges).map(([name, range]) => [column(name), ...range]);
    const values = this.colour === "class" ? null : column(this.colour);
    const [low, high] = this.extents[this.colour] ?? [0, 1];
    const factor = 256 / (high - low);
    const grey = [150, 150, 150];
    cell.shown = new Uint8Array(cell.n);
    for (let i = 0; i < cell.n; i++) {
      let colour = classes[cell.classId[i]];
      if (!colour || !limits.every(([known, least, most]) => known && known[i] >= least && known[i] <= most)) continue;
      if (values) {
        const value = values[i];
        colour = value === value ? RAMP[Math.max(0, Math.min(255, Math.floor((value - low) * factor)))] : grey;
      }
      rgba[4 * i] = colour[0];
      rgba[4 * i + 1] = colour[1];
      rgba[4 * i + 2] = colour[2];
      rgba[4 * i + 3] = 255;
      cell.shown[i] = 1;
    }
    this.layer.paint(cell, rgba);
  }

  // The number of the nucleus at a point, or of the nearest centre where only points are known; 0 for none.
  at(x, y, view) {
    const kind = this.kind(view);
    if (kind === "density") return 0;
    let nearest = 0, least = (kind === "cell" ? 0 : 6 / view.scale) ** 2;
    for (const cell of this.visible(view, kind).cells) {
      const px = x - cell.corner[0], py = y - cell.corner[1];
      for (let i = 0; i < cell.n; i++) {
        if (!cell.shown?.[i]) continue;
        if (kind === "cell") {
          if (inside(cell.xy, cell.offsets[i], cell.offsets[i + 1], px, py)) return cell.rows[i] + 1;
        } else {
          const far = (cell.x[i] - px) ** 2 + (cell.y[i] - py) ** 2;
          if (far <= least) [nearest, least] = [cell.rows[i] + 1, far];
        }
      }
    }
    return nearest;
  }
}

function inside(xy, first, last, x, y) {
  let within = false;
  for (let i = first, j = last - 1; i < last; j = i++) {
    const [xi, yi, xj, yj] = [xy[2 * i], xy[2 * i + 1], xy[2 * j], xy[2 * j + 1]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) within = !within;
  }
  return within;
}

// Summed so that the count of any box is four look-ups.
function sums({ width, height, counts, bin }) {
  const table = new Float64Array((width + 1) * (height + 1));
  for (let y = 0; y < height; y++) {
    let row = 0;
    for (let x = 0; x < width; x++) {
      row += counts[y * width + x];
      table[(y + 1) * (width + 1) + x + 1] = table[y * (width + 1) + x + 1] + row;
    }
  }
  return { table, width, height, bin };
}
