"""Do the watch, the agent's /readyz and the guard say the same of the same rules?

    python bench/observers.py [--rule-sets 100000] [--kernel 2400] [--seed 1]

First random rule sets as values: flannel's rules, whole or damaged, among random rules of others, in all backends and
both families, on nodes with some pods or none, whose interfaces are known or not. Then wide random rule sets through a
real kernel (nft, iptables-nft, iptables-legacy), where each observer has read them in its own way: the watch's feed,
the agent's reading of the moment, the guard's following of each state. Root is needed for the second. Exit 1: one said
something else, or answers of one kind are missing, so that agreement would prove nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kernel.semantics.wide import _EMPTY, _TRACKED, WAYS, prepare
from tests.kernel.semantics.wide_rules import SETS, iptables_batch, nft_batch, sources
from tests.kernel.semantics.wires import Wires, wires
from tests.unit.guard.flannels import NETWORK, SUBNET
from tests.unit.observe.three import Node, agent_says, disagreements, guard_says, rate, watch_says
from tests.unit.semantics.random_rules import POD_IN, UPLINK

from hitless.model.families import Family
from hitless.model.rules import Ruleset
from hitless.observe import Pod
from hitless.observe.rules import RulesObserver
from hitless.watch.feeds import Feed
from hitless.watch.interest import interest
from hitless.watch.profiles import load

_SHARE = 500  # rule sets that a process takes at once
_SHOWN = 5
_HANG = 20.0


def some(seed: str, count: int) -> tuple[Counter[str], list[str]]:
    """A share of the random rule sets."""
    tally: Counter[str] = Counter()
    return tally, list(disagreements(seed, count, tally))


def pure(count: int, seed: str) -> tuple[Counter[str], list[str]]:
    """All of them, on all cores."""
    tally: Counter[str] = Counter()
    wrong: list[str] = []
    shares = [min(_SHARE, count - begin) for begin in range(0, count, _SHARE)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for told, found in pool.map(some, (f"{seed} {number}" for number in range(len(shares))), shares):
            tally += told
            wrong += found
            if tally["rule sets"] % 10_000 < _SHARE:
                print(f"  {tally['rule sets']:,} rule sets, {len(wrong)} answered differently", flush=True)
    return tally, wrong


class Readers:
    """The three ways in which rules are read."""

    def __init__(self, net: Wires) -> None:
        self._feed = Feed(net.node, interest=interest(load("flannel")))
        self._agent = RulesObserver(tuple(Family), net.node, follow_legacy=False)
        self._guard = RulesObserver(tuple(Family), net.node)
        self._guard.__enter__()
        self.guarded = self._guard.first.ruleset

    def close(self) -> None:
        """End them."""
        for each in (self._feed, self._agent, self._guard):
            each.close()

    def read(self, family: Family) -> tuple[Ruleset, Ruleset]:
        """What the watch and the agent have now."""
        self._feed.find_legacy()
        while self._feed.next(0.05) is not None:
            pass
        self._feed.surroundings.refresh()
        self._agent.look_around()
        return self._feed.current, self._agent.now((family,))

    def follow(self) -> None:
        """The guard's next state, if there is one."""
        self._guard.look_around()
        if (seen := self._guard.next(0.02)) is not None:
            self.guarded = seen.ruleset


def through_a_kernel(count: int, seed: str) -> tuple[Counter[str], list[str]]:
    """Load batches of rule sets, one for each of as many pods, and ask all three about each pod."""
    tally: Counter[str] = Counter()
    wrong: list[str] = []
    with wires() as net:
        prepare(net)
        readers = Readers(net)
        try:
            turns = [(way, family) for way in WAYS for family in Family]
            for number in range(-(-count // SETS)):
                way, family = turns[number % len(turns)]
                wrong += batch(net, readers, way, family, f"{seed} {number} {way} {family}", tally)
        finally:
            readers.close()
    return tally, wrong


def batch(net: Wires, readers: Readers, way: str, family: Family, seed: str, tally: Counter[str]) -> Iterator[str]:
    """One load."""
    random = Random(seed)
    if way == "native":
        net.run("nft", "-f", "-", stdin=nft_batch(random, family))
    else:
        net.run(f"{family.iptables}-{way}-restore", "-w", stdin=iptables_batch(random, family))
    watched, asked = readers.read(family)
    network, subnet = NETWORK[family], SUBNET[family]
    end = time.monotonic() + _HANG
    for address in sources(family):
        node = Node((Pod(address, POD_IN),), UPLINK)
        watch = watch_says(watched, network, subnet, node)
        agent = agent_says(asked, network, subnet, node)
        guard = guard_says(readers.guarded, network, subnet, node)
        while guard[0] != watch[0] and time.monotonic() < end:  # it follows, and that takes its time
            readers.follow()
            guard = guard_says(readers.guarded, network, subnet, node)
        tally["rule sets"] += 1
        tally[watch[0]] += 1
        if len({watch[0], agent[0], guard[0]}) > 1:
            yield f"{seed} {address}: watch {watch}, agent {agent}, guard {guard}"
    if way == "native":
        net.run("nft", "-f", "-", stdin=_TRACKED)
    else:
        net.run(f"{family.iptables}-{way}-restore", "-w", stdin=_EMPTY)


def report(what: str, tally: Counter[str], wrong: list[str], seconds: float) -> bool:
    """Print a part's figures; whether it is met."""
    for told in wrong[:_SHOWN]:
        print(f"  {told[:600]}")
    shares = rate(tally)
    words = ", ".join(f"{state.replace('_', ' ')} {share:.1%}" for state, share in shares.items())
    print(f"{what}: {tally['rule sets']:,} rule sets in {seconds:.0f} s: {words}; {len(wrong)} answered differently")
    return not wrong and all(shares.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rule-sets", type=int, default=100_000)
    parser.add_argument("--kernel", type=int, default=2_400, help="rule sets through a real kernel; 0: none")
    parser.add_argument("--seed", default="1")
    options = parser.parse_args()
    print(f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} cores")
    begun = time.monotonic()
    found = pure(options.rule_sets, options.seed)
    met = report("as values", *found, time.monotonic() - begun)
    if options.kernel:
        begun = time.monotonic()
        found = through_a_kernel(options.kernel, options.seed)
        met = report("through a kernel", *found, time.monotonic() - begun) and met
    print("met: all three say the same of every rule set" if met else "missed")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
