// The page: which results are there, which is shown, and how it looks. All of it is in `look`, which the address keeps.
import { json } from "./api.js";
import { classColour } from "./colours.js";
import { debounced, el, toast } from "./dom.js";
import { gallery } from "./gallery.js";
import { freshLook, fromHash, LAYERS, toHash } from "./look.js";
import { Pane } from "./pane.js";
import { Panel } from "./panel.js";

const KEYS = [
  ["arrows", "move"], ["+ −", "zoom"], ["0", "whole slide"], ["1 2 4", "10x 20x 40x"], ["n", "next nucleus in view"], ["Esc", "close nucleus or help"],
  ["o f t r g k l", "layers"], ["x", "swap the two results"], ["s", "side by side"], ["c", "next way to colour"], ["d", "dark or light"],
  ["p", "save the view as PNG"], ["u", "copy a link to this view"], ["b", "back to all results"], ["h ?", "this help"],
];

class App {
  constructor() {
    this.root = document.getElementById("app");
    this.panes = [];
    this.metas = new Map();
    this.look = fromHash(location.hash);
    this.keep = debounced(200, () => this.remember());
    this.applyTheme();
  }

  async start() {
    this.rows = await json("/api/all");
    for (const row of this.rows) for (const name of Object.keys(row.classes ?? {})) classColour(name);
    const shown = this.rows.filter((row) => !row.state);
    if (!this.row(this.look.store)) {
      this.look.store = "";
      const twins = shown.length === 2 && this.rows.length === 2 && shown[0].slideKey === shown[1].slideKey;
      if (shown.length === 1 && this.rows.length === 1) this.look.store = shown[0].id;
      if (twins) [this.look.store, this.look.other] = [...shown].sort((a, b) => a.at - b.at).map((row) => row.id);
    }
    if (!this.row(this.look.other)) this.look.other = "";
    addEventListener("keydown", (event) => this.key(event));
    addEventListener("hashchange", () => {
      if (location.hash === toHash(this.look)) return;
      this.look = fromHash(location.hash);
      this.applyTheme();
      this.show();
    });
    await this.show();
  }

  row(id) {
    return this.rows.find((row) => row.id && row.id === id);
  }

  async meta(id) {
    if (!this.metas.has(id)) this.metas.set(id, await json(`/api/${id}`));
    return this.metas.get(id);
  }

  async show() {
    for (const pane of this.panes) pane.close();
    this.panes = [];
    if (!this.row(this.look.store)) return this.showAll();
    await this.showSlide();
  }

  showAll() {
    document.title = "wsi-nuc";
    this.root.replaceChildren(gallery(this.rows, (id) => this.openStore(id)));
    this.remember();
  }

  openStore(id) {
    Object.assign(this.look, { store: id, other: "", side: false, place: null, chosen: 0 });
    history.pushState(null, "", toHash(this.look));
    return this.show();
  }

  async showSlide() {
    const { look } = this;
    this.root.replaceChildren(el("p", { class: "waiting" }, "Opening the result …"));
    const metas = [await this.meta(look.store)];
    if (look.other && look.side) metas.push(await this.meta(look.other));
    document.title = `${metas[0].name} – wsi-nuc`;
    this.panel = new Panel(this);
    this.slides = el("div", { class: "slides" });
    this.root.replaceChildren(this.bar(metas[0]), el("div", { class: "middle" }, this.slides, this.panel.root));
    this.panes = metas.map((meta) => this.pane(meta));
    for (const pane of this.panes) pane.openSlide();
    for (const pane of this.panes) pane.root.classList.toggle("named", this.panes.length > 1 || Boolean(look.other));
    this.panel.build();
    this.apply();
    if (look.chosen) this.choose(look.chosen);
  }

  pane(meta) {
    return new Pane(meta, {
      parent: this.slides,
      look: () => this.look,
      failed: (error) => toast(error.message),
      moved: (pane) => this.follow(pane),
      settled: (pane) => {
        if (!pane.located) return;
        this.follow(pane);
        this.look.place = pane.place;
        this.keep();
        this.panel.refresh();
      },
      opened: (pane) => {
        pane.go(this.look.place ?? this.whole(pane));
        pane.located = true;
        this.panel.refresh();
      },
      clicked: (pane, [x, y]) => {
        const number = pane.nuclei.at(x, y, pane.view);
        this.choose(number, pane);
      },
    });
  }

  // The other pane shows the same place.
  follow(pane) {
    if (this.following || this.panes.length < 2 || !pane.located) return;
    this.following = true;
    for (const other of this.panes) if (other !== pane && other.located) other.go(pane.place);
    this.following = false;
  }

  whole(pane) {
    const { width, height } = pane.meta, zoom = Math.min(pane.root.clientWidth / width, pane.root.clientHeight / height) * 0.96;
    return { x: width / 2, y: height / 2, zoom };
  }

  bar(meta) {
    const { look } = this, twins = this.rows.filter((row) => row.slideKey && row.slideKey === meta.slideKey);
    const choice = (value, label, empty, changed) => {
      const node = el("select", { "aria-label": label, onchange: () => changed(node.value) }, ...(empty ? [el("option", { value: "" }, empty)] : []), ...twins.map((row) => el("option", { value: row.id }, row.name)));
      node.value = value;
      return node;
    };
    const button = (text, title, act) => el("button", { title, onclick: act }, text);
    return el("header", { class: "bar" },
      this.rows.length > 1 ? button("All results", "back to all results (b)", () => this.back()) : null,
      twins.length > 1 ? choice(look.store, "Result", "", (id) => this.swapTo(id, look.other)) : el("b", { class: "name", title: meta.name }, meta.name),
      twins.length > 1 ? choice(look.other, "Second result", "compare with …", (id) => this.swapTo(look.store, id)) : null,
      twins.length > 1 ? button("Swap", "swap the two results (x)", () => this.swap()) : null,
      twins.length > 1 ? button(look.side ? "One" : "Side by side", "side by side (s)", () => this.beside()) : null,
      el("span", { class: "space" }),
      button("Whole", "whole slide (0)", () => this.home()),
      button("PNG", "save the view as PNG (p)", () => this.save()),
      button("Link", "copy a link to this view (u)", () => this.copyLink()),
      button("Dark / light", "dark or light (d)", () => this.turnTheme()),
      button("?", "keys (h)", () => this.help()));
  }

  // Where the first pane is; the place that was kept while there is none.
  get here() {
    return this.panes[0]?.located ? this.panes[0].place : this.look.place;
  }

  swapTo(store, other) {
    Object.assign(this.look, { store, other: other === store ? "" : other, place: this.here });
    return this.show();
  }

  swap() {
    const { look } = this, row = this.row(look.store);
    const other = look.other || this.rows.find((entry) => entry.slideKey === row?.slideKey && entry.id !== look.store)?.id;
    if (!other) return toast("There is only one result of this slide. `wsi-nuc view A B` opens two.");
    look.chosen = 0;
    return this.swapTo(other, look.store);
  }

  beside() {
    const { look } = this, row = this.row(look.store);
    look.other ||= this.rows.find((entry) => entry.slideKey === row?.slideKey && entry.id !== look.store)?.id ?? "";
    if (!look.other) return toast("There is only one result of this slide. `wsi-nuc view A B` opens two.");
    look.side = !look.side;
    look.place = this.here;
    return this.show();
  }

  back() {
    if (this.rows.length < 2) return;
    this.look = { ...freshLook(), theme: this.look.theme };
    history.pushState(null, "", toHash(this.look));
    return this.show();
  }

  reopen() {
    return this.show();
  }

  home() {
    for (const pane of this.panes) pane.go(this.whole(pane), false);
  }

  change(parts) {
    Object.assign(this.look, parts);
    this.apply();
  }

  // Colours, filter and layers of `look` on every pane.
  apply() {
    const { look } = this;
    const state = JSON.stringify([look.colour, [...look.hidden], look.ranges]);
    for (const pane of this.panes) {
      if (pane.looks !== state) {
        pane.looks = state;
        pane.nuclei.setLook(look.colour, { hidden: new Set(look.hidden), ranges: { ...look.ranges } }).then(() => this.panel.refresh(), (error) => toast(error.message));
      }
      if (look.tissue || look.grid || look.skipped || (look.lost && pane.meta.lost) || (look.roi && pane.meta.roi) || look.groups) pane.showLayers().then(() => this.panel.nameLayers(), (error) => toast(error.message));
      pane.changed();
    }
    this.panel.sync();
    this.keep();
  }

  setRange(name, range) {
    const ranges = { ...this.look.ranges };
    if (range) ranges[name] = range;
    else delete ranges[name];
    this.change({ ranges });
  }

  toggleClass(name) {
    const hidden = new Set(this.look.hidden);
    if (!hidden.delete(name)) hidden.add(name);
    this.change({ hidden });
  }

  onlyClass(name, names) {
    const others = names.filter((other) => other !== name), only = others.every((other) => this.look.hidden.has(other)) && !this.look.hidden.has(name);
    this.change({ hidden: new Set(only ? [] : others) });
  }

  async choose(id, pane = this.panes[0]) {
    this.look.chosen = id;
    this.keep();
    for (const each of this.panes) each.chosen = null;
    if (!id) this.panel.showNucleus(null);
    else {
      try {
        const known = await json(`/api/${pane.meta.id}/nucleus/${id}`);
        pane.chosen = known.ring;
        this.panel.showNucleus(known);
      } catch (error) {
        toast(error.message);
      }
    }
    for (const each of this.panes) each.changed();
  }

  // The next nucleus in the view, from left to right.
  next() {
    const pane = this.panes[0], view = pane.view, kind = pane.nuclei.kind(view);
    if (kind !== "cell") return toast("Zoom in until outlines are drawn.");
    const inView = [];
    for (const cell of pane.nuclei.visible(view, kind).cells) {
      for (let i = 0; i < cell.n; i++) {
        const x = cell.x[i] + cell.corner[0], y = cell.y[i] + cell.corner[1];
        if (cell.shown?.[i] && x >= view.x && x <= view.x1 && y >= view.y && y <= view.y1) inView.push([x, cell.rows[i] + 1]);
      }
    }
    inView.sort((a, b) => a[0] - b[0]);
    if (inView.length) this.choose(inView[(inView.findIndex(([, id]) => id === this.look.chosen) + 1) % inView.length][1]);
  }

  picture() {
    const made = this.panes.map((pane) => pane.picture());
    const whole = el("canvas", { width: made.reduce((sum, one) => sum + one.width, 4 * (made.length - 1)), height: made[0].height });
    let x = 0;
    for (const part of made) {
      whole.getContext("2d").drawImage(part, x, 0);
      x += part.width + 4;
    }
    return new Promise((done) => whole.toBlob(done, "image/png"));
  }

  async save() {
    const blob = await this.picture(), { x, y } = this.panes[0].place;
    const link = el("a", { href: URL.createObjectURL(blob), download: `${this.panes[0].meta.name.replace(/\.zarr(\.zip)?$/, "")}-${Math.round(x)}-${Math.round(y)}.png` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  async copyLink() {
    this.remember();
    await navigator.clipboard?.writeText(location.href).then(() => toast("The link to this view is copied."), () => toast(location.href));
  }

  remember() {
    this.look.place = this.here;
    history.replaceState(null, "", toHash(this.look));
  }

  applyTheme() {
    const { theme } = this.look;
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  }

  turnTheme() {
    const dark = this.look.theme ? this.look.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    this.look.theme = dark ? "light" : "dark";
    this.applyTheme();
    this.keep();
    this.panel?.sync();
  }

  help() {
    const open = document.querySelector("dialog");
    if (open) return open.remove();
    const dialog = el("dialog", { onclick: () => dialog.remove(), onclose: () => dialog.remove() }, el("h2", {}, "Keys"), el("table", {}, ...KEYS.map(([key, what]) => el("tr", {}, el("td", {}, ...key.split(" ").map((each) => el("kbd", {}, each))), el("td", {}, what)))));
    document.body.append(dialog);
    dialog.showModal();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input:not([type=checkbox]):not([type=range]), select, textarea")) return;
    const pane = this.panes[0];
    if (event.key === "d") return this.turnTheme();
    if (event.key === "h" || event.key === "?") return this.help();
    if (document.querySelector("dialog")) return;
    if (event.key === "b") return this.back();
    if (!pane?.ready) return;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const place = pane.place, wide = pane.root.clientWidth / place.zoom, high = pane.root.clientHeight / place.zoom;
    if (moves[event.key] && !event.target.matches?.("input")) {
      const [dx, dy] = moves[event.key];
      pane.go({ ...place, x: place.x + (dx * wide) / 4, y: place.y + (dy * high) / 4 }, false);
      return event.preventDefault();
    }
    const zoomBy = (factor) => pane.go({ ...place, zoom: Math.min(16, place.zoom * factor) }, false);
    // 10x has a pixel of a micron, 20x half of one, 40x a quarter.
    const magnified = (times) => pane.go({ ...place, zoom: (pane.meta.mpp * times) / 10 }, false);
    const layer = LAYERS.find(([, , key]) => key && key === event.key);
    if (layer) return this.change({ [layer[0]]: !this.look[layer[0]] });
    const acts = {
      "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => this.home(), 1: () => magnified(10), 2: () => magnified(20), 4: () => magnified(40),
      x: () => this.swap(), s: () => this.beside(), p: () => this.save(), u: () => this.copyLink(), n: () => this.next(), Escape: () => this.choose(0), c: () => this.nextColour(),
    };
    acts[event.key]?.();
  }

  nextColour() {
    const names = ["class", ...this.panes[0].meta.columns.map((column) => column.name)];
    this.change({ colour: names[(names.indexOf(this.look.colour) + 1) % names.length] });
  }

  // For tests and benchmarks: whether everything in view is drawn.
  get complete() {
    return this.panes.length > 0 && this.panes.every((pane) => pane.ready && pane.located && pane.complete && !pane.frame && pane.drawnView === JSON.stringify(pane.view));
  }
}

const app = (window.wsiNuc = new App());
app.start().catch((error) => app.root.replaceChildren(el("p", { class: "waiting bad" }, error.message)));
