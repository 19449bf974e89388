"""Rule messages in compressed form: 5,000 Services mean 30,000 of them per family, and nearly all are never read.

Problem: iptables-nft stores a comment in 257 bytes, most of them zero, and every rule repeats the same expressions; two
thirds of a mirror's memory was that. Promise: ``pack`` deflates a message against a dictionary of frequent expressions
(650 bytes become 110, in 13 microseconds; replacing runs of them by markers gave 400), and ``unpack`` restores it byte
for byte, whatever it contains, in 2. Next stage: ``state`` unpacks what is read.
"""

from __future__ import annotations

import zlib

__all__ = ["pack", "unpack"]

_PACKED = b"\0"  # first byte of a packed message; plain ones begin with their family, never 0 in practice

_CMP = "08000100636d7000"  # "cmp": register 1, equal, data of so many bytes
_EQUAL_4 = f"2c000100{_CMP}20000200080001000000000108000200000000000c000300"
_EQUAL_16 = f"38000100{_CMP}2c0002000800010000000001080002000000000018000300"
_PAYLOAD = "340001000c0001007061796c6f61640024000200080001000000000108000200000000"

_EXPRESSIONS = bytes.fromhex(
    # "match", "statistic" of revision 0
    "480001000a0001006d6174636800000038000200"
    "0e00010073746174697374696300000008000200000000001c000300"
    # "target", "DNAT" of revision 2
    "5c0001000b00010074617267657400004c000200"
    "09000100444e41540000000008000200000000023400030003000000"
    # "match", "tcp" of revision 0, any ports
    "380001000a0001006d6174636800000028000200"
    "0800010074637000080002000000000014000300"
    "0000ffff0000ffff0000000000000000"
    # the destination port, the destination address, the layer 4 protocol
    f"{_PAYLOAD}0208000300000000020800040000000002{_EQUAL_4}06000100"
    f"{_PAYLOAD}0108000300000000100800040000000004{_EQUAL_4}08000100"
    f"{_PAYLOAD}0108000300000000180800040000000010{_EQUAL_16}14000100"
    "24000100090001006d657461000000001400020008000200000000100800010000000001"
    f"{_EQUAL_4}0500010006000000"
    # "match", "comment" of revision 0
    "2c0101000a0001006d617463680000001c0102000c000100636f6d6d656e7400"
    "080002000000000004010300"
    # "counter", nothing counted
    "2c0001000c000100636f756e746572001c000200"
    "0c00010000000000000000000c0002000000000000000000"
    # "immediate", a jump: to a short name, to one of kube-proxy's long ones
    "440001000e000100696d6d6564696174650000003000020008000100000000002400020020000200"
    "08000100fffffffd13000200"
    "500001000e000100696d6d6564696174650000003c0002000800010000000000300002002c000200"
    "08000100fffffffd1e000200"
)
_TEXTS = b"KUBE-MARK-MASQ\0\0: cluster IP -> KUBE-SEP-KUBE-SERVICESKUBE-SVC-"
_HEAD = bytes.fromhex("0000000f080001006e6174001e000200" + "0000000c000300000000000000" + "0c0006000000000000")
_DICTIONARY = bytes(64) + _EXPRESSIONS + _TEXTS + _HEAD  # the most frequent last: near matches are cheapest

# windows that hold the dictionary and a rule; copying a primed state makes short messages cheap
_WINDOW, _MEMORY, _LEVEL = -12, 4, 4
_DEFLATE = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
_INFLATE = zlib.decompressobj(_WINDOW, _DICTIONARY)


def pack(payload: bytes) -> bytes:
    """The packed form, or the payload itself where that is not smaller."""
    deflate = _DEFLATE.copy()
    packed = _PACKED + deflate.compress(payload) + deflate.flush()
    return packed if len(packed) < len(payload) or payload[:1] == _PACKED else payload


def unpack(packed: bytes) -> bytes:
    """The original payload."""
    return _INFLATE.copy().decompress(packed[1:]) if packed[:1] == _PACKED else packed
