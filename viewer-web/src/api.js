// Everything that is asked of the server.
async function answer(path) {
  const response = await fetch(path, { credentials: "same-origin" });
  if (!response.ok) throw new Error((await response.text()).trim() || `the server says ${response.status}`);
  return response;
}

export const json = async (path) => (await answer(path)).json();
export const bytes = async (path) => (await answer(path)).arrayBuffer();

export function queryOf(parts) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parts)) if (value !== "" && value !== null && value !== undefined) query.set(name, value);
  const text = query.toString();
  return text ? `?${text}` : "";
}

// A filter as the server reads it. Classes are kept by name, since two stores may number them differently.
export function filterQuery(filter, classes) {
  const kept = classes.map((entry, i) => (filter.hidden.has(entry.name) ? -1 : i)).filter((i) => i >= 0);
  const ranges = Object.entries(filter.ranges).map(([name, [low, high]]) => `${name}:${low},${high}`);
  return { classes: filter.hidden.size ? kept.join(",") || "-1" : null, ranges: ranges.join(";") };
}

// See `outlined` and `points` in viewer/outlines.py.
export function parseCell(buffer, values, outlined) {
  const head = new Uint32Array(buffer, 0, 2);
  const [n, m] = head;
  let at = 8;
  const floats = (size) => {
    const made = new Float32Array(buffer, at, size);
    at += 4 * size;
    return made;
  };
  const ints = (size) => {
    const made = new Uint32Array(buffer, at, size);
    at += 4 * size;
    return made;
  };
  const cell = { n, rows: ints(n), x: floats(n), y: floats(n), score: floats(n), area_um2: floats(n), more: {} };
  for (const name of values) cell.more[name] = floats(n);
  cell.classId = ints(n);
  if (outlined) {
    cell.offsets = ints(n + 1);
    cell.xy = floats(2 * m);
  }
  return cell;
}

export function parseDensity(buffer) {
  const [width, height] = new Uint32Array(buffer, 0, 2);
  const bin = new Float32Array(buffer, 8, 1)[0];
  const values = new Float32Array(buffer, 12, width * height);
  const counts = new Uint16Array(buffer, 12 + 4 * width * height, width * height);
  return { width, height, bin, values, counts };
}
