// Colours of classes and of values.
// Bright ones, which stand out from the pink and purple of H&E, and no two that a colour-blind eye takes for one.
const PALETTE = ["#00d26a", "#ffe000", "#2f7bff", "#ff3b30", "#00d5ff", "#ff8c00", "#d35bff", "#b8f000", "#ffffff", "#8d6e63"];
const known = new Map();

export function classColour(name) {
  if (!known.has(name)) known.set(name, PALETTE[known.size % PALETTE.length]);
  return known.get(name);
}

export const rgbOf = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

// Turbo, by the polynomials of its authors: readable on tissue, dark at the ends.
function turbo(t) {
  const v = [1, t, t * t, t ** 3, t ** 4, t ** 5];
  const dot = (c) => c.reduce((sum, factor, i) => sum + factor * v[i], 0);
  return [
    dot([0.13572138, 4.6153926, -42.66032258, 132.13108234, -152.94239396, 59.28637943]),
    dot([0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604]),
    dot([0.1066733, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973]),
  ].map((share) => Math.round(255 * Math.min(1, Math.max(0, share))));
}

export const RAMP = Array.from({ length: 256 }, (_, i) => turbo(i / 255));
export const NO_VALUE = [150, 150, 150];

export function ramp(value, [low, high]) {
  if (!Number.isFinite(value)) return NO_VALUE;
  return RAMP[Math.max(0, Math.min(255, Math.floor((256 * (value - low)) / (high - low))))];
}
