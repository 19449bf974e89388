"""Maintenance windows: what a file says, what is refused, and how the command answers."""

from __future__ import annotations

import json
import time
from itertools import islice
from pathlib import Path

import pytest

from hitless.cli.tools import run_tools
from hitless.errors import InputError
from hitless.operations.windows import Gate, Windows, WindowSchedule, length, moment, parsed, span, utc
from hitless.operations.windows.cron import cron
from hitless.operations.windows.gates import wait

AT = moment("2026-03-23T00:00:00Z", where="")
CNI = """[[window]]
name = "cni"
rrule = "FREQ=WEEKLY;BYDAY=SU;BYHOUR=12;BYMINUTE=0"
duration = "2h"
zone = "Europe/Berlin"
exclude = ["2026-12-20/2027-01-06"]
"""


def windows(text: str, *, at: int = AT, **beside: str) -> Windows:
    return parsed(text, source="windows.toml", at=at, beside=lambda name: beside[name.partition(".")[0]])


def of(zone: str, rule: str, duration: str = "1h", more: str = "") -> str:
    return f'[[window]]\nname = "w"\n{rule}\nduration = "{duration}"\nzone = "{zone}"\n{more}\n'


def first(text: str, after: str, count: int = 1, **beside: str) -> list[tuple[str, str]]:
    at = moment(after, where="")
    found = islice(WindowSchedule(windows(text, at=at, **beside)).next(at), count)
    return [(utc(one.begin), utc(one.end)) for one in found]


def test_the_change_to_summer_time_moves_noon_in_utc() -> None:
    assert first(CNI, "2026-03-16T00:00:00Z", 3) == [
        ("2026-03-22T11:00:00Z", "2026-03-22T13:00:00Z"),
        ("2026-03-29T10:00:00Z", "2026-03-29T12:00:00Z"),
        ("2026-04-05T10:00:00Z", "2026-04-05T12:00:00Z"),
    ]
    assert first(CNI, "2026-12-14T00:00:00Z") == [("2027-01-10T11:00:00Z", "2027-01-10T13:00:00Z")]


@pytest.mark.parametrize("rule", ['cron = "30 2 * * *"', 'rrule = "FREQ=DAILY;BYHOUR=2;BYMINUTE=30"'])
def test_a_skipped_start_comes_an_hour_later_a_repeated_one_once_and_durations_are_elapsed_time(rule: str) -> None:
    skipped = first(of("Europe/Berlin", rule), "2026-03-28T12:00:00Z", 2)
    assert skipped == [
        ("2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"),
        ("2026-03-30T00:30:00Z", "2026-03-30T01:30:00Z"),
    ]
    repeated = first(of("Europe/Berlin", rule), "2026-10-24T12:00:00Z", 2)
    assert repeated == [
        ("2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
        ("2026-10-26T01:30:00Z", "2026-10-26T02:30:00Z"),
    ]
    across = of("Europe/Berlin", 'cron = "0 0 * * sun"', "4h")
    assert first(across, "2026-03-28T12:00:00Z") == [("2026-03-28T23:00:00Z", "2026-03-29T03:00:00Z")]
    assert first(across, "2026-10-24T12:00:00Z") == [("2026-10-24T22:00:00Z", "2026-10-25T02:00:00Z")]


def test_a_freeze_ends_what_runs_into_it_and_a_start_in_it_opens_nothing() -> None:
    nightly = of("Europe/Berlin", 'cron = "0 22 * * *"', "4h", 'exclude = ["2026-05-02/2026-05-03"]')
    assert first(nightly, "2026-05-01T00:00:00Z", 2) == [
        ("2026-05-01T20:00:00Z", "2026-05-01T22:00:00Z"),
        ("2026-05-04T20:00:00Z", "2026-05-05T00:00:00Z"),
    ]


ICS = """BEGIN:VCALENDAR
BEGIN:VEVENT
SUMMARY:a holiday with a long
  name
DTSTART;VALUE=DATE:20200501
RRULE:FREQ=YEARLY
END:VEVENT
BEGIN:VEVENT
DTSTART;TZID=Europe/Berlin:20260503T110000
DURATION:PT90M
BEGIN:VALARM
TRIGGER:-PT15M
END:VALARM
END:VEVENT
BEGIN:VEVENT
DTSTART;VALUE=DATE:20260504
DTEND;VALUE=DATE:20260506
STATUS:CANCELLED
END:VEVENT
END:VCALENDAR
"""


def test_events_of_a_calendar_close_their_days_or_their_time() -> None:
    noon = of("Europe/Berlin", 'cron = "0 12 * * *"', "2h", 'exclude = ["holidays.ics"]')
    found = [begin for begin, _ in first(noon, "2026-04-30T00:00:00Z", 4, holidays=ICS)]
    assert [one[5:10] for one in found] == ["04-30", "05-02", "05-04", "05-05"]
    early = of("Europe/Berlin", 'cron = "0 10 * * *"', "4h", 'exclude = ["holidays.ics"]')
    assert first(early, "2026-05-03T00:00:00Z", 1, holidays=ICS) == [("2026-05-03T08:00:00Z", "2026-05-03T09:00:00Z")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "windows.toml: has no window"),
        ("[[window]", "is not TOML"),
        ("[[window]]\nduration='1h'", "window 1: its name is"),
        (of("Mars/Phobos", 'cron = "0 1 * * *"'), "window w: zone: there is no time zone 'Mars/Phobos'"),
        (of("../etc/passwd", 'cron = "0 1 * * *"'), "zone: there is no time zone"),
        (of("UTC", 'cron = "0 1 * * *"', "0h"), "duration: '0h' is zero"),
        (of("UTC", 'cron = "0 1 * * *"', "2 hours"), "duration: '2 hours' is not a duration"),
        (of("UTC", 'cron = "0 1 * * *"', "25h"), "duration: lasts 1d1h, and begins again after 1d"),
        (of("UTC", 'cron = "0 1 30 2 *"'), "window w: never opens: no day fits"),
        (of("UTC", 'rrule = "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"'), "window w: never opens: no day fits"),
        (of("UTC", 'rrule = "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30"'), "window w: never opens: no day fits"),
        (of("UTC", 'rrule = "FREQ=DAILY;UNTIL=20250101"'), "COUNT or UNTIL is over"),
        (of("UTC", 'rrule = "FREQ=DAILY;COUNT=3"', more="start = 2025-01-01"), "COUNT or UNTIL is over"),
        (of("UTC", 'rrule = "FREQ=DAILY;COUNT=3"'), "COUNT counts from a first day"),
        (of("UTC", 'rrule = "FREQ=WEEKLY;INTERVAL=2;BYDAY=SU"'), "INTERVAL counts from a first day"),
        (of("UTC", 'rrule = "FREQ=WEEKLY"'), "does not say on which day"),
        (of("UTC", 'rrule = "FREQ=MINUTELY"'), "FREQ is 'MINUTELY'"),
        (of("UTC", 'rrule = "FREQ=WEEKLY;BYDAY=XX"'), "BYDAY: 'XX' is not a day"),
        (of("UTC", 'rrule = "FREQ=DAILY;BYHOUR=24"'), "BYHOUR: '24' is out of range"),
        (of("UTC", 'rrule = "FREQ=DAILY;BYHOUR=1;BYHOUR=2"'), "BYHOUR is given twice"),
        (of("UTC", 'cron = "* * * * *"', "1m"), "opens more than 288 times a day"),
        (of("UTC", 'cron = "0 1 * * *"\nrrule = "FREQ=DAILY"'), "has both rrule and cron"),
        (of("UTC", ""), "has neither rrule nor cron"),
        (of("UTC", 'cron = "0 1 * * *"', more="colour = 1"), "'colour' is not known"),
        (of("UTC", 'cron = "0 1 * * *"', more='exclude = ["2026-02-02/2026-01-01"]'), "ends before it begins"),
        (of("UTC", 'cron = "0 1 * * *"', more='exclude = ["2026-02-30"]'), "is not a day"),
        (
            of("UTC", 'cron = "0 1 * * *"', more='exclude = ["2020-01-01/2198-01-01"]'),
            "excluded whenever it would open",
        ),
        (of("UTC", 'cron = "0 1 * * *"', more="nodes = []"), "nodes: is not a list of names"),
        (of("UTC", 'cron = "0 1 * * *"', more="pause = true"), "pause: is 'True'"),
        (of("UTC", 'cron = "0 1 * * *"') * 2, "window w: is the name of another window too"),
        ("a=" + "[" * 5000, "is not TOML"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_entry_and_expectation(text: str, says: str) -> None:
    begun = time.monotonic()
    with pytest.raises(InputError) as caught:
        windows(text)
    assert says in str(caught.value)
    assert "expected" in str(caught.value)
    assert time.monotonic() - begun < 60  # no search until the year 9999


@pytest.mark.parametrize(
    ("ics", "says"),
    [
        ("hello", "is not a calendar"),
        (ICS.removesuffix("END:VCALENDAR\n"), "VCALENDAR has no end"),
        (ICS.replace("20260503T110000", "20261399T110000"), "holidays.ics:9: '20261399T110000' is not a date"),
        (ICS.replace("Europe/Berlin", "W. Europe Standard Time"), "there is no time zone"),
        (ICS.replace("PT90M", "soon"), "'soon' is not a duration"),
        (ICS.replace("FREQ=YEARLY", "FREQ=SECONDLY"), "RRULE: its FREQ is 'SECONDLY'"),
        (ICS.replace("FREQ=YEARLY", "FREQ=HOURLY"), "an event every hour"),
        ("BEGIN:VCALENDAR\n" * 5000, "nest too deep"),
        ("BEGIN:VCALENDAR\n" + "BEGIN:VEVENT\nDTSTART:20260101\nEND:VEVENT\n" * 5001, "too many events"),
    ],
)
def test_a_calendar_that_is_not_understood_is_refused_with_its_line(ics: str, says: str) -> None:
    text = of("UTC", 'cron = "0 1 * * *"', more='exclude = ["holidays.ics"]')
    with pytest.raises(InputError) as caught:
        windows(text, holidays=ics)
    assert says in str(caught.value)


@pytest.mark.slow
def test_a_calendar_that_closes_every_day_is_refused_in_bounded_time() -> None:
    ics = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20200101\nRRULE:FREQ=DAILY\nEND:VEVENT\nEND:VCALENDAR\n"
    begun = time.monotonic()
    with pytest.raises(InputError, match="is excluded whenever it would open"):
        windows(of("Europe/Berlin", 'cron = "0 * * * *"', "5m", 'exclude = ["holidays.ics"]'), holidays=ics)
    assert time.monotonic() - begun < 120


def test_cron_reads_both_kinds_of_days_as_cron_does() -> None:
    friday_13th = cron("0 0 13 * fri", where="")
    assert friday_13th.either and not cron("0 0 */2 * fri", where="").either
    assert cron("5-59/20 1,3 * jan-mar 7", where="").week_days == {0}
    for wrong in (
        "* * * *",
        "60 * * * *",
        "0 0 0 * *",
        "5/10 * * * *",
        "0 0 * * 5-1",
        "*/0 * * * *",
        "0 0 ? * *",
        "a * * * *",
    ):
        with pytest.raises(InputError):
            cron(wrong, where="cron")


def test_overlapping_freezes_are_a_warning() -> None:
    found = windows(of("UTC", 'cron = "0 1 * * *"', more='exclude = ["2026-05-01/2026-05-04", "2026-05-03"]'))
    assert ["2026-05-03 overlaps 2026-05-01/2026-05-04" in one for one in found.warnings] == [True]


def test_windows_for_one_place_are_not_for_another_or_for_one_who_does_not_say() -> None:
    found = windows(of("UTC", 'cron = "0 1 * * *"', more='clusters = ["prod-*"]\nnodes = ["edge[12]"]'))
    assert WindowSchedule(found, ("admin@x", "prod-eu"), "edge1").entries
    assert not WindowSchedule(found, ("test",), "edge1").entries
    assert not WindowSchedule(found, ("prod-eu",), "edge3").entries
    assert not WindowSchedule(found).entries
    assert (
        "is for node edge3"
        in Gate(found, clusters=("prod-eu",), nodes=("edge1", "edge3"), now=lambda: AT + 3600).refusal()
    )


def test_windows_by_labels_are_for_nodes_that_have_all_of_one_selector() -> None:
    found = windows(of("UTC", 'cron = "0 1 * * *"', more='labels = ["pool=edge,zone=a", "canary"]'))
    for labels, fits in (
        ({"pool": "edge", "zone": "a"}, True),
        ({"pool": "edge", "zone": "b"}, False),
        ({"pool": "edge"}, False),
        ({"canary": ""}, True),
        ({}, False),
        (None, False),
    ):
        assert bool(WindowSchedule(found, (), "edge1", labels=labels).entries) is fits, labels
    labels_of = {"a": {"canary": "yes"}, "b": {}}
    gate = Gate(found, nodes=("a", "b"), labels=labels_of, now=lambda: AT + 3600)
    assert gate.refusal() == "no maintenance window of windows.toml is for node b"
    assert Gate(found, nodes=("a",), labels=labels_of, now=lambda: AT + 3600).refusal() == ""


@pytest.mark.parametrize("labels", ["[]", "[1]", '[""]', '["a=b=c"]', '["a b"]', '["=x"]', '["a,"]', '["Pre/fix/a=b"]'])
def test_labels_that_are_none_are_refused_with_their_window(labels: str) -> None:
    with pytest.raises(InputError, match=r"windows\.toml: window w: labels: .* \(expected \["):
        windows(of("UTC", 'cron = "0 1 * * *"', more=f"labels = {labels}"))


def test_what_a_run_needs_moves_the_latest_start() -> None:
    found = windows(CNI)
    begin = moment("2026-03-29T10:00:00Z", where="")
    late = WindowSchedule(found, needs=45 * 60)
    assert late.state(begin + 75 * 60).open and not late.state(begin + 75 * 60 + 1).open
    assert late.state(begin + 75 * 60 + 1).until == moment("2026-04-05T10:00:00Z", where="")
    assert next(WindowSchedule(found, needs=3 * 3600).next(AT), None) is None


def test_a_pause_closes_until_it_ends() -> None:
    text = CNI + '[pause]\nreason = "storage migration"\nuntil = "2026-03-29T11:00:00Z"\n'
    schedule = WindowSchedule(windows(text))
    begin = moment("2026-03-29T10:00:00Z", where="")
    assert (schedule.state(begin).open, schedule.state(begin).paused) == (False, "storage migration")
    assert schedule.state(begin).until == begin + 3600 and schedule.state(begin + 3600).open
    assert "paused: storage migration" in Gate(windows(text), now=lambda: begin).refusal()
    stopped = WindowSchedule(windows(CNI + '[pause]\nreason = "broken"\n'))
    assert stopped.state(begin).until is None and next(stopped.next(AT), None) is None


def test_waiting_survives_clocks_that_jump_and_ends_at_its_timeout() -> None:
    begin = moment("2026-03-29T10:00:00Z", where="")
    clock = {"wall": float(begin - 7200), "monotonic": 0.0, "naps": 0.0}

    def sleep(seconds: float) -> None:
        clock["naps"] += 1
        clock["monotonic"] += seconds
        clock["wall"] += seconds
        if clock["naps"] == 5:
            clock["wall"] += 8 * 3600  # past the window
        if clock["naps"] == 8:
            clock["wall"] -= 10 * 3600 + 600

    lines: list[str] = []
    state = wait(
        WindowSchedule(windows(CNI)),
        timeout=None,
        tell=lines.append,
        now=lambda: clock["wall"],
        monotonic=lambda: clock["monotonic"],
        sleep=sleep,
    )
    assert state.open and begin <= clock["wall"] < begin + 7200
    assert [line.partition(", in")[0][-20:] for line in lines] == [
        "2026-03-29T10:00:00Z",
        "2026-04-05T10:00:00Z",
        "2026-03-29T10:00:00Z",
    ]
    clock |= {"wall": float(begin - 7200), "naps": 10.0}
    given_up = wait(
        WindowSchedule(windows(CNI)),
        timeout=600,
        tell=lines.append,
        now=lambda: clock["wall"],
        monotonic=lambda: clock["monotonic"],
        sleep=sleep,
    )
    assert not given_up.open and clock["wall"] == begin - 6600


def test_the_command_answers_people_and_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "windows.toml"
    file.write_text(CNI)

    def run(*words: str) -> tuple[int, str]:
        code = run_tools(["window", *words, "--file", str(file)])
        return code, capsys.readouterr().out

    code, out = run("next", "--after", "2026-03-23T00:00:00Z", "--count", "2", "--json")
    assert (code, json.loads(out)) == (
        0,
        [
            {"name": "cni", "begin": "2026-03-29T10:00:00Z", "end": "2026-03-29T12:00:00Z"},
            {"name": "cni", "begin": "2026-04-05T10:00:00Z", "end": "2026-04-05T12:00:00Z"},
        ],
    )
    assert run("status", "--at", "2026-03-29T10:30:00Z") == (
        0,
        "open: cni; open until 2026-03-29T12:00:00Z, for 1h30m more\n"
        "next: cni  2026-04-05T10:00:00Z  2026-04-05T12:00:00Z  (2h), in 6d23h30m\n",
    )
    code, out = run("status", "--at", "2026-03-29T12:00:00Z", "--json")
    assert (code, json.loads(out)["status"], json.loads(out)["until"]) == (1, "closed", "2026-04-05T10:00:00Z")
    assert run("status", "--at", "yesterday")[0] == 3
    file.write_text(CNI + "[[window]]\n")
    assert run("status")[0] == 3


def test_durations_are_read_and_written() -> None:
    assert [length(one, where="") for one in ("2h", "90m", "1h30m", "1d", "45s")] == [7200, 5400, 5400, 86400, 45]
    assert [span(one) for one in (5400, 86400, 61, 3661, 0)] == ["1h30m", "1d", "1m1s", "1h1m", "0s"]
