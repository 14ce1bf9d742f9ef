"""How the page looks. It asks nothing of any server, and a policy in it forbids that it ever does."""

from __future__ import annotations

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">
<title>{title}</title><style>{style}</style></head><body>
"""

STYLE = """
:root{--ink:#1d2330;--soft:#5d6678;--line:#d9dee8;--page:#fff;--card:#f6f8fb;--done:#2f7d5b;--pending:#b98a1c;
--failed:#b3392f;--refused:#7d4aa0;--bar:#5b7fb8}
@media (prefers-color-scheme:dark){:root{--ink:#e6eaf2;--soft:#9aa5b8;--line:#333c4d;--page:#151a23;--card:#1d2430;
--done:#58b98c;--pending:#e0b24a;--failed:#ef7a70;--refused:#bb8be0;--bar:#7fa3dc}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1200px;padding:24px;font:15px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--page)}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 10px}p{margin:6px 0}.soft{color:var(--soft)}
.tiles{display:flex;gap:12px;flex-wrap:wrap;margin:18px 0}
.tile{background:var(--card);border-radius:8px;padding:12px 18px;min-width:120px}
.tile b{display:block;font-size:24px}.tile span{color:var(--soft)}
.share{display:flex;height:12px;border-radius:6px;overflow:hidden;background:var(--line)}
.share i{display:block;min-width:3px}
.done{color:var(--done)}.running{color:var(--bar)}.pending{color:var(--pending)}.failed{color:var(--failed)}.refused{color:var(--refused)}
.share .done{background:var(--done)}.share .running{background:var(--bar)}
.share .pending{background:var(--pending)}
.share .failed{background:var(--failed)}.share .refused{background:var(--refused)}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:5px 10px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
td:last-child{overflow-wrap:anywhere}
th{color:var(--soft);font-weight:600}td.n,th.n{text-align:right;white-space:nowrap}
.grid{display:grid;gap:14px;grid-template-columns:repeat(auto-fill,minmax(300px,1fr))}
figure{margin:0;background:var(--card);border-radius:8px;padding:12px}
figcaption{font-size:14px;margin-bottom:8px}
svg{width:100%;height:auto;display:block}
svg rect{fill:var(--bar)}svg .median{stroke:var(--failed);stroke-width:1.5}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
.thumbs{display:grid;gap:10px;grid-template-columns:repeat(auto-fill,minmax(170px,1fr))}
.thumbs figure{padding:8px;font-size:12px;overflow-wrap:anywhere}
.thumbs .pic{height:150px;display:flex;align-items:center;justify-content:center;margin-bottom:6px}
.thumbs img{max-width:100%;max-height:150px;border-radius:4px}
.scroll{max-height:520px;overflow:auto}
.far{outline:2px solid var(--pending)}
summary{cursor:pointer;color:var(--soft);margin:8px 0}
"""
