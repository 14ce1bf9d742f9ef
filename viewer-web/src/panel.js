// The panel beside the slide: colours, classes with their counts, histograms, layers, the chosen nucleus.
import { json, filterQuery, queryOf } from "./api.js";
import { classColour, RAMP } from "./colours.js";
import { count, debounced, el, number } from "./dom.js";
import { histogram } from "./histogram.js";
import { LAYERS } from "./look.js";
import { BASIC } from "./nuclei.js";

export class Panel {
  constructor(app) {
    this.app = app;
    this.root = el("aside", { class: "panel", "aria-label": "Figures and settings" });
    this.histograms = new Map();
    this.refresh = debounced(120, () => this.ask());
  }

  // Build everything for the store of the first pane.
  build() {
    const { app } = this, meta = app.panes[0].meta;
    const groups = new Map();
    for (const column of meta.columns) groups.set(column.family, [...(groups.get(column.family) ?? []), column]);
    this.colour = el("select", { id: "colour", onchange: () => app.change({ colour: this.colour.value }) }, el("option", { value: "class" }, "class"));
    for (const [family, columns] of groups) {
      const group = el("optgroup", { label: family });
      for (const column of columns) group.append(el("option", { value: column.name, title: column.about }, column.unit && !column.name.endsWith(column.unit) ? `${column.name} (${column.unit})` : column.name));
      this.colour.append(group);
    }
    this.legend = el("div", { class: "legend" });
    this.classes = el("table", { class: "classes" });
    this.bars = el("div");
    this.histograms.clear();
    this.layers = LAYERS.map(([name, title, key]) => {
      const box = el("input", { type: "checkbox", onchange: () => app.change({ [name]: box.checked }) });
      return { name, box, root: el("label", {}, box, ` ${title}`, key ? el("kbd", {}, key) : null) };
    });
    this.opacity = el("input", { type: "range", min: 0.1, max: 1, step: 0.05, "aria-label": "Opacity of the nuclei", oninput: () => app.change({ opacity: Number(this.opacity.value) }) });
    this.nucleus = el("div");
    this.status = el("div");
    const pairs = (rows) => el("table", { class: "pairs" }, ...rows.map(([name, text]) => el("tr", {}, el("th", {}, name), el("td", {}, text))));
    this.root.replaceChildren(
      this.status,
      el("div", { class: "block" }, el("label", { class: "row", for: "colour" }, "Colour by ", this.colour), this.legend, this.classes),
      this.nucleus,
      this.bars,
      el("details", { class: "block", open: true }, el("summary", {}, "Layers"), el("div", { class: "layers" }, ...this.layers.map((layer) => layer.root)), el("label", { class: "row" }, "Opacity ", this.opacity)),
      el("details", { class: "block" }, el("summary", {}, "Where this comes from"), pairs(meta.provenance)),
    );
    this.sync();
    this.watch();
  }

  sync() {
    const { look } = this.app;
    this.colour.value = look.colour;
    if (!this.colour.value) this.colour.value = "class";
    for (const { name, box } of this.layers) box.checked = look[name];
    this.opacity.value = look.opacity;
    this.refresh();
    for (const shown of this.histograms.values()) shown.draw();
  }

  // A layer that is empty although the run had one says why.
  nameLayers() {
    const { roiIs } = this.app.panes[0]?.layers ?? {};
    const { root } = this.layers.find((layer) => layer.name === "roi");
    root.title = roiIs ?? "";
    root.classList.toggle("off", Boolean(roiIs));
  }

  // Slide and files are compared with what was published while the page is open already.
  async watch() {
    const meta = this.app.panes[0]?.meta;
    if (!meta) return;
    const status = await json(`/api/${meta.id}/status`).catch((error) => ({ why: error.message, problems: [], doubts: [] }));
    if (this.app.panes[0]?.meta !== meta) return;
    const notes = [];
    if (status.problems.length) notes.push(["bad", `This result is damaged: ${status.problems.slice(0, 3).join("; ")}`]);
    if (status.why) notes.push([status.state === "checking" ? "info" : "bad", status.state === "missing" || status.state === "other" ? `${status.why}. Until then this is its thumbnail.` : status.why]);
    for (const doubt of status.doubts) notes.push(["warn", doubt]);
    this.status.replaceChildren(...notes.map(([kind, text]) => el("p", { class: `note ${kind}` }, text)));
    if (status.state !== meta.slide.state) {
      const hidden = ["missing", "other"].includes(status.state);
      meta.slide.state = status.state;
      if (hidden) this.app.reopen();
    }
    if (status.state === "checking" || status.files === "checking") setTimeout(() => this.watch(), 1500);
  }

  columnsShown() {
    const { look } = this.app, meta = this.app.panes[0].meta;
    const names = new Set([...BASIC, look.colour, ...Object.keys(look.ranges)]);
    return [...names].map((name) => meta.columns.find((column) => column.name === name)).filter(Boolean).slice(0, 6);
  }

  async ask() {
    if (!this.app.panes.length || !this.app.panes.every((pane) => pane.located)) return;
    const { app } = this, { look, panes } = app, asked = (this.asked = (this.asked ?? 0) + 1);
    const shown = this.columnsShown();
    const answers = await Promise.all(
      app.panes.map((pane) => {
        const { x, y, x1, y1 } = pane.view;
        const query = { ...filterQuery(pane.nuclei.filter, pane.meta.classes), box: [x, y, x1, y1].map((v) => v.toFixed(1)).join(","), histograms: shown.map((column) => column.name).filter((name) => pane.nuclei.has(name)).join(",") };
        return json(`/api/${pane.meta.id}/stats${queryOf(query)}`).catch(() => null);
      }),
    );
    if (asked !== this.asked || app.panes !== panes || !answers[0]) return;
    this.showClasses(answers);
    this.showLegend();
    for (const [name, old] of this.histograms) {
      if (!shown.some((column) => column.name === name)) {
        old.root.remove();
        this.histograms.delete(name);
      }
    }
    for (const column of shown) {
      if (!this.histograms.has(column.name)) {
        const made = histogram(column, (range) => app.setRange(column.name, range));
        this.histograms.set(column.name, made);
        this.bars.append(made.root);
      }
      this.histograms.get(column.name).show(answers[0].histograms.find((entry) => entry.name === column.name) ?? null, look.ranges[column.name]);
    }
    app.figures = answers;
  }

  showClasses(answers) {
    const { app } = this, { look } = app;
    const names = [...new Set(app.panes.flatMap((pane) => pane.meta.classes.map((entry) => entry.name)))];
    const of = (i, kind, name) => {
      const at = app.panes[i].meta.classes.findIndex((entry) => entry.name === name);
      return at < 0 || !answers[i] ? null : answers[i][kind][at];
    };
    const heads = app.panes.length > 1 ? app.panes.map((_, i) => ["in view " + "AB"[i], (name) => of(i, "view", name)]) : [["in view", (name) => of(0, "view", name)], ["of all", (name) => of(0, "passing", name)]];
    const rows = names.map((name) => {
      const box = el("input", { type: "checkbox", checked: !look.hidden.has(name), "aria-label": `show ${name}`, onchange: () => app.toggleClass(name) });
      const only = el("button", { class: "quiet only", title: `only ${name}`, onclick: () => app.onlyClass(name, names) }, "only");
      const swatch = el("i", { class: "swatch", style: { background: look.colour === "class" ? classColour(name) : "var(--faint)" } });
      return el("tr", { class: look.hidden.has(name) ? "off" : "" }, el("td", {}, el("label", {}, box, swatch, name), only), ...heads.map(([, get]) => el("td", {}, get(name) === null ? "–" : count(get(name)))));
    });
    const sum = (get) => names.reduce((total, name) => total + (get(name) ?? 0), 0);
    this.classes.replaceChildren(
      el("tr", {}, el("th", {}, ""), ...heads.map(([title]) => el("th", {}, title))),
      ...rows,
      el("tr", { class: "sum" }, el("td", {}, "all"), ...heads.map(([, get]) => el("td", {}, count(sum(get))))),
    );
  }

  showLegend() {
    const { look } = this.app, range = this.app.panes[0].nuclei.extents[look.colour];
    if (look.colour === "class" || !range) return this.legend.replaceChildren();
    const stops = [0, 51, 102, 153, 204, 255].map((i) => `rgb(${RAMP[i].join(",")})`).join(",");
    this.legend.replaceChildren(
      el("div", { class: "ramp", style: { background: `linear-gradient(to right, ${stops})` } }),
      el("div", { class: "row dim" }, el("span", {}, number(+range[0].toPrecision(3))), el("span", {}, number(+range[1].toPrecision(3)))),
    );
  }

  showNucleus(known) {
    if (!known) return this.nucleus.replaceChildren();
    const facts = new Map(this.app.panes[0].meta.columns.map((column) => [column.name, column]));
    const row = ([name, value]) => el("tr", { title: facts.get(name)?.about ?? "" }, el("th", {}, name), el("td", {}, typeof value === "number" ? number(value) : String(value ?? "–"), facts.get(name)?.unit ? el("small", {}, ` ${facts.get(name).unit}`) : null));
    const entries = Object.entries(known.values), first = entries.filter(([name]) => !facts.has(name) || ["nucleus", "class"].includes(facts.get(name).family));
    const rest = new Map();
    for (const entry of entries) {
      const family = facts.get(entry[0])?.family;
      if (family && !["nucleus", "class"].includes(family)) rest.set(family, [...(rest.get(family) ?? []), entry]);
    }
    this.nucleus.replaceChildren(
      el("div", { class: "block chosen" },
        el("div", { class: "row" }, el("b", {}, `Nucleus ${count(known.id)}`), el("button", { class: "quiet", title: "Close (Esc)", onclick: () => this.app.choose(0) }, "close")),
        el("table", { class: "pairs" }, ...first.map(row)),
        ...[...rest].map(([family, rows]) => el("details", {}, el("summary", {}, family), el("table", { class: "pairs" }, ...rows.map(row)))),
        el("details", {}, el("summary", {}, "made from"), el("table", { class: "pairs" }, ...known.provenance.map(row)))),
    );
  }
}
