"""A stranger who never rests: adds and removes rules and elements in a table of its own, as fast as it is told to.

    python bench/parts/hostile_writer.py CHANGES_PER_SECOND SECONDS [commits]

Runs in the network namespace that it is started in. Prints how many changes and commits it made. ``commits``: each
change is a transaction of its own.
"""

from __future__ import annotations

import subprocess
import sys
import time

from hitless.kernel import netlink
from hitless.kernel.nftables import wire

TABLE = """
table ip strangers
delete table ip strangers
table ip strangers {
  set many { type ipv4_addr; }
  chain theirs { }
  chain input { type filter hook input priority 0; ip saddr @many drop; jump theirs; }
}
"""
_BATCH = 25  # elements, and as many rules, that one transaction adds or takes away


def _names(name: str) -> bytes:
    return netlink.nfgenmsg(2) + netlink.text(1, "strangers") + netlink.text(2, name)


def _element(value: int) -> bytes:
    key = netlink.nested(wire.ELEMENT_KEY, netlink.attribute(wire.DATA_VALUE, value.to_bytes(4, "big")))
    return _names("many") + netlink.nested(wire.ELEMENTS_LIST, netlink.nested(1, key))


def _kind(number: int) -> int:
    return wire.SUBSYSTEM << 8 | number


def main() -> None:
    rate, seconds = float(sys.argv[1]), float(sys.argv[2])
    single = sys.argv[3:] == ["commits"]
    subprocess.run(["nft", "-f", "-"], input=TABLE.encode(), check=True)
    elements = [_element(0x0A000000 + number) for number in range(_BATCH)]
    rule = _names("theirs") + netlink.nested(wire.RULE_EXPRESSIONS)
    add = [(_kind(wire.NEWSETELEM), netlink.CREATE, each) for each in elements]
    add += [(_kind(wire.NEWRULE), netlink.CREATE | netlink.APPEND, rule)] * _BATCH
    remove = [(_kind(wire.DELSETELEM), 0, each) for each in elements]
    remove.append((_kind(wire.DELRULE), 0, _names("theirs")))  # all rules of the chain
    turns = [([each], 1) for each in (*add, *remove)] if single else [(add, len(add)), (remove, len(add))]
    changes = commits = 0
    begin = time.monotonic()
    with netlink.Socket(netlink.NETFILTER, receive_buffer=1 << 22) as socket:
        while time.monotonic() - begin < seconds:
            for parts, number in turns:
                socket.batch(wire.SUBSYSTEM, parts, operation="change", subject="a stranger's rules")
                changes, commits = changes + number, commits + 1
                ahead = changes / rate - (time.monotonic() - begin)
                if ahead > 0.002:
                    time.sleep(ahead)
    took = time.monotonic() - begin
    print(f"{changes} {commits} {took:.1f}", flush=True)


if __name__ == "__main__":
    main()
