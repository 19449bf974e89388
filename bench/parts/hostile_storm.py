"""Changes without end, beside gaps, death and stops of the guard, and a full disk. Part of bench/hostile.py.

The judge is the traffic: no attempt of a prober in a pod may be lost, late or leak, as the standby covers every gap.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from bench.parts.guard_bounds import folder, require
from bench.parts.hostile_memory import BOUND_MB, memory_mb
from tests.kernel.guard.guarded import CLI, World, unhurt, world

from hitless.kernel import processes

LOG_MB, JOURNAL_MB = 8, 2.1
CHAIN = "FLANNEL-POSTRTG"


def storm(seconds: float, rate: int, *, commits: bool) -> None:
    kind = "each a transaction of its own" if commits else "in transactions of fifty"
    print(f"storm: {rate} changes a second, {kind}, for {seconds:.0f} s", flush=True)
    with folder() as there, world(there, family="dual", pods=1) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        _Storm(made, there, seconds).run(rate, commits)


class _Storm:
    def __init__(self, made: World, there: Path, seconds: float) -> None:
        self.made, self.there, self.seconds = made, there, seconds
        self.chance = random.Random(1)
        self.most = {"guard": 0.0, "watch": 0.0}
        self.gaps = self.deaths = self.stops = self.full = 0
        self.guard = made.guard()
        made.until_state("standing by")
        saved = made.on_node("iptables-nft-save", "-t", "nat").splitlines()
        lines = [line for line in saved if line.startswith(f"-A {CHAIN} ")]
        self.rules = "\n".join(["*nat", f":{CHAIN} - [0:0]", *lines, "COMMIT", ""])

    def run(self, rate: int, commits: bool) -> None:
        made, there = self.made, self.there
        seen = there / "watch.jsonl"
        with seen.open("wb") as out:
            watch = processes.start([*CLI, "watch", "--json"], namespace=made.node.namespace, stdout=out)
        made.started.append(watch)
        with made.probing(300, timeout=10.0) as told:
            words = [sys.executable, str(Path(__file__).with_name("hostile_writer.py")), str(rate), str(self.seconds)]
            words += ["commits"] if commits else []
            with (there / "writer").open("wb") as out, (there / "errors").open("wb") as errors:
                writer = processes.start(words, namespace=made.node.namespace, stdout=out, stderr=errors)
            made.started.append(writer)
            end = time.monotonic() + self.seconds
            while time.monotonic() < end:
                self.turn()
                self.measure(watch)
            if writer.wait(timeout=60):
                raise SystemExit(f"the writer failed: {(there / 'errors').read_text()}")
        made.until_state("standing by")
        self.measure(watch)
        watch.send_signal(signal.SIGTERM)
        watch.wait(timeout=60)
        self.judge(rate, told, seen)

    def turn(self) -> None:
        """One misfortune, then a gap."""
        choice = self.chance.random()
        if choice < 0.15:
            self.deaths += 1
            os.kill(self.guard.pid, signal.SIGKILL)
            self.guard.wait(timeout=60)
            self.gap()  # nobody is there
            self.guard = self.made.guard()
        elif choice < 0.35:
            self.stops += 1
            os.kill(self.guard.pid, signal.SIGSTOP)
            self.gap()
            os.kill(self.guard.pid, signal.SIGCONT)
        elif choice < 0.45:
            self.full += 1
            self.fill()
        self.gap()
        time.sleep(self.chance.uniform(0.2, 1.5))

    def gap(self) -> None:
        self.gaps += 1
        self.made.on_node("iptables-nft", "-t", "nat", "-F", CHAIN)
        time.sleep(self.chance.uniform(0.0, 0.4))
        processes.run(["iptables-nft-restore", "--noflush"], namespace=self.made.node.namespace, stdin=self.rules)

    def fill(self) -> None:
        """No room in /run while a gap comes and goes."""
        script = "mount -t tmpfs -o size=4k tmpfs /run/hitless-guard && echo > /run/hitless-guard/x; true"
        self.made.on_node("sh", "-c", script)
        self.made.on_node("sh", "-c", "head -c 8192 /dev/zero > /run/hitless-guard/full; true", check=False)
        self.gap()
        time.sleep(0.5)
        self.made.on_node("umount", "-l", "/run/hitless-guard")

    def measure(self, watch: processes.Process) -> None:
        for name, process in (("guard", self.guard), ("watch", watch)):
            if process.poll() is None:
                self.most[name] = max(self.most[name], memory_mb(process.pid)[1])
            else:
                last = self.made.log().splitlines()[-3:] if name == "guard" else ""
                raise SystemExit(f"the {name} ended with {process.returncode}: {last}")

    def judge(self, rate: int, told: dict[str, int], seen: Path) -> None:
        changes, commits, took = (self.there / "writer").read_text().split()
        made_rate = int(changes) / float(took)
        words = f"{made_rate:.0f} changes in {int(commits) / float(took):.0f} transactions a second"
        # one by one, a busy machine makes fewer: as many as it makes
        require(made_rate >= 0.95 * rate or commits == changes, words)
        require(
            unhurt(told),
            f"{told['sent']} new connections over {self.gaps} gaps, {self.deaths} deaths and {self.stops} stops of the "
            f"guard and {self.full} full disks: {told['lost']} lost, {told['delayed']} late, {told['leaked']} leaked",
        )
        for name, most in self.most.items():
            require(most <= BOUND_MB, f"{name} took at most {most:.0f} of {BOUND_MB} MB")
        events = [json.loads(line) for line in seen.read_text().splitlines()]
        totals = events[-1]["totals"]
        # with the standby in place no gap is one for a pod: what the watch must tell is each emptied chain
        emptied = [each for each in events if each["type"] == "change" and f"{CHAIN}: -" in each.get("summary", "")]
        emptied = [each for each in emptied if each["family"] == "ipv4" and not each.get("added")]
        require(
            len(emptied) == self.gaps or totals["lost_events"] > 0,
            f"the watch told {len(emptied)} of {self.gaps} emptied chains, {totals['lost_events']} times that it lost "
            f"events; late by {totals['max_lag_ns'] / 1e6:.0f} ms at most",
        )
        authors = sum(each.get("writer", {}).get("comm", "").startswith("iptables") for each in emptied)
        require(authors == len(emptied), f"{authors} of them with their writer")
        log = len(self.made.log()) / 1e6
        journal = sum(path.stat().st_size for path in self.there.glob("journal.jsonl*")) / 1e6
        require(log <= LOG_MB and journal <= JOURNAL_MB, f"log {log:.2f} MB, journal {journal:.2f} MB")
