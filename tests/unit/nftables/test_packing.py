"""Whatever is packed comes back byte for byte, and rules of kube-proxy become short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.kernel.nftables.packing import _DICTIONARY, pack, unpack

PIECES = st.builds(
    lambda at, length: _DICTIONARY[at : at + length], st.integers(0, len(_DICTIONARY)), st.integers(0, 90)
)
COMMENT = bytes.fromhex("2c0101000a0001006d617463680000001c0102000c000100636f6d6d656e7400080002000000000004010300")


@pytest.mark.slow
@given(st.lists(st.one_of(PIECES, st.binary(max_size=40), st.integers(0, 300).map(bytes))).map(b"".join))
def test_a_message_comes_back_byte_for_byte(payload: bytes) -> None:
    packed = pack(payload)
    assert unpack(packed) == payload
    assert len(packed) <= max(len(payload), 1) or payload[:1] == b"\0"


def test_what_looks_like_a_packed_message_comes_back_too() -> None:
    rule = b"\2\0\0\7" + COMMENT + bytes(256)
    for payload in (b"", b"\0", b"\0\1\2", pack(rule), pack(pack(rule))):
        assert unpack(pack(payload)) == payload


def test_a_comment_of_iptables_becomes_short() -> None:
    rule = b"\2\0\0\7" + COMMENT + b"flanneld masq" + bytes(243)
    assert len(pack(rule)) < len(rule) // 8


def test_a_long_message_that_nothing_shortens_is_kept() -> None:
    noise = bytes((number * number * 7 + number // 3) % 255 + 1 for number in range(20_000))
    assert unpack(pack(noise)) == noise
