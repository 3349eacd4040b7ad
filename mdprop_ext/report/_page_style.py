"""The style sheet of the report, for light and dark screens and for paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --text: #1b1f24; --quiet: #57606a; --ground: #ffffff; --panel: #f4f6f8; --line: #d0d7de; --accent: #0b5394;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e6e9ed; --quiet: #a3adb8; --ground: #14171b; --panel: #1e2329; --line: #3a424c; --accent: #8fc1ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", "DejaVu Sans", sans-serif;
}
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 0.25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 0.5rem; padding-bottom: 0.25rem; border-bottom: 1px solid var(--line); }
p { margin: 0.5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
.quiet, figcaption, caption { color: var(--quiet); }
.notice { border-left: 4px solid var(--accent); background: var(--panel); padding: 0.5rem 0.75rem; }
.scroll { overflow-x: auto; margin: 0.75rem 0 1.25rem; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: 0.9rem; padding-bottom: 0.4rem; }
th, td { padding: 0.3rem 0.75rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { background: var(--panel); font-weight: 600; }
tbody th { font-weight: 500; }
td { overflow-wrap: break-word; min-width: 4.5rem; max-width: 30rem; }
th.number, td.number { text-align: right; }
td.number { overflow-wrap: normal; white-space: nowrap; }
figure { margin: 1rem 0 1.5rem; }
figure .scroll { margin: 0; }
img {
  display: block; max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line); border-radius: 6px;
}
figcaption { font-size: 0.9rem; margin-top: 0.4rem; max-width: 46rem; }
summary { cursor: pointer; color: var(--accent); padding: 0.25rem 0; }
@media screen and (max-width: 40rem) {
  /* Text of plots stays readable; the picture scrolls instead. */
  img { max-width: none; width: 38rem; }
  th, td { padding: 0.3rem 0.5rem; }
}
@media print { details > :not(summary) { display: block; } .scroll { overflow: visible; } }
"""
