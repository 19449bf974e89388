"""The page's style sheet, for light and dark screens, wide and narrow ones, and paper.

Promise: at 1,300 pixels the comparison table fits, with long names; below 900 pixels each of its rows becomes a card
whose cells have their column's name. Charts keep a readable size and scroll. Colours follow the reader's setting
(``prefers-color-scheme``); in the dark, charts are inverted with their hues kept, so that colours keep their meaning.
"""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --pass: #2b8a3e; --fail: #c92a2a; --inconclusive: #b26a00; --ink: #212529;
  --faint: #6c757d; --line: #dee2e6; --page: #f1f3f5; --card: #fff; --bad: #c92a2a; --link: #1971c2; --note: #fff3bf;
  --noteline: #ffe066; --head: #495057; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --faint: #9aa4ae; --line: #343b43; --page: #0f1317;
  --card: #181d23; --bad: #ff8787; --link: #74c0fc; --note: #3b3210; --noteline: #6b5a10; --head: #b4bcc4;
  --pass: #237032; --fail: #b02525; --inconclusive: #8f5600; } .pic svg { filter: invert(1) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1400px; margin: 0 auto; padding: 24px; }
header { border-radius: 10px; color: #fff; padding: 22px 28px; overflow-wrap: anywhere; }
header.pass { background: var(--pass); } header.fail { background: var(--fail); }
header.inconclusive { background: var(--inconclusive); }
header h1 { margin: 0; font-size: 30px; line-height: 1.25; letter-spacing: .02em; }
header p { margin: 8px 0 0; font-size: 16px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 24px;
  margin-top: 18px; }
h2 { margin: 0 0 6px; font-size: 21px; overflow-wrap: anywhere; }
h3 { margin: 20px 0 6px; font-size: 15px; color: var(--head); overflow-wrap: anywhere; }
.badge { border-radius: 99px; color: #fff; padding: 2px 12px; font-size: 13px; font-weight: 600; white-space: nowrap;
  display: inline-block; }
h2 .badge { margin-left: 8px; vertical-align: 3px; }
.badge.pass { background: var(--pass); } .badge.fail { background: var(--fail); }
.badge.inconclusive { background: var(--inconclusive); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td { white-space: nowrap; } td.left { white-space: normal; overflow-wrap: anywhere; } td.sign { min-width: 220px; }
th { text-align: right; vertical-align: bottom; font-weight: 600; color: var(--faint); font-size: 13px;
  line-height: 1.25; padding: 4px 8px; }
td { text-align: right; border-top: 1px solid var(--line); padding: 7px 8px; }
th:first-child, td:first-child, .left { text-align: left; }
td.bad { color: var(--bad); font-weight: 700; } td.name { font-weight: 600; }
.compare td.name { white-space: normal; overflow-wrap: anywhere; min-width: 9em; max-width: 17em; }
.compare th:nth-child(2), .compare td:nth-child(2) { text-align: left; }
.record td { vertical-align: top; } .record code { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
ul { margin: 6px 0; padding-left: 20px; } li { overflow-wrap: anywhere; }
.facts { color: var(--faint); font-size: 13.5px; margin: 8px 0 0; overflow-wrap: anywhere; }
.facts b { color: var(--ink); font-weight: 600; }
.warn { background: var(--note); border: 1px solid var(--noteline); border-radius: 8px; padding: 10px 16px;
  margin-top: 18px; }
svg { width: 100%; height: auto; display: block; margin: 4px 0; }
.pic svg { min-width: 860px; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--link); }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }
footer { color: var(--faint); font-size: 13px; margin: 18px 6px; }
@media (max-width: 900px) {
  main { padding: 10px; } section { padding: 14px; } header { padding: 16px; } header h1 { font-size: 23px; }
  .compare table, .compare tbody { display: block; } .compare thead { display: none; }
  .compare tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 4px 12px;
    border-top: 1px solid var(--line); padding: 10px 0; }
  .compare td { display: block; border: 0; padding: 0; text-align: left; white-space: normal; }
  .compare td.name { grid-column: 1 / -1; max-width: none; font-size: 16px; }
  .compare td.wide { grid-column: 1 / -1; }
  .compare td[data-label]::before { content: attr(data-label); display: block; color: var(--faint); font-size: 12px;
    font-weight: 400; }
}
@media print { body { background: #fff; } details > * { display: block; } }
"""
