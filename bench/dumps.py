"""In a storm of changes, do dumps of routes, neighbours and forwarding entries lack what was there all the time?

    sudo .venv/bin/python bench/dumps.py [--entries 4000] [--seconds 15]

A network namespace of its own has an overlay device with that many routes of both families, neighbours of both families
and forwarding entries, which stay, while ``ip`` and ``bridge`` add and remove others all the time. Each kind is dumped
again and again: by single dumps, which the kernel reports as whole, and by the reader (``hitless.kernel.rtnetlink``).
Prints how many dumps lacked how many entries. Ends with 1 where one of the reader's lacked any.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping

from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace
from hitless.kernel.rtnetlink import reader as reading
from hitless.kernel.rtnetlink.reader import RtnetlinkReader, names_of, unicast
from hitless.model.families import Family

_DEVICE = "flannel.1"
_OTHERS = 80
_LINKS = """link add d0 type veth peer name d1
link set d0 up
link set d1 up
link add flannel.1 type vxlan id 1 dev d0 dstport 8472 nolearning
link set flannel.1 up
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=4000, help="of each kind, at most 40,000 (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each of the two (%(default)s)")
    options = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.entries:,} entries")
    process = processes.start(["unshare", "-n", "sh", "-c", "echo ready; exec sleep infinity"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        place = Namespace.of_process("bench", process.pid, mount=False)
        _fill(place, options.entries)
        repeated = reading._DISTURBED_DUMPS
        reading._DISTURBED_DUMPS = 1
        _measure(place, "single dumps", options.entries, options.seconds)
        reading._DISTURBED_DUMPS = repeated
        lacking = _measure(place, "the reader", options.entries, options.seconds)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    print(f"asked for: the reader lacks nothing: {'missed' if lacking else 'reached'}")
    return 1 if lacking else 0


def _mac(number: int, kind: int = 1) -> str:
    return f"02:00:00:{kind:02x}:{number >> 8:02x}:{number & 255:02x}"


def _batch(place: Namespace, program: str, lines: list[str]) -> None:
    processes.run([program, "-batch", "-"], namespace=place, stdin="\n".join(lines) + "\n")


def _fill(place: Namespace, entries: int) -> None:
    lines = _LINKS.splitlines()
    for one in range(entries):
        four, six = f"10.{64 + one // 250}.{one % 250}.0", f"fd42:0:0:{one:x}::"
        lines += [f"route add {four}/24 dev {_DEVICE}", f"route add {six}/64 dev {_DEVICE}"]
        lines += [f"neigh add {each} lladdr {_mac(one)} dev {_DEVICE} nud permanent" for each in (four, six)]
    _batch(place, "ip", lines)
    _batch(place, "bridge", [f"fdb append {_mac(one)} dst 192.0.2.1 dev {_DEVICE}" for one in range(entries)])


def _storm(place: Namespace, end: threading.Event) -> None:
    """Adds others, then removes them, without pause."""
    while not end.is_set():
        for verb in ("add", "del"):
            lines: list[str] = []
            for one in range(_OTHERS):
                lines += [f"route {verb} 10.40.{one}.0/24 dev d0", f"route {verb} fd40:0:0:{one:x}::/64 dev d0"]
                mac = f"lladdr {_mac(one, 3)} nud permanent" if verb == "add" else ""
                lines += [f"neigh {verb} 10.41.{one}.5 {mac} dev d0", f"neigh {verb} fd41::{one:x} {mac} dev d0"]
            _batch(place, "ip", lines)
            fdb = "append" if verb == "add" else "del"
            _batch(place, "bridge", [f"fdb {fdb} {_mac(one, 2)} dst 192.0.2.1 dev {_DEVICE}" for one in range(_OTHERS)])


def _measure(place: Namespace, what: str, entries: int, seconds: float) -> int:
    """How many dumps lacked something."""
    stop = threading.Event()
    storm = threading.Thread(target=_storm, args=(place, stop))
    storm.start()
    lacking: dict[str, list[int]] = {}
    dumps = 0
    try:
        with RtnetlinkReader(place) as reader:
            kinds = _kinds(reader)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                dumps += 1
                for kind, read in kinds.items():
                    lacking.setdefault(kind, []).append(entries - read())
    finally:
        stop.set()
        storm.join()
    for kind, each in lacking.items():
        some = [one for one in each if one]
        how_many = f" ({min(some)} to {max(some)} entries)" if some else ""
        print(f"{what}: {kind}: incomplete {len(some)} of {dumps} times{how_many}")
    return sum(one > 0 for each in lacking.values() for one in each)


def _kinds(reader: RtnetlinkReader) -> Mapping[str, Callable[[], int]]:
    """How many of the entries that stay a dump has, for each kind."""
    names = names_of(reader.devices())
    (index,) = (number for number, name in names.items() if name == _DEVICE)

    def routes(family: Family) -> int:
        found = reader.routes(names, family, unicast)
        first = 10 if family is Family.IPV4 else 0xFD
        return len({one.to for one in found if one.device == _DEVICE and one.to.network_address.packed[0] == first})

    def neighbours(family: Family) -> int:
        found = reader.neighbours(names, family, lambda *_: True, device=index)
        return len({one.address for one in found if one.permanent})

    def forwarding() -> int:
        found = reader.forwarding(names, index, lambda *_: True)
        return len({one.mac for one in found if one.mac.startswith("02:00:00:01")})

    return {
        "IPv4 routes": lambda: routes(Family.IPV4),
        "IPv6 routes": lambda: routes(Family.IPV6),
        "IPv4 neighbours": lambda: neighbours(Family.IPV4),
        "IPv6 neighbours": lambda: neighbours(Family.IPV6),
        "forwarding entries": forwarding,
    }


if __name__ == "__main__":
    sys.exit(main())
