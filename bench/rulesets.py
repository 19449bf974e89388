"""How often is "cannot tell" the answer? Of the corpus of rule sets after real shapes, asked beside real packets.

    python bench/rulesets.py

Loads every rule set of tests/samples/rulesets into a namespace (by iptables-nft, iptables-legacy and nft, as each
says), sends a pod's TCP, UDP and ICMP packets and the far end's answers, and prints what the evaluator said beside what
came of them, and the share of "cannot tell". Exit 1: an answer was wrong, or "cannot tell".
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kernel.semantics.corpus import Node, cases
from tests.kernel.semantics.wires import wires


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="rule sets whose name contains this")
    only = parser.parse_args().only
    tally: Counter[str] = Counter()
    begun = time.monotonic()
    with wires() as net:
        node = Node(net)
        for case in cases():
            if only not in case.name:
                continue
            for backend in case.backends:
                node.load(case, backend)
                found = node.judge(case)
                tally["rule sets"] += 1
                for protocol, said, came, reason in found:
                    tally["packets"] += 1
                    tally["cannot tell"] += said == "cannot_tell"
                    tally["wrong"] += said not in ("cannot_tell", came)
                    if said != came:
                        print(f"{case.name} ({backend}) {protocol}: said {said}, came {came}: {reason}")
                words = sorted({f"{protocol} {came}" for protocol, _, came, _ in found})
                print(f"{case.name:44} {backend:7} {', '.join(words)}")
    share = 100 * tally["cannot tell"] / max(1, tally["packets"])
    machine = f"{platform.system()} {platform.release()}, {platform.machine()}"
    print(f"{machine}; {time.monotonic() - begun:.0f} s")
    print(f"{tally['rule sets']} loads, {tally['packets']} packets: {share:.1f} % cannot tell, {tally['wrong']} wrong")
    missed = bool(tally["cannot tell"] or tally["wrong"] or not tally["packets"])
    print("missed" if missed else "met: every rule set gets the answer that its packets give")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
