"""Why the guard does something: every code has a sentence of its own, and the records carry both."""

from __future__ import annotations

import io
import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from hitless.daemon.logs import Log
from hitless.guard import primaries, records
from hitless.guard.journal import Journal
from hitless.guard.places import NOWHERE
from hitless.guard.reasons import PROTECTING, Code, GuardState, Reason
from hitless.guard.reporting import Reporter
from hitless.guard.side import Side
from hitless.guard.status import protects
from hitless.kernel.clock import Clock
from hitless.model.families import Family


def test_every_code_has_a_sentence_of_its_own() -> None:
    said = {str(Reason(code, (ip_network("10.42.0.0/16"),), "the detail", 7)) for code in Code}
    assert len(said) == len(Code)
    assert all(sentence and sentence == sentence.strip() for sentence in said)


def test_the_facts_are_in_the_sentence() -> None:
    assert "10.42.0.0/16" in str(Reason(Code.CANNOT_TELL_WHETHER_TRANSLATED, (ip_network("10.42.0.0/16"),)))
    assert str(Reason(Code.CONTRADICTED, flows=3)) == "it translated 3 flows that the primary, whole, left alone"
    assert str(Reason(Code.RULES_MISSING, restored=True)) == (
        "the primary's rules are missing; back to what stood before"
    )


def reporter(stream: io.StringIO, folder: Path) -> Reporter:
    return Reporter(Log(stream), Journal(folder / "journal"), Clock())


def test_withdrawals_of_two_families_are_two_records_in_the_log_and_the_journal(tmp_path: Path) -> None:
    """The second was taken for the first again: the words are the same."""
    stream = io.StringIO()
    told = reporter(stream, tmp_path)
    for family in Family:
        side = Side.of(family, primaries.load("flannel"), (), NOWHERE, None)
        told.withdrawn(side, Reason(Code.SWITCHED_OFF, detail="flanneld runs with --ip-masq=false"), 5)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    kept = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    for family, line, record in zip(Family, lines, kept, strict=True):
        assert (line["event"], line["code"], line["reason_code"]) == ("withdrawn", "standby_withdrawn", "switched_off")
        assert (line["family"], record["family"]) == (family.value, family.value)
        assert (record["type"], record["code"]) == ("withdrawn", "switched_off")
        assert record["why"] == line["why"] == "masquerading is switched off: flanneld runs with --ip-masq=false"


@pytest.mark.parametrize(("level", "shown"), [("info", "info"), ("warning", "warning"), ("error", "warning")])
def test_a_notes_level_is_its_lines_level_and_no_fact(level: str, shown: str, tmp_path: Path) -> None:
    stream = io.StringIO()
    reporter(stream, tmp_path).record(records.GuardNote(t=1, level=level, text="something"))
    line = json.loads(stream.getvalue())
    assert (line["level"], line["text"]) == (shown, "something")
    assert "fact_level" not in line


def test_states_of_an_older_guards_file_are_understood() -> None:
    for state in GuardState:
        family = {"ipv4": {"state": state.value, "networks": ["10.42.0.0/16"]}}
        assert protects(json.loads(json.dumps(family))) == (state in PROTECTING)
