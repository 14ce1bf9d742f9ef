// One slide with its nuclei: tiles below, nuclei in WebGL above them, lines of the layers and the scale bar on top.
import OpenSeadragon from "openseadragon";
import { json } from "./api.js";
import { debounced, el } from "./dom.js";
import { Layer } from "./gl.js";
import { Nuclei } from "./nuclei.js";

// Shifts that make a line two pixels wide.
const THIN = [[0, 0]], MIDDLE = [[0, 0], [1, 0]], WIDE = [[0, 0], [1, 0], [0, 1]];
const LOST = { missing: "#7d8590", damaged: "#ff8c00", failed: "#ff3b30" };

export class Pane {
  constructor(meta, options) {
    this.meta = meta;
    this.options = options;
    this.root = el("div", { class: "pane" });
    this.tiles = el("div", { class: "tiles" });
    this.glCanvas = el("canvas", { class: "over" });
    this.lineCanvas = el("canvas", { class: "over" });
    this.label = el("div", { class: "label" }, meta.name);
    this.bar = new ScaleBar();
    this.root.append(this.tiles, this.label, this.bar.root);
    options.parent.append(this.root);
    this.layer = new Layer(this.glCanvas);
    this.draw = this.draw.bind(this);
    // Asks for a picture in the next frame. `moved` comes within one, with every step of a move, but also with every
    // tile: it draws at once, and only if the view is another one.
    this.changed = () => this.frame || (this.frame = requestAnimationFrame(this.draw));
    this.moved = () => this.ready && JSON.stringify(this.view) !== this.drawnView && this.draw();
    this.nuclei = new Nuclei(meta, this.layer, this.changed, options.failed);
    this.times = {};
    this.paths = {};
    this.resized = new ResizeObserver(() => this.changed());
    this.resized.observe(this.root);
  }

  // Only when it has its place on the page: what lies in its corners is sized by it.
  openSlide() {
    const { id, width, height, tile, steps } = this.meta;
    this.osd = OpenSeadragon({
      element: this.tiles,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: true,
      navigatorPosition: "BOTTOM_RIGHT",
      navigatorSizeRatio: 0.16,
      navigatorAutoFade: false,
      animationTime: 0.25,
      springStiffness: 9,
      zoomPerScroll: 1.4,
      visibilityRatio: 0.3,
      minZoomImageRatio: 0.7,
      maxZoomPixelRatio: 16,
      imageLoaderLimit: 4,
      immediateRender: true,
      minPixelRatio: 0.7,
      maxImageCacheCount: 300,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      tileSources: {
        width,
        height,
        tileSize: tile,
        minLevel: 0,
        maxLevel: steps,
        getTileUrl: (level, x, y) => `/api/${id}/tile/${steps - level}/${x}/${y}`,
      },
    });
    // Above the tiles and below the small map.
    this.osd.canvas.append(this.glCanvas, this.lineCanvas);
    this.osd.addHandler("canvas-key", (event) => (event.preventDefaultAction = true));
    for (const name of ["update-viewport", "animation"]) this.osd.addHandler(name, this.moved);
    for (const name of ["resize", "open"]) this.osd.addHandler(name, this.changed);
    const settled = debounced(120, () => this.options.settled(this));
    this.osd.addHandler("viewport-change", () => {
      this.options.moved(this);
      settled();
    });
    this.osd.addHandler("open", () => this.options.opened(this));
    this.osd.addHandler("tile-drawn", () => (this.times.tiles ??= performance.now()));
    this.osd.addHandler("canvas-click", (event) => event.quick && this.options.clicked(this, this.toL0(event.position)));
  }

  // Corners in level-0 pixels, and screen pixels (of the device) per level-0 pixel.
  get view() {
    const box = this.osd.viewport.getBounds(true), w = this.meta.width, ratio = window.devicePixelRatio || 1;
    return { x: box.x * w, y: box.y * w, x1: (box.x + box.width) * w, y1: (box.y + box.height) * w, scale: (this.root.clientWidth * ratio) / (box.width * w) };
  }

  get ready() {
    return Boolean(this.osd?.viewport && this.osd.world.getItemCount());
  }

  // Centre in level-0 pixels, and CSS pixels per level-0 pixel.
  get place() {
    const { x, y, x1, y1 } = this.view;
    return { x: (x + x1) / 2, y: (y + y1) / 2, zoom: this.root.clientWidth / (x1 - x) };
  }

  go({ x, y, zoom }, now = true) {
    const w = this.meta.width, wide = this.root.clientWidth / zoom / w, high = this.root.clientHeight / zoom / w;
    this.osd.viewport.fitBounds(new OpenSeadragon.Rect(x / w - wide / 2, y / w - high / 2, wide, high), now);
  }

  toL0(position) {
    const point = this.osd.viewport.pointFromPixel(position);
    return [point.x * this.meta.width, point.y * this.meta.width];
  }

  async showLayers() {
    this.layers ??= await json(`/api/${this.meta.id}/layers`);
    this.changed();
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    if (!this.ready) return;
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.glCanvas, this.lineCanvas]) {
      const [wide, high] = [Math.round(this.root.clientWidth * ratio), Math.round(this.root.clientHeight * ratio)];
      if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
    }
    const view = this.view, look = this.options.look();
    this.drawnView = JSON.stringify(view);
    this.layer.begin(view);
    this.complete = true;
    this.drawn = "nothing";
    if (look.nuclei) this.drawNuclei(view, look, ratio);
    this.drawLines(view, look, ratio);
    if (this.complete) this.times.nuclei ??= performance.now();
    this.pictures = (this.pictures ?? 0) + 1;
  }

  drawNuclei(view, look, ratio) {
    const nuclei = this.nuclei, kind = nuclei.kind(view);
    this.drawn = kind;
    if (kind === "density") {
      this.complete = Boolean(nuclei.density);
      if (nuclei.density) this.layer.map([nuclei.density.width * nuclei.density.bin, nuclei.density.height * nuclei.density.bin], look.opacity);
      return;
    }
    const { cells, complete } = nuclei.visible(view, kind);
    this.complete = complete;
    if (!complete && nuclei.density && !cells.length) this.layer.map([nuclei.density.width * nuclei.density.bin, nuclei.density.height * nuclei.density.bin], look.opacity);
    // Screen pixels per micron decide how many vertices of an outline show, and how wide it is.
    const fine = view.scale / ratio / nuclei.meta.mpp, most = fine < 1.6 ? 8 : fine < 3 ? 10 : fine < 6 ? 16 : 1e6, shifts = fine < 1.6 ? THIN : fine < 3 ? MIDDLE : WIDE;
    for (const cell of cells) {
      nuclei.paint(cell);
      const [x, y] = cell.corner;
      if (kind === "points") this.layer.points(cell, x, y, ratio * Math.max(2.5, Math.min(6, 14 * view.scale / nuclei.meta.mpp / 4)));
      else {
        if (look.fill) this.layer.fills(cell, x, y, most, look.opacity * 0.55);
        this.layer.lines(cell, x, y, most, shifts);
      }
    }
  }

  drawLines(view, look, ratio) {
    this.bar.show(view.scale / ratio / this.meta.mpp);
    const layers = this.layers ?? null, canvas = this.lineCanvas, s = view.scale;
    const wanted = this.chosen || (layers && (look.skipped || look.lost || look.groups || look.grid || look.tissue || look.roi));
    // An empty canvas that is touched costs as much as a full one.
    if (!wanted && !this.lined) return;
    this.lined = wanted;
    const pen = canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.setTransform(s, 0, 0, s, -view.x * s, -view.y * s);
    if (layers) {
      if (look.skipped) this.boxes(pen, layers.skipped, "#808890", s, ratio, 0.22);
      if (look.lost) for (const [kind, boxes] of Object.entries(layers.lost)) this.boxes(pen, boxes, LOST[kind], s, ratio, 0.45);
      if (look.groups) this.boxes(pen, layers.groups, "#b04dff", s, ratio, 0);
      if (look.grid && layers.grid) this.grid(pen, layers.grid, view, ratio);
      pen.lineWidth = (2 * ratio) / s;
      for (const [name, colour] of [["tissue", "#0b8f8f"], ["roi", "#c2185b"]]) {
        if (!look[name]) continue;
        this.paths[name] ??= pathOf(layers[name]);
        pen.strokeStyle = colour;
        pen.stroke(this.paths[name]);
      }
    }
    if (this.chosen) {
      const path = pathOf([this.chosen]);
      for (const [colour, width] of [["#000000", 5], ["#ffffff", 2.5]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = (width * ratio) / s;
        pen.stroke(path);
      }
    }
  }

  boxes(pen, boxes, colour, s, ratio, fill) {
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = ratio / s;
    for (const [x0, y0, x1, y1] of boxes) {
      if (fill) {
        pen.globalAlpha = fill;
        pen.fillRect(x0, y0, x1 - x0, y1 - y0);
        pen.globalAlpha = 1;
      }
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
  }

  grid(pen, [edge, columns, rows], view, ratio) {
    const s = view.scale, { width, height } = this.meta;
    if (edge * s < 4) return;
    pen.strokeStyle = "#1f6feb";
    pen.lineWidth = (1.5 * ratio) / s;
    pen.beginPath();
    for (let i = 0; i <= columns; i++) line(pen, Math.min(i * edge, width), 0, Math.min(i * edge, width), height);
    for (let i = 0; i <= rows; i++) line(pen, 0, Math.min(i * edge, height), width, Math.min(i * edge, height));
    pen.stroke();
  }

  // What is on the screen, as one picture.
  picture() {
    // At once, since what WebGL has painted is gone with the next frame.
    this.draw();
    const made = document.createElement("canvas");
    Object.assign(made, { width: this.glCanvas.width, height: this.glCanvas.height });
    const pen = made.getContext("2d");
    pen.fillStyle = getComputedStyle(this.root).backgroundColor;
    pen.fillRect(0, 0, made.width, made.height);
    for (const canvas of [this.osd.drawer.canvas, this.glCanvas, this.lineCanvas]) pen.drawImage(canvas, 0, 0, made.width, made.height);
    const ratio = window.devicePixelRatio || 1;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.bar.paint(pen, this.root.clientHeight);
    return made;
  }

  close() {
    this.located = false;
    this.resized.disconnect();
    cancelAnimationFrame(this.frame);
    this.osd?.destroy();
    this.layer.gl.getExtension("WEBGL_lose_context")?.loseContext();
    this.root.remove();
  }
}

function pathOf(rings) {
  const path = new Path2D();
  for (const ring of rings) {
    ring.forEach(([x, y], i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));
    path.closePath();
  }
  return path;
}

function line(pen, x0, y0, x1, y1) {
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
}

// A bar of a round number of microns.
class ScaleBar {
  constructor() {
    this.text = el("span");
    this.line = el("i");
    this.root = el("div", { class: "scale" }, this.text, this.line);
  }

  show(pxPerUm) {
    if (pxPerUm === this.shown) return;
    this.shown = pxPerUm;
    const wanted = 130 / pxPerUm, power = 10 ** Math.floor(Math.log10(wanted));
    const um = [5, 2, 1].map((step) => step * power).find((step) => step <= wanted) ?? power;
    this.text.textContent = um >= 1000 ? `${um / 1000} mm` : `${+um.toPrecision(2)} µm`;
    this.wide = um * pxPerUm;
    this.line.style.width = `${this.wide}px`;
  }

  // The same on a picture.
  paint(pen, height) {
    const y = height - 18;
    pen.font = "600 13px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.fillStyle = "rgba(255,255,255,0.82)";
    pen.fillRect(10, y - 24, this.wide + 16, 34);
    pen.fillStyle = "#111";
    pen.fillRect(18, y, this.wide, 4);
    pen.fillText(this.text.textContent, 18 + this.wide / 2, y - 7);
  }
}
