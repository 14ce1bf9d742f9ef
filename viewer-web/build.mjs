// Builds the page into the folder that is given, or into the package. The same sources give the same bytes.
import { build } from "esbuild";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "..", "wsi_nuc", "viewer", "static");
mkdirSync(out, { recursive: true });
// OpenSeadragon adds a style of its own for touch screens, which the policy of the page refuses.
const STYLE = "if (!document.querySelector('style[data-openseadragon-mobile-css]'))";
const withoutStyle = {
  name: "without-style",
  setup(building) {
    building.onLoad({ filter: /openseadragon[.]js$/ }, ({ path }) => {
      const source = readFileSync(path, "utf8");
      if (source.split(STYLE).length !== 2) throw new Error("OpenSeadragon has changed where it adds a style");
      return { contents: source.replace(STYLE, "if (false)"), loader: "js" };
    });
  },
};
await build({
  absWorkingDir: here,
  plugins: [withoutStyle],
  entryPoints: { viewer: "src/main.js" },
  outdir: out,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  legalComments: "none",
});
await build({ absWorkingDir: here, entryPoints: ["src/viewer.css"], outdir: out, minify: true });
copyFileSync(join(here, "src", "index.html"), join(out, "index.html"));
const licence = readFileSync(join(here, "node_modules", "openseadragon", "LICENSE.txt"), "utf8");
writeFileSync(join(out, "LICENSES.txt"), `viewer.js contains OpenSeadragon:\n\n${licence}`);
