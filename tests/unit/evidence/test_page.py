"""The page can be read: every column at 1,300 pixels, cards on a narrow screen, light and dark, long names and all."""

from __future__ import annotations

import re

import pytest
from tests.unit.evidence.drill_logs import Drill, at, outage_drill, table_of

from hitless.evidence import RecordedDrill, Verdict, grouped, judge
from hitless.evidence.records import Record
from hitless.evidence.reports import html, render, timeline_chart
from hitless.model import events as e

LONG = "flannel-wrap.sh-of-somebody-who-likes-names-that-say-everything+guard"


def judged(*drills: Drill) -> tuple[RecordedDrill, Verdict]:
    told = grouped(table_of(*drills))
    return told, judge(told, path="x")


def page(*drills: Drill) -> str:
    return render("html", *judged(*drills))


def test_the_verdict_is_beside_the_name_and_every_cell_has_its_column() -> None:
    text = page(outage_drill(), Drill(agent="hitless"))
    table = text.partition('<div class="compare">')[2].partition("</table>")[0]
    head = re.findall(r"<th>(.*?)</th>", table)
    assert head[:2] == ["agent", "verdict"]
    for row in re.findall(r"<tr>(<td.*?)</tr>", table):
        assert re.findall(r'data-label="(.*?)"', row) == head[2:]


def test_a_long_name_may_be_broken_behind_its_punctuation() -> None:
    text = page(Drill(agent=LONG))
    cell = re.search(r'<td class="name">(.*?)</td>', text.partition('<div class="compare">')[2])
    assert cell is not None and cell[1].replace("<wbr>", "") == LONG
    assert "sh-<wbr>of-" in cell[1]


@pytest.mark.parametrize("rule", ["prefers-color-scheme: dark", "max-width: 900px", "color-scheme: light dark"])
def test_the_style_follows_the_screen(rule: str) -> None:
    assert rule in page(Drill())


def written(record: Record) -> str:
    return timeline_chart.timeline(record)


def test_a_change_by_an_unknown_writer_is_in_the_legend_as_such() -> None:
    drill = Drill().gap(2.3, 0.05, writer=None)
    (record,) = grouped(drill.log()).records
    assert "unknown writer" in written(record)
    nameless = Drill().gap(2.3, 0.05, writer=e.Writer(pid=0, comm=""))
    (record,) = grouped(nameless.log()).records
    assert "unknown writer" in written(record)
    assert "unknown writer" in page(drill)


def test_the_rules_have_a_legend_of_what_is_seen() -> None:
    (record,) = grouped(Drill().gap(2.3, 0.05).log()).records
    text = written(record)
    assert "carried" in text and ">gap<" in text.replace(" ", "") and "cannot tell" not in text


@pytest.mark.parametrize(("rounds", "numbers"), [(5, [1, 2, 3, 4, 5]), (20, list(range(2, 21, 2))), (60, [5, 10, 60])])
def test_the_numbers_of_rounds_have_room(rounds: int, numbers: list[int]) -> None:
    (record,) = grouped(Drill(rounds=rounds).log()).records
    # texts in the picture are of the size that the rounds alone have
    found = [int(one) for one in re.findall(r"font-weight: 700[^>]*>(\d+)<", written(record))]
    assert set(numbers) <= set(found)
    assert len(found) <= 12


def test_packets_of_retries_are_counted_separately() -> None:
    drill = Drill(agent="rke2-canal").gap(2.3, 2.0)
    here = {"kind": "tcp", "family": "ipv4", "src": "10.42.0.2", "dst": "198.51.100.1", "dport": 7801}
    for sport, times in ((40000, 3), (40001, 1)):
        for index in range(times):
            drill.extra.append(
                e.Leak(t=at(2.31 + index / 2), sport=sport, **here, **drill.where("farend"))  # type: ignore[arg-type]
            )
    told, verdict = judged(drill)
    (record,) = told.records
    shown = timeline_chart.closeup(record, record.outages[0])
    assert "first packet (2)" in shown and "its retries (2)" in shown
    assert "<b>4 packets of 2 flows, 2 of them retries</b>" in html.render(told, verdict)
