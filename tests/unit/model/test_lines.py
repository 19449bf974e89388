"""Lines come out whole, whatever the pieces, in time that does not grow with the square of their length."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.model.lines import Lines, TooLong


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), max_size=60))
def test_the_lines_are_those_of_the_whole(data: bytes, cuts: list[int]) -> None:
    lines, found, at = Lines(1000), list[bytes](), 0
    for cut in [*cuts, len(data)]:
        found += lines.take(data[at : at + cut])
        at += cut
    *whole, rest = data[:at].split(b"\n")
    assert found == whole and lines.rest() == rest


def test_a_line_without_an_end_is_refused_at_its_bound() -> None:
    lines = Lines(longest=10)
    assert list(lines.take(b"0123456789\n0123456")) == [b"0123456789"]
    with pytest.raises(TooLong, match="longer than 10 bytes"):
        list(lines.take(b"7890"))


def test_many_small_pieces_of_one_long_line_cost_their_length_only() -> None:
    def cost(pieces: int) -> float:
        lines, begin = Lines(1 << 30), time.process_time()
        for _ in range(pieces):
            assert not list(lines.take(b"x" * 16))
        assert [len(line) for line in lines.take(b"\n")] == [16 * pieces]
        return time.process_time() - begin

    small, large = min(cost(20_000) for _ in range(3)), cost(200_000)
    assert large < 60 * small + 0.5, (small, large)  # the square of ten would be a hundred
