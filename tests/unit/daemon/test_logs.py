"""The daemons' log: records are all written, failures are counted by what they are about, and codes are stable."""

from __future__ import annotations

import io
import json
from typing import Any

from hitless.daemon.log_codes import CODES, code_of
from hitless.daemon.logs import Log


class Written:
    """A log with a clock of its own, and its lines."""

    def __init__(self) -> None:
        self.now = 0.0
        self._stream = io.StringIO()
        self.log = Log(self._stream, node="n1", monotonic=lambda: self.now)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


def test_a_gap_and_a_withdrawal_of_ipv6_right_after_those_of_ipv4_are_written() -> None:
    written = Written()
    for family in ("ipv4", "ipv6"):
        written.log.notice("gap", family=family, reason="chain FLANNEL-POSTRTG is empty")
        written.log.notice("withdrawn", family=family, why="masquerading is switched off")
        written.log.warning("cannot tell", family=family, reason="cannot tell whether the primary carries it")
    assert [(line["event"], line["family"]) for line in written.lines] == [
        (event, family) for family in ("ipv4", "ipv6") for event in ("gap", "withdrawn", "cannot tell")
    ]


def test_records_that_say_the_same_are_all_written() -> None:
    written = Written()
    for number in range(20):
        written.log.notice("gap", family="ipv4", reason="chain POSTROUTING is empty", milliseconds=number)
    assert len(written.lines) == 20


def test_a_failure_of_another_network_or_file_is_another_failure_and_another_time_is_not() -> None:
    written = Written()
    for number in range(3):
        written.log.error("rules not read", reason=f"tried {number} times")
        written.log.warning("subnet file", path="/run/a", reason="cannot be written")
        written.log.warning("subnet file", path="/run/b", reason="cannot be written")
        written.log.warning("cannot tell", networks=["10.42.1.0/24"], reason="an unknown rule")
        written.log.warning("cannot tell", networks=["10.42.2.0/24"], reason="an unknown rule")
    assert len(written.lines) == 5


def test_no_fact_takes_the_place_of_the_lines_own() -> None:
    written = Written()
    own = {"level": "loud", "time": "yesterday", "code": 7, "node": "another"}
    written.log.notice("note", **own, text="something")  # type: ignore[arg-type]
    (line,) = written.lines
    assert (line["level"], line["event"], line["code"], line["node"]) == ("warning", "note", "note", "n1")
    assert (line["fact_level"], line["fact_code"], line["fact_node"]) == ("loud", 7, "another")


def test_every_line_has_the_events_code() -> None:
    written = Written()
    written.log.error("rules not read", reason="no netlink")
    written.log.info("something new", facts=["x"])
    assert [line["code"] for line in written.lines] == ["rules_not_read", "something_new"]


def test_a_renamed_event_carries_its_former_name() -> None:
    written = Written()
    written.log.error("rules not read", reason="no netlink")
    written.log.info("ready")
    assert [line.get("former_event") for line in written.lines] == ["cannot look", None]


def test_no_two_events_share_a_code() -> None:
    assert len(set(CODES.values())) == len(CODES)
    assert all(code_of(event) == code for event, code in CODES.items())
