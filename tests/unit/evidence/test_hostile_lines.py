"""Lines that are no events: one error, whatever they hold, and what is read can be written again."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from hitless.errors import InputError
from hitless.evidence import log
from hitless.model import events as e

HEADER = b'{"t":1,"type":"header","tool":"drill","version":"1","schema":1}\n'
NO_EVENTS = {
    "deep lists in a field that is not known": b'{"t":2,"type":"zz","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep objects": b'{"t":2,"type":"zz","x":' + b'{"x":' * 100_000 + b"1" + b"}" * 100_001,
    "deep enough to trouble who writes it again": b'{"t":2,"type":"zz","x":' + b"[" * 200 + b"]" * 200 + b"}",
    "deep in an event that is kept": b'{"t":2,"type":"unknown","raw":{"x":' + b"[" * 200 + b"]" * 200 + b"}}",
    "deep in a field of a known event": b'{"t":2,"type":"note","level":"info","text":"x","y":' + b"[" * 200_000,
    "a number of 5,000 digits": b'{"t":2,"type":"zz","x":' + b"9" * 5000 + b"}",
    "a time beyond 64 bits": b'{"t":' + b"9" * 30 + b',"type":"zz"}',
    "a time that is a truth": b'{"t":true,"type":"zz"}',
    "no UTF-8": b'{"t":2,"type":"note","level":"info","text":"\xff"}',
    "a longer line than any": b'{"t":2,"type":"note","level":"info","text":"' + b"x" * (1 << 20) + b'"}',
    "nothing": b"null",
}


@pytest.mark.parametrize("name", NO_EVENTS)
def test_a_line_that_is_no_event_is_named_with_file_and_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(msgspec.DecodeError):
        e.decode(NO_EVENTS[name])
    path = tmp_path / "events.jsonl"
    path.write_bytes(HEADER + NO_EVENTS[name] + b"\n")
    with pytest.raises(InputError, match=r"events\.jsonl:2: "):
        log.read(path)


def test_a_newer_tools_event_is_kept() -> None:
    line = b'{"t":2,"type":"zz","x":[[1,{"y":[]}]]}'
    event = e.decode(line)
    assert isinstance(event, e.Unknown)
    assert event.raw["x"] == [[1, {"y": []}]]
    assert e.decode(e.encode(event)) == event


def test_of_damaged_lines_each_is_an_event_that_can_be_written_or_the_one_error() -> None:
    """Bytes of real lines, cut, doubled and swapped: never another error."""
    chance = random.Random(7)
    lines = [
        HEADER.strip(),
        b'{"t":2,"type":"gap","family":"ipv4","network":"10.42.0.0/16","begin":1,"end":2,"opened_by":{"pid":1,"comm":"x"}}',
        b'{"t":3,"type":"attempts","interval_ns":1,"kind":"tcp","family":"ipv4","sent":1,"ok":1}',
        b'{"t":4,"type":"zz","x":{"y":[1,2,{"z":null}]},"n":1e9}',
    ]
    pieces = [b"[", b"{", b'"', b"\\", b"\xff", b"9" * 25, b"null", b"1e999", b"\\ud800", b"}", b",", b":", b"\x00"]
    for _ in range(20_000):
        line = bytearray(chance.choice(lines))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(line) + 1)
            line[at : at + chance.choice((0, 0, 1, 5))] = chance.choice(pieces)
        try:
            event = e.decode(bytes(line))
        except msgspec.DecodeError:
            continue
        e.encode(event)
