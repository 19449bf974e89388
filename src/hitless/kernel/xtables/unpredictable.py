"""Matches whose result a packet does not determine: rates, clocks, hashes, programs, payloads.

They become opaque conditions with the text of iptables-save; the evaluator follows both results. Structures: the
kernel's xt_*.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType

from hitless.kernel.xtables.properties import negation
from hitless.model.families import Family
from hitless.model.rules import Opaque

__all__ = ["UNPREDICTABLE"]

_UNITS = (("second", 1), ("minute", 60), ("hour", 3600), ("day", 86400))


def _rate(average: int, scale: int) -> str:
    """``average`` is the time between two packets, ``scale`` of which are a second."""
    for unit, seconds in _UNITS:
        count = scale * seconds / average if average else 0
        if count >= 1 or unit == "day":
            return f"{round(count)}/{unit}"
    raise AssertionError


def _limit(data: bytes, family: Family) -> str:
    average, burst = struct.unpack_from("=II", data)
    return f"-m limit --limit {_rate(average, 10000)} --limit-burst {burst}"


_MODES = ((4, "srcip"), (8, "srcport"), (1, "dstip"), (2, "dstport"))


def _hashlimit(data: bytes, revision: int) -> str:
    if revision == 1:
        name, scale = data[:16], 10000
        mode, average, burst = struct.unpack_from("=III", data, 16)
    else:
        name, scale = data[:255], 1000000
        average, burst, mode = struct.unpack_from("=QQI", data, 256)
    above = "above" if mode & 16 else "upto"
    rate = f"{average} (bytes)" if mode & 32 else _rate(average, scale)
    listed = ",".join(name for bit, name in _MODES if mode & bit)
    text = f"-m hashlimit --hashlimit-{above} {rate} --hashlimit-burst {burst}"
    label = name.split(b"\0", 1)[0].decode("utf-8", "replace")
    return text + (f" --hashlimit-mode {listed}" if listed else "") + f" --hashlimit-name {label}"


def _statistic(data: bytes, family: Family) -> str:
    mode, flags = struct.unpack_from("=HH", data)
    if mode == 0:
        (probability,) = struct.unpack_from("=I", data, 4)
        return f"-m statistic --mode random {negation(flags & 1)}--probability {probability / 0x80000000:.11f}"
    every, packet = struct.unpack_from("=II", data, 4)
    return f"-m statistic --mode nth {negation(flags & 1)}--every {every + 1} --packet {packet}"


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _time(data: bytes, family: Family) -> str:
    start, stop, day_start, day_stop, month, week, flags = struct.unpack_from("=IIIIIBB", data)
    text = ["-m time"]
    if (day_start, day_stop) != (0, 86399):
        text += [f"--timestart {_clock(day_start)} --timestop {_clock(day_stop)}"]
    if month != 0xFFFFFFFE:
        text += [f"--monthdays {','.join(str(day) for day in range(1, 32) if month >> day & 1)}"]
    if week != 0xFE:
        text += [f"--weekdays {','.join(_DAYS[day - 1] for day in range(1, 8) if week >> day & 1)}"]
    text += [f"--datestart {_date(start)}"] if start else []
    text += [f"--datestop {_date(stop)}"] if stop != 0x7FFFFFFF else []
    text += ["--kerneltz"] if flags & 1 else []
    text += ["--contiguous"] if flags & 2 else []
    return " ".join(text)


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _quota(data: bytes, family: Family) -> str:
    flags, _, quota = struct.unpack_from("=IIQ", data)
    return f"-m quota {negation(flags & 1)}--quota {quota}"


def _mac(data: bytes, family: Family) -> str:
    (invert,) = struct.unpack_from("=i", data, 8)
    return f"-m mac {negation(invert)}--mac-source {data[:6].hex(':')}"


def _cpu(data: bytes, family: Family) -> str:
    number, invert = struct.unpack_from("=II", data)
    return f"-m cpu {negation(invert)}--cpu {number}"


def _cluster(data: bytes, family: Family) -> str:
    total, nodes, seed, flags = struct.unpack_from("=IIII", data)
    mask = f"{negation(flags & 1)}--cluster-local-nodemask {nodes:#x}"
    return f"-m cluster {mask} --cluster-total-nodes {total} --cluster-hash-seed {seed:#x}"


def _connlimit(data: bytes, family: Family) -> str:
    limit, flags = struct.unpack_from("=II", data, 16)
    mask = data[:4] if family is Family.IPV4 else data[:16]
    length = int.from_bytes(mask, "big").bit_count()
    side = "--connlimit-daddr" if flags & 2 else "--connlimit-saddr"
    return f"-m connlimit --connlimit-{'upto' if flags & 1 else 'above'} {limit} --connlimit-mask {length} {side}"


def _bpf_0(data: bytes, family: Family) -> str:
    return f"-m bpf --bytecode ({struct.unpack_from('=H', data)[0]} instructions)"


def _bpf(data: bytes, family: Family) -> str:
    mode, count = struct.unpack_from("=HH", data)
    if mode == 0:
        return f"-m bpf --bytecode ({count} instructions)"
    return f"-m bpf --object-pinned {data[8:].split(bytes(1), 1)[0].decode('utf-8', 'replace')}"


def _u32(data: bytes, family: Family) -> str:
    """Tests of 178 bytes: locations (number, operator), value ranges, and how many there are of each."""
    size = 11 * 8 + 11 * 8 + 4
    tests, invert = data[11 * size], data[11 * size + 1]
    operators = ("&", "<<", ">>", "@")
    texts = []
    for number in range(min(tests, 11)):
        at = number * size
        locations, values = data[at + 176], data[at + 177]
        where = ""
        for index in range(min(locations, 11)):
            value, operator = struct.unpack_from("=IB", data, at + 8 * index)
            where += f"{operators[operator] if index and operator < 4 else ''}{value:#x}"
        ranges = [struct.unpack_from("=II", data, at + 88 + 8 * index) for index in range(min(values, 11))]
        texts.append(f"{where}={','.join(f'{a:#x}' if a == b else f'{a:#x}:{b:#x}' for a, b in ranges)}")
    return f'-m u32 {negation(invert)}--u32 "{"&&".join(texts)}"'


def _tcpmss(data: bytes, family: Family) -> str:
    low, high, invert = struct.unpack_from("=HHB", data)
    return f"-m tcpmss {negation(invert)}--mss {low if low == high else f'{low}:{high}'}"


def _ecn(data: bytes, family: Family) -> str:
    tested, invert, ect = data[0], data[1], data[2]
    text = ["-m ecn"]
    text += [f"{negation(invert & 0x10)}--ecn-tcp-ece"] if tested & 0x10 else []
    text += [f"{negation(invert & 0x20)}--ecn-tcp-cwr"] if tested & 0x20 else []
    text += [f"{negation(invert & 0x01)}--ecn-ip-ect {ect}"] if tested & 0x01 else []
    return " ".join(text)


def _spis(name: str) -> Callable[[bytes, Family], str]:
    def describe(data: bytes, family: Family) -> str:
        low, high, invert = struct.unpack_from("=IIB", data)
        return f"-m {name} {negation(invert & 1)}--{name}spi {low if low == high else f'{low}:{high}'}"

    return describe


def _osf(data: bytes, family: Family) -> str:
    genre = data[:32].split(b"\0", 1)[0].decode("utf-8", "replace")
    return f"-m osf --genre {genre}"


def _rateest(data: bytes, family: Family) -> str:
    return f"-m rateest --rateest {data[:16].split(bytes(1), 1)[0].decode('utf-8', 'replace')}"


def _bare(name: str) -> Callable[[bytes, Family], str]:
    return lambda data, family: f"-m {name}"


_TEXTS: Mapping[tuple[str, int], Callable[[bytes, Family], str]] = {
    ("limit", 0): _limit,
    ("hashlimit", 1): lambda data, family: _hashlimit(data, 1),
    ("hashlimit", 2): lambda data, family: _hashlimit(data, 2),
    ("hashlimit", 3): lambda data, family: _hashlimit(data, 3),
    ("statistic", 0): _statistic,
    ("time", 0): _time,
    ("quota", 0): _quota,
    ("mac", 0): _mac,
    ("cpu", 0): _cpu,
    ("cluster", 0): _cluster,
    ("connlimit", 0): _connlimit,
    ("connlimit", 1): _connlimit,
    ("bpf", 0): _bpf_0,
    ("bpf", 1): _bpf,
    ("u32", 0): _u32,
    ("tcpmss", 0): _tcpmss,
    ("ecn", 0): _ecn,
    ("esp", 0): _spis("esp"),
    ("ah", 0): _spis("ah"),
    ("ipcomp", 0): _spis("ipcomp"),
    ("osf", 0): _osf,
    ("rateest", 0): _rateest,
    ("eui64", 0): _bare("eui64"),
    ("dccp", 0): _bare("dccp"),
    ("sctp", 0): _bare("sctp"),
    ("l2tp", 0): _bare("l2tp"),
}


def _opaque(describe: Callable[[bytes, Family], str]) -> Callable[[bytes, Family], tuple[Opaque, ...]]:
    return lambda data, family: (Opaque(describe(data, family)),)


UNPREDICTABLE: Mapping[tuple[str, int], Callable[[bytes, Family], tuple[Opaque, ...]]] = MappingProxyType(
    {key: _opaque(describe) for key, describe in _TEXTS.items()}
)
"""Decoders by extension name and revision."""
