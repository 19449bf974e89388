"""Whatever is packed comes back byte for byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hitless.kernel.nftables.packing import _MARK, _RUNS, pack, unpack

PIECES = st.sampled_from([run for run, _ in _RUNS] + [mark for _, mark in _RUNS] + [_MARK, b"\xfe", b"\xed\xfa", b"0"])


@given(st.lists(st.one_of(PIECES, st.binary(max_size=40), st.integers(0, 300).map(bytes))).map(b"".join))
def test_a_message_comes_back_byte_for_byte(payload: bytes) -> None:
    assert unpack(pack(payload)) == payload


@given(st.binary(min_size=1, max_size=40), st.binary(max_size=40))
def test_a_mark_can_never_come_together_from_what_stands_beside_a_run(before: bytes, after: bytes) -> None:
    for run, _ in _RUNS:
        for cut in range(1, 4):
            payload = b"\2" + before + _MARK[:cut] + run + _MARK[cut:] + after
            assert unpack(pack(payload)) == payload


def test_a_comment_of_iptables_becomes_short() -> None:
    rule = b"\2\0\0\7" + _RUNS[1][0] + b"flanneld masq" + bytes(243)
    assert len(pack(rule)) < len(rule) // 4
