"""How the page looks: one light style sheet for wide screens, phones and paper."""

STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --line: #d5d9de; --pale: #f5f6f8; --accent: #1f4e79; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 72rem; color: var(--ink); background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { margin: .2rem 0 .3rem; font-size: 2rem; line-height: 1.2; }
h2 { margin: 3rem 0 .8rem; padding-bottom: .3rem; border-bottom: 2px solid var(--line); font-size: 1.4rem; }
h3 { margin: 2rem 0 .5rem; font-size: 1.1rem; }
p { margin: .6rem 0; max-width: 46rem; }
a { color: var(--accent); }
.soft, figcaption, caption { color: var(--soft); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 1rem 0 0; padding: 0; list-style: none; }
.key { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .8rem; margin: 1.4rem 0; }
.key div { padding: .8rem 1rem; border: 1px solid var(--line); border-radius: .5rem; background: var(--pale); }
.key dt { color: var(--soft); font-size: .9rem; }
.key dd { margin: 0; font-size: 1.6rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.key dd small { display: block; color: var(--soft); font-size: .85rem; font-weight: 400; }
dl.key { margin-bottom: .5rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .95rem; }
caption { padding-bottom: .4rem; text-align: left; font-size: .9rem; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th + th, td { padding-left: .4rem; }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
th, td { overflow-wrap: normal; }
table:not(.figures) td { overflow-wrap: anywhere; min-width: 7rem; }
tbody th { font-weight: 400; }
tbody th small { display: block; color: var(--soft); }
table.figures tbody th { min-width: 8.5rem; }
th.group { padding-top: .9rem; font-weight: 650; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
table.figures thead th + th { text-align: right; }
table.figures thead th:has(.words) { text-align: left; }
td:has(> .bar) { min-width: 7rem; }
.bar { display: block; width: 100%; height: .8rem; margin-top: .35rem; border: 1px solid var(--line);
  background: var(--pale); }
.bar span { display: block; height: 100%; background: var(--accent); }
.swatch { display: inline-block; min-width: 1.7em; padding: 0 .25em; border: 1px solid var(--ink); text-align: center;
  font-size: .8em; line-height: 1.5; font-weight: 650; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .8rem 0; padding: 0; list-style: none; }
.stripes { background: repeating-linear-gradient(135deg, #aaa 0 4px, #cdcdcd 4px 8px); }
figure { margin: 0 0 .6rem; }
figure > div { overflow-x: auto; }
img { display: block; width: 100%; height: auto; }
figure.plain img { max-width: 46rem; }
figcaption { padding-top: .25rem; font-size: .9rem; }
.grid { display: grid; gap: 1rem; margin: .8rem 0 1.4rem; }
.grid.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--accent); }
pre { padding: .8rem 1rem; overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem; background: var(--pale);
  font-size: .85rem; line-height: 1.4; }
ol.anchors { margin: .4rem 0 1.2rem; padding-left: 1.6rem; font-size: .92rem; font-variant-numeric: tabular-nums; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line); }
@media (max-width: 40rem) {
  body { padding: 1rem .9rem 3rem; font-size: 15px; }
  h1 { font-size: 1.55rem; }
  .key { grid-template-columns: 1fr 1fr; gap: .5rem; }
  .key div { padding: .6rem .7rem; }
  .key dd { font-size: 1.3rem; }
  figure.wide img { width: 48rem; max-width: none; }
  table.figures { font-size: .88rem; }
  table.figures tbody th { min-width: 6.8rem; }
  th, td { padding-right: .4rem; }
  td:has(> .bar), thead th:empty { display: none; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav { display: none; }
  figure, tr, .key div { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
  .grid.two { grid-template-columns: 1fr 1fr; }
  .bar, .bar span, .swatch, .stripes { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .scroll, figure > div { overflow: visible; }
}
"""
