"""One report of a whole rollout, beside the logs and reports of its steps: rollout.json and rollout.html.

Problem: each step has a report of its own, and forty of them do not show what the rollout cost. Promise: one
object (that of ``--json``) and one page with every node, its verdict and losses, why it stopped, and links to the
reports of the steps that were driven into this folder; both are written atomically. Foreign text is escaped.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hitless.cleaning import clean
from hitless.cli.rollout_folders import METRICS, REPORT
from hitless.kernel import files

__all__ = ["table", "write"]

_PAGE = "rollout.html"
_LONGEST = 300

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em}"
    "table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:.3em .8em .3em 0;border-bottom:1px solid #ccc}"
    ".pass{color:#176b2c}.fail{color:#a8071a}.inconclusive{color:#8a5a00}"
)


def write(folder: Path, report: Mapping[str, Any], metrics: str = "") -> str:
    """Write them, and the metrics where they are given; why that was not possible, or empty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.replace(folder / REPORT, json.dumps(report, indent=2).encode() + b"\n")
        files.replace(folder / _PAGE, _page(folder, report).encode())
        if metrics:
            files.replace(folder / METRICS, metrics.encode())
    except OSError as error:
        return f"the rollout's report could not be written in {folder}: {error.strerror or error}"
    return ""


def table(report: Mapping[str, Any]) -> str:
    """A report that was read again, for a terminal."""
    nodes = [one for one in report.get("nodes") or [] if isinstance(one, dict)]
    width = max((len(str(one.get("node"))) for one in nodes), default=4)
    lines = []
    for one in nodes:
        outcome = str(one.get("verdict") or one.get("state") or "")
        figures = f"{one.get('lost')} of {one.get('attempted')} lost" if one.get("attempted") else ""
        why = "; ".join(filter(None, [figures, str(one.get("reason") or "")]))
        lines.append(
            f"{clean(str(one.get('node')), _LONGEST):{width}}  {clean(outcome, 40):12}  {clean(why, _LONGEST)}".rstrip()
        )
    verdict = str(report.get("verdict") or "")
    head = f"{verdict.upper()}: " if verdict else ""
    undo = "undo of " if report.get("direction") == "undo" else ""
    lines += [
        "",
        clean(f"{head}{undo}{report.get('change')} of {report.get('agent')}, {report.get('state')}", _LONGEST),
    ]
    if report.get("stopped"):
        lines.append(clean(f"why: {report['stopped']}"))
    return "\n".join(lines)


def _page(folder: Path, report: Mapping[str, Any]) -> str:
    outcome = str(report["verdict"] or report["state"])
    title = f"{_text(report['change'])} of {_text(report['agent'])}"
    facts = [
        ("state", report["state"]),
        ("direction", report["direction"]),
        ("begun", report["begun"]),
        ("ended", report["ended"]),
        ("why it stopped", report["stopped"]),
        ("maintenance windows", report["windows"]),
        ("outside of the windows", "; ".join(report["forced"])),
    ]
    listed = "".join(f"<tr><th>{name}</th><td>{_text(value)}</td></tr>" for name, value in facts if value)
    steps = {one.parent.name.partition("-")[2]: one.parent.name for one in sorted(folder.glob("[0-9]*-*/report.html"))}
    rows = "".join(_row(node, steps) for node in report["nodes"])
    log = "".join(f"<li>{_text(line)}</li>" for line in report["log"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        f"<h1>Rollout: {title}</h1><p class='{_text(outcome)}'><strong>{_text(outcome).upper()}</strong></p>"
        f"<table>{listed}</table><h2>Nodes</h2><table><tr><th>node<th>zone<th>verdict<th>attempted<th>lost<th>why</tr>"
        f"{rows}</table><h2>Log</h2><ul>{log}</ul></html>\n"
    )


def _row(node: Mapping[str, Any], steps: Mapping[str, str]) -> str:
    name, outcome = str(node["node"]), str(node["verdict"] or node["state"])
    shown = _text(name)
    if name in steps:
        shown = f"<a href='{_text(steps[name])}/report.html'>{shown}</a>"
    why = _text(node["reason"]) + (" (measured after the restart alone)" if node["unseen"] else "")
    return (
        f"<tr><td>{shown}<td>{_text(node['zone'])}<td class='{_text(outcome)}'>{_text(outcome)}"
        f"<td>{node['attempted']:,}<td>{node['lost']:,}<td>{why}</tr>"
    )


def _text(value: object) -> str:
    return html.escape(clean(str(value or ""), _LONGEST), quote=True)
