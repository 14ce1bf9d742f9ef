// Nuclei in WebGL: outlines of two pixels, fills, points and a map of the density, straight from typed arrays.
const TEXELS = 256;
// A cell is drawn in blocks, so many to a side: those out of view cost nothing.
const BLOCKS = 4;

const COMMON = `#version 300 es
precision highp float;
precision highp int;
uniform vec2 origin;      // corner of the cell minus corner of the view, in level-0 pixels
uniform float scale;      // screen pixels per level-0 pixel
uniform vec2 size;        // of the canvas
uniform sampler2D colours;
out vec4 colour;
vec4 place(vec2 screen) { return vec4(2.0 * screen.x / size.x - 1.0, 1.0 - 2.0 * screen.y / size.y, 0.0, 1.0); }
vec4 colourOf(int i) { return texelFetch(colours, ivec2(i % ${TEXELS}, i / ${TEXELS}), 0); }
`;

const SHAPES = `${COMMON}
in vec2 at; in float of;
uniform float alpha;
uniform vec2 shift;       // in screen pixels
void main() {
  colour = colourOf(int(of));
  gl_Position = colour.a == 0.0 ? vec4(2.0, 2.0, 0.0, 1.0) : place((at + origin) * scale + shift);
  colour.a *= alpha;
}`;

const POINTS = `${COMMON}
in float x; in float y;
uniform float pointSize;
void main() {
  colour = colourOf(gl_VertexID);
  gl_PointSize = colour.a == 0.0 ? 0.0 : pointSize;
  gl_Position = colour.a == 0.0 ? vec4(2.0, 2.0, 0.0, 1.0) : place((vec2(x, y) + origin) * scale);
}`;

const FLAT = `#version 300 es
precision highp float;
in vec4 colour; out vec4 pixel;
void main() { pixel = vec4(colour.rgb * colour.a, colour.a); }`;

const MAP = `#version 300 es
precision highp float;
uniform vec2 origin; uniform float scale; uniform vec2 size; uniform vec2 extent;
out vec2 at;
void main() {
  at = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1));
  vec2 screen = (at * extent + origin) * scale;
  gl_Position = vec4(2.0 * screen.x / size.x - 1.0, 1.0 - 2.0 * screen.y / size.y, 0.0, 1.0);
}`;

const PICTURE = `#version 300 es
precision highp float;
uniform sampler2D picture; uniform float alpha;
in vec2 at; out vec4 pixel;
void main() { pixel = texture(picture, at) * alpha; }`;

export class Layer {
  constructor(canvas) {
    this.canvas = canvas;
    const options = { antialias: false, stencil: true, premultipliedAlpha: true };
    const gl = (this.gl = canvas.getContext("webgl2", options));
    if (!gl) throw new Error("this browser has no WebGL2, which draws the nuclei");
    this.programs = { shapes: program(gl, SHAPES, FLAT), points: program(gl, POINTS, FLAT), map: program(gl, MAP, PICTURE) };
    this.empty = gl.createVertexArray();
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  // Buffers of a cell as `parseCell` gives it.
  upload(cell) {
    const gl = this.gl;
    cell.colours = texture(gl, gl.NEAREST);
    cell.buffers = [];
    const buffer = (data) => {
      const made = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, made);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      cell.buffers.push(made);
      return made;
    };
    cell.pointArray = this.array(this.programs.points, [["x", buffer(cell.x), 1], ["y", buffer(cell.y), 1]]);
    if (!cell.xy) return;
    // One buffer of vertices, with the centres behind those of the rings.
    const vertices = cell.xy.length / 2, { n, offsets } = cell;
    const xy = new Float32Array(2 * (vertices + n)), of = new Float32Array(vertices + n);
    xy.set(cell.xy);
    for (let i = 0; i < n; i++) {
      xy[2 * (vertices + i)] = cell.x[i];
      xy[2 * (vertices + i) + 1] = cell.y[i];
      of[vertices + i] = i;
      of.fill(i, offsets[i], offsets[i + 1]);
    }
    cell.places = [["at", buffer(xy), 2], ["of", buffer(of), 1]];
    cell.lists = new Map();
    cell.order = inBlocks(cell);
  }

  // The vertices of outlines in pairs, or those of fills in triples; of rings with many vertices only about `most`.
  // Made when they are first drawn. Instances would need no such lists, but without a GPU each costs as much as a
  // call.
  list(cell, corners, most) {
    const name = `${corners}/${most}`;
    if (cell.lists.has(name)) return cell.lists.get(name);
    const vertices = cell.xy.length / 2, { n, offsets } = cell;
    const list = new Uint32Array(corners * vertices);
    const starts = new Uint32Array(BLOCKS * BLOCKS + 1);
    let at = 0, block = 0;
    for (const i of cell.order.nuclei) {
      for (; cell.order.block[i] >= block; block++) starts[block] = at;
      const last = offsets[i + 1] - 1, step = Math.max(1, Math.round((last - offsets[i]) / most));
      for (let k = offsets[i]; k < last; k += step) {
        if (corners === 3) list[at++] = vertices + i;
        list[at++] = k;
        list[at++] = Math.min(k + step, last);
      }
    }
    starts.fill(at, block);
    const made = { array: this.array(this.programs.shapes, cell.places, list.subarray(0, at), cell.buffers), starts };
    cell.lists.set(name, made);
    return made;
  }

  // Draws the blocks of a list that are in view; `x`, `y`: the corner of the cell.
  draw(kind, cell, x, y, starts) {
    const { view, gl } = this, edge = cell.edge / BLOCKS, reach = cell.reach;
    const at = (l0) => Math.max(0, Math.min(BLOCKS - 1, Math.floor(l0 / edge)));
    const [left, top] = [at(view.x - reach - x), at(view.y - reach - y)];
    const right = at(view.x + this.canvas.width / view.scale + reach - x), bottom = at(view.y + this.canvas.height / view.scale + reach - y);
    const whole = left === 0 && right === BLOCKS - 1;
    for (let row = top; row <= bottom; row += whole ? BLOCKS : 1) {
      const first = starts[row * BLOCKS + left], last = starts[(whole ? bottom : row) * BLOCKS + right + 1];
      if (last > first) gl.drawElements(kind, last - first, gl.UNSIGNED_INT, 4 * first);
    }
  }

  array(shader, attributes, indices, buffers) {
    const gl = this.gl, made = gl.createVertexArray();
    gl.bindVertexArray(made);
    for (const [name, buffer, size] of attributes) {
      const at = gl.getAttribLocation(shader.program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, size, gl.FLOAT, false, 0, 0);
    }
    if (indices) {
      const list = gl.createBuffer();
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, list);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, indices, gl.STATIC_DRAW);
      buffers.push(list);
    }
    gl.bindVertexArray(null);
    return made;
  }

  // `rgba`: 4 bytes per nucleus; those with alpha 0 are not drawn.
  paint(cell, rgba) {
    const gl = this.gl, rows = Math.max(1, Math.ceil(cell.n / TEXELS));
    const padded = new Uint8Array(4 * TEXELS * rows);
    padded.set(rgba);
    gl.bindTexture(gl.TEXTURE_2D, cell.colours);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, TEXELS, rows, 0, gl.RGBA, gl.UNSIGNED_BYTE, padded);
  }

  forget(cell) {
    const gl = this.gl;
    for (const buffer of cell.buffers) gl.deleteBuffer(buffer);
    gl.deleteTexture(cell.colours);
    gl.deleteVertexArray(cell.pointArray);
    for (const { array } of cell.lists?.values() ?? []) gl.deleteVertexArray(array);
  }

  setMap(width, height, rgba) {
    const gl = this.gl;
    this.picture ??= texture(gl, gl.LINEAR);
    gl.bindTexture(gl.TEXTURE_2D, this.picture);
    gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, true);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, width, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, rgba);
    gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  }

  begin(view) {
    const gl = this.gl;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.STENCIL_BUFFER_BIT);
    this.view = view;
  }

  use(shader, x, y) {
    const gl = this.gl, view = this.view;
    gl.useProgram(shader.program);
    gl.uniform2f(shader.at.origin, x - view.x, y - view.y);
    gl.uniform1f(shader.at.scale, view.scale);
    gl.uniform2f(shader.at.size, this.canvas.width, this.canvas.height);
  }

  map(extent, alpha) {
    const gl = this.gl, shader = this.programs.map;
    this.use(shader, 0, 0);
    gl.uniform2f(shader.at.extent, extent[0], extent[1]);
    gl.uniform1f(shader.at.alpha, alpha);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.picture);
    gl.bindVertexArray(this.empty);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  points(cell, x, y, pointSize) {
    const gl = this.gl, shader = this.programs.points;
    this.use(shader, x, y);
    gl.uniform1f(shader.at.pointSize, pointSize);
    this.bind(cell);
    gl.bindVertexArray(cell.pointArray);
    gl.drawArrays(gl.POINTS, 0, cell.n);
  }

  // Lines are a pixel wide everywhere; drawn again half a pixel or one aside they get wider.
  lines(cell, x, y, most, shifts) {
    const gl = this.gl, shader = this.shapes(cell, x, y, 1), { array, starts } = this.list(cell, 2, most);
    gl.bindVertexArray(array);
    for (const [across, down] of shifts) {
      gl.uniform2f(shader.at.shift, across, down);
      this.draw(gl.LINES, cell, x, y, starts);
    }
  }

  // First the stencil counts how often each pixel is covered by the triangles of a ring: an odd number is inside.
  // Then each pixel inside is coloured once.
  fills(cell, x, y, most, alpha) {
    const gl = this.gl, shader = this.shapes(cell, x, y, alpha), { array, starts } = this.list(cell, 3, most);
    gl.uniform2f(shader.at.shift, 0, 0);
    gl.bindVertexArray(array);
    gl.enable(gl.STENCIL_TEST);
    gl.colorMask(false, false, false, false);
    gl.stencilFunc(gl.ALWAYS, 0, 1);
    gl.stencilOp(gl.KEEP, gl.KEEP, gl.INVERT);
    this.draw(gl.TRIANGLES, cell, x, y, starts);
    gl.colorMask(true, true, true, true);
    gl.stencilFunc(gl.EQUAL, 1, 1);
    gl.stencilOp(gl.KEEP, gl.KEEP, gl.ZERO);
    this.draw(gl.TRIANGLES, cell, x, y, starts);
    gl.disable(gl.STENCIL_TEST);
  }

  shapes(cell, x, y, alpha) {
    const shader = this.programs.shapes;
    this.use(shader, x, y);
    this.gl.uniform1f(shader.at.alpha, alpha);
    this.bind(cell);
    return shader;
  }

  bind(cell) {
    const gl = this.gl;
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, cell.colours);
  }
}

// The nuclei of a cell, block by block, and the block of each.
function inBlocks({ n, x, y, edge }) {
  const block = new Uint8Array(n), at = (l0) => Math.max(0, Math.min(BLOCKS - 1, Math.floor((BLOCKS * l0) / edge)));
  for (let i = 0; i < n; i++) block[i] = at(y[i]) * BLOCKS + at(x[i]);
  return { block, nuclei: Uint32Array.from({ length: n }, (_, i) => i).sort((a, b) => block[a] - block[b] || a - b) };
}

function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  const at = {};
  for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i++) {
    const name = gl.getActiveUniform(made, i).name;
    at[name] = gl.getUniformLocation(made, name);
  }
  return { program: made, at };
}

function texture(gl, filter) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  for (const name of ["TEXTURE_MIN_FILTER", "TEXTURE_MAG_FILTER"]) gl.texParameteri(gl.TEXTURE_2D, gl[name], filter);
  for (const name of ["TEXTURE_WRAP_S", "TEXTURE_WRAP_T"]) gl.texParameteri(gl.TEXTURE_2D, gl[name], gl.CLAMP_TO_EDGE);
  return made;
}
