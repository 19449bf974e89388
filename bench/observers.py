"""Do the watch, the agent's /readyz and the guard say the same of the same rules?

    python bench/observers.py [--rule-sets 100000] [--sequences 500] [--kernel 2400] [--mistakes 4000]
                              [--processes 2] [--seed 1]

First random rule sets as values: flannel's rules, whole or damaged, among random rules of others, in all backends and
both families, on nodes with some pods or none, whose interfaces are known or not. The evaluator, which all three use,
answers a question once, whoever asks it; every fiftieth rule set is asked about again by each observer alone. Then
observers that make a mistake (``tests/unit/observe/mutations.py``), each of which has to be found. Then sequences of
rule sets that change one thing at a time (``tests/unit/observe/followed.py``): after each change, the running observers
report what a fresh evaluation comes to. Then wide random rule sets through a real kernel (nft, iptables-nft,
iptables-legacy), 24 in a transaction, where each observer has read them in its own way: the watch's feed, the agent's
reading of the moment, the guard's following of each state. Root is needed for the last. Exit 1: one said something
else, a mistake was not found, or answers of one kind are missing, so that agreement would prove nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kernel.semantics.wide import WAYS, empty, prepare
from tests.kernel.semantics.wide_rules import SETS, iptables_batch, nft_batch, sources
from tests.kernel.semantics.wires import Wires, wires
from tests.unit.guard.flannels import NETWORK, SUBNET
from tests.unit.observe.followed import stale
from tests.unit.observe.mutations import MUTATIONS
from tests.unit.observe.shared_answers import Answers
from tests.unit.observe.three import OBSERVERS, Node, agent_says, disagreements, guard_says, rate, watch_says
from tests.unit.semantics.random_rules import POD_IN, UPLINK

from hitless.model.families import Family
from hitless.model.rules import Ruleset
from hitless.model.standby import TABLE
from hitless.observe import LocalPod
from hitless.observe.rules import RulesObserver
from hitless.semantics import Visit
from hitless.watch.feeds import Feed
from hitless.watch.interest import interest
from hitless.watch.profiles import load

_SHARE = 500  # rule sets that a process takes at once
_SHOWN = 5
_HANG = 60.0  # seconds: what follows does so within a few hundredths
_DISPATCHING = frozenset({"bpre", "braw", "bfwd", "bnat", "PREROUTING", "FORWARD", "POSTROUTING"})
Found = tuple[Counter[str], list[str]]


# --- as values


def some(seed: str, count: int) -> Found:
    """A share of the random rule sets."""
    tally: Counter[str] = Counter()
    return tally, list(disagreements(seed, count, tally))


def shared_out(work: Callable[[str, int], Found], seed: str, count: int, share: int, processes: int) -> Found:
    """All of them, by so many processes."""
    tally: Counter[str] = Counter()
    wrong: list[str] = []
    shares = [min(share, count - begin) for begin in range(0, count, share)]
    with ProcessPoolExecutor(processes) as pool:
        for told, found in pool.map(work, (f"{seed} {number}" for number in range(len(shares))), shares):
            tally += told
            wrong += found
            if tally["rule sets"] % 20_000 < told["rule sets"]:
                print(f"  {tally['rule sets']:,} rule sets, {len(wrong)} answered differently", flush=True)
    return tally, wrong


def mistakes(most: int, seed: str) -> bool:
    """Let each mistake be found; whether all were."""
    missed = 0
    for mistake, (wrong, says) in MUTATIONS.items():
        tally: Counter[str] = Counter()
        observers = {**OBSERVERS, wrong: says}
        found = next(disagreements(f"{seed} mistakes", most, tally, observers, checked=most), None)
        missed += found is None
        told = f"found at rule set {tally['rule sets']:,}" if found else f"NOT FOUND in {most:,} rule sets"
        print(f"  {mistake}: {told}")
    print(f"mistakes: {len(MUTATIONS) - missed} of {len(MUTATIONS)} found")
    return not missed


def sequences(seed: str, count: int) -> bool:
    """Let the running observers follow so many sequences; whether they always report what a fresh one does."""
    tally: Counter[str] = Counter()
    wrong = list(stale(f"{seed} sequences", count, tally))
    for found in wrong[:_SHOWN]:
        print(f"  {found}")
    facts = ", ".join(
        f"{kind} {tally[kind]:,}" for kind in ("states changed", "guard passed over", "guard has no pods")
    )
    print(
        f"sequences: {count:,} of {tally['steps'] // max(1, count)} changes: {facts}; {len(wrong)} answered differently"
    )
    return not wrong and tally["states changed"] > 0 and tally["guard passed over"] > 0


# --- through a kernel


class Readers:
    """The three ways in which rules are read."""

    def __init__(self, net: Wires) -> None:
        self._feed = Feed(net.node, interest=interest(load("flannel")))
        self._agent = RulesObserver(tuple(Family), net.node, follow_legacy=False)
        self._guard = RulesObserver(tuple(Family), net.node, tables=(TABLE,))
        self._guard.__enter__()
        self.guarded = self._guard.first.ruleset

    def close(self) -> None:
        """End them."""
        for each in (self._feed, self._agent, self._guard):
            each.close()

    def read(self, family: Family, marker: str) -> tuple[Ruleset, Ruleset]:
        """What the watch and the agent have, as soon as they have the batch with this marker."""
        end = time.monotonic() + _HANG
        while True:
            self._feed.find_legacy()
            while self._feed.next(0.02) is not None:
                pass
            self._feed.surroundings.refresh()
            self._agent.look_around()
            watched, asked = self._feed.current, self._agent.now((family,))
            if (has(watched, marker) and has(asked, marker)) or time.monotonic() > end:
                return watched, asked

    def follow(self, marker: str) -> Ruleset:
        """What the guard has, as soon as it has the batch."""
        end = time.monotonic() + _HANG
        while not has(self.guarded, marker) and time.monotonic() < end:
            if (seen := self._guard.next(0.02)) is not None:
                self.guarded = seen.ruleset
        # the end of the batch before may be behind the marker: the two paths are followed side by side
        while (seen := self._guard.next(0.05)) is not None:
            self.guarded = seen.ruleset
        self._guard.look_around()
        return self.guarded


def has(ruleset: Ruleset, marker: str) -> bool:
    """Whether all tables of a batch are in: those of iptables-legacy are committed and read one by one."""
    tables = [table for table in ruleset.tables if table.name in ("t", "raw", "mangle", "filter", "nat")]
    marked = sum(marker in table.chains for table in tables)
    return marked == (1 if any(table.name == "t" for table in tables) else 4)


def through_a_kernel(seed: str, count: int) -> Found:
    """Load batches of rule sets, one for each of as many pods, and ask all three about each pod."""
    tally: Counter[str] = Counter()
    wrong: list[str] = []
    turns = [(way, family) for way in WAYS for family in Family]
    with wires() as net:
        prepare(net)
        readers = Readers(net)
        try:
            for number in range(-(-count // SETS)):
                way, family = turns[number % len(turns)]
                wrong += batch(net, readers, way, family, f"{seed} {number} {way} {family}", tally)
        finally:
            readers.close()
    return tally, wrong


def marked(text: str, way: str, marker: str) -> str:
    """A batch with an empty chain of this name in each of its tables."""
    if way == "native":
        return text.replace(" t {\n", f" t {{\nchain {marker} {{ }}\n", 1)
    return "".join(f"{line}\n" + (f":{marker} - [0:0]\n" if line.startswith("*") else "") for line in text.splitlines())


def batch(net: Wires, readers: Readers, way: str, family: Family, seed: str, tally: Counter[str]) -> Iterator[str]:
    """One load."""
    random = Random(seed)
    tally["batches"] += 1
    marker = f"BATCH-{tally['batches']}"
    if way == "native":
        net.run("nft", "-f", "-", stdin=marked(nft_batch(random, family), way, marker))
    else:
        net.run(f"{family.iptables}-{way}-restore", "-w", stdin=marked(iptables_batch(random, family), way, marker))
    watched, asked = readers.read(family, marker)
    guarded = readers.follow(marker)
    for name, ruleset in (("watch", watched), ("agent", asked), ("guard", guarded)):
        if not has(ruleset, marker):
            yield f"{seed}: the {name} did not get these rules within {_HANG:.0f} s"
    network, subnet, answers = NETWORK[family], SUBNET[family], Answers()
    for address in sources(family):
        node = Node((LocalPod(address, POD_IN),), UPLINK)
        answers.begin(watched, asked, guarded)
        with answers.shared():
            told = (
                watch_says(watched, network, subnet, node)[0],
                agent_says(asked, network, subnet, node)[0],
                guard_says(guarded, network, subnet, node)[0],
            )
        tally.update(("rule sets", told[0], way, family.value))
        answers.count(tally, lambda visit: _dispatching(visit))
        if len(set(told)) > 1:
            why = watch_says(watched, network, subnet, node), guard_says(guarded, network, subnet, node)
            yield f"{seed} {address}: watch, agent, guard: {told}; {why}"
    empty(net, way, family)


def _dispatching(visit: Visit) -> bool:
    """Whether it only leads a packet to the rules of its own pod, and out again."""
    return visit.kind in ("base", "policy accept") or (visit.kind == "jump" and visit.chain in _DISPATCHING)


# --- the report


def report(what: str, tally: Counter[str], wrong: Sequence[str], seconds: float) -> bool:
    """Print a part's figures; whether it is met."""
    for told in wrong[:_SHOWN]:
        print(f"  {told[:600]}")
    shares = rate(tally)
    words = ", ".join(f"{state.replace('_', ' ')} {share:.1%}" for state, share in shares.items())
    print(f"{what}: {tally['rule sets']:,} rule sets in {seconds:.0f} s: {words}; {len(wrong)} answered differently")
    others = {kind: number for kind, number in tally.items() if kind not in (*shares, "rule sets", "batches")}
    did = {kind: others.pop(kind) for kind in sorted(others) if kind.startswith("rules did: ")}
    print("  with " + ", ".join(f"{kind} {others[kind]:,}" for kind in sorted(others)))
    print("  rules did: " + ", ".join(f"{kind.partition(': ')[2]} {number:,}" for kind, number in did.items()))
    return not wrong and all(shares.values()) and tally["vacuous"] < 0.2 * tally["rule sets"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rule-sets", type=int, default=100_000, help="rule sets as values; 0: none")
    parser.add_argument("--sequences", type=int, default=500, help="sequences that running observers follow; 0: none")
    parser.add_argument("--kernel", type=int, default=2_400, help="rule sets through a real kernel; 0: none")
    parser.add_argument("--mistakes", type=int, default=4_000, help="rule sets to find each mistake in; 0: none")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", default="1")
    options = parser.parse_args()
    print(f"{platform.system()} {platform.release()}, {platform.machine()}, {options.processes} processes")
    run, met = partial(shared_out, seed=options.seed, processes=options.processes), True
    if options.rule_sets:
        begun = time.monotonic()
        met = report("as values", *run(some, count=options.rule_sets, share=_SHARE), time.monotonic() - begun)
    if options.mistakes:
        met = mistakes(options.mistakes, options.seed) and met
    if options.sequences:
        met = sequences(options.seed, options.sequences) and met
    if options.kernel:
        begun = time.monotonic()
        share = -(-options.kernel // (SETS * options.processes)) * SETS
        found = run(through_a_kernel, count=options.kernel, share=share)
        met = report("through a kernel", *found, time.monotonic() - begun) and met
    print("met: all three say the same of every rule set" if met else "missed")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
