"""The evaluator against the kernel: random rule sets of the whole vocabulary, real packets, real answers.

    python bench/differential.py [--rule-sets 20000] [--seed 1] [--by-packet]

A batch is one transaction with 24 rule sets, one for each of as many pods; each pod sends TCP, UDP and ICMP, the far
end answers what arrives translated. Through nft, iptables-nft and iptables-legacy, IPv4 and IPv6 in turn. Exit 1:
an answer was wrong ("cannot tell" is counted, and is not wrong). ``--by-packet``: every chain and every set is
read for one packet, as long chains and large sets are.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kernel.semantics.wide import WAYS, compare, prepare
from tests.kernel.semantics.wide_rules import SETS
from tests.kernel.semantics.wires import wires

from hitless.kernel.nftables import lookups, prefilter
from hitless.model.families import Family


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rule-sets", type=int, default=20000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--by-packet", action="store_true")
    options = parser.parse_args()
    if options.by_packet:
        lookups.INLINE_LIMIT = prefilter.LONG_CHAIN = 0
    turns = [(way, family) for way in WAYS for family in Family]
    tallies: dict[tuple[str, Family], Counter[str]] = {turn: Counter() for turn in turns}
    begun, number, tried, wrong = time.monotonic(), 0, 0, 0
    with wires() as net:
        prepare(net)
        while tried < options.rule_sets:
            for way, family in turns:
                for wrong_answer in compare(
                    net, way, family, f"{options.seed} {number} {way} {family}", tallies[way, family]
                ):
                    wrong += 1
                    if wrong <= 5:
                        print(wrong_answer.partition("\n")[0])
                tried += SETS
            number += 1
    packets = open_ = 0
    for (way, family), tally in tallies.items():
        packets, open_ = packets + tally["packets"], open_ + tally["cannot tell"]
        words = ", ".join(f"{name} {tally[name]}" for name in ("carried", "unanswered", "leaked", "dropped"))
        share = 100 * tally["cannot tell"] / tally["packets"]
        print(f"{way:7} {family.value}: {tally['packets']} packets: {words}; cannot tell {share:.1f} %")
    seconds = time.monotonic() - begun
    machine = f"{platform.system()} {platform.release()}, {platform.machine()}"
    print(f"{machine}; {tried} rule sets, {packets} packets in {seconds:.0f} s: {wrong} wrong, {open_} open")
    print("missed" if wrong else "met: no answer was wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
