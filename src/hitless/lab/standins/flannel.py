"""flannel's traffic manager, replayed: its commands at start, every five seconds, and at SIGTERM.

Start (every release): when the subnet file names other networks than the lease, or is missing, the old rules are torn
down, the POSTROUTING jump among them; then FLANNEL-POSTRTG is emptied; then each of seven rules is checked twice; then
one restore writes them. 18 commands run while the chain is empty, 21 once the jump is gone too. v0.26 and before do the
work of both tables at the same time, and remove everything at SIGTERM, after a second; v0.27 and later do it one after
the other, remove nothing, and clean up the other backend at start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hitless.errors import ProgramError
from hitless.kernel import files
from hitless.lab.standins import rules
from hitless.lab.standins.commands import Counter, IpTables, Nft
from hitless.lab.standins.rules import Pods, Spec
from hitless.model.families import Backend, Family

__all__ = ["FlannelNft", "FlannelStandIn", "Subnets"]

log = logging.getLogger("stand-in")


@dataclass(frozen=True, slots=True)
class Subnets:
    """The subnet file of the last flannel. Canal mounts none, so that every start there is a first start."""

    path: Path | None

    def previous(self, family: Family) -> Pods:
        """The networks that it names for a family."""
        stem = "FLANNEL_" if family is Family.IPV4 else "FLANNEL_IPV6_"
        values: dict[str, str] = {}
        if self.path is not None and self.path.exists():
            values = dict(line.split("=", 1) for line in files.read_text(self.path).splitlines() if "=" in line)
        if f"{stem}NETWORK" not in values or f"{stem}SUBNET" not in values:
            return Pods.nothing(family)
        return Pods(family, values[f"{stem}NETWORK"], values[f"{stem}SUBNET"])

    def write(self, pods: Iterable[Pods]) -> None:
        """Write the file atomically."""
        if self.path is None:
            return
        lines = []
        for each in pods:
            stem = "FLANNEL_" if each.family is Family.IPV4 else "FLANNEL_IPV6_"
            lines += [f"{stem}NETWORK={each.network}", f"{stem}SUBNET={each.subnet}"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join([*lines, "FLANNEL_MTU=1450", "FLANNEL_IPMASQ=true", ""])
        files.replace(self.path, text.encode(), durable=False)


@dataclass
class FlannelStandIn:
    """iptables mode. ``old``: v0.26 and before."""

    pods: tuple[Pods, ...]
    backend: Backend
    subnets: Subnets
    old: bool
    resync: float
    counter: Counter = field(default_factory=Counter)
    stopping: threading.Event = field(default_factory=threading.Event)
    _written: list[tuple[Pods, tuple[Spec, ...]]] = field(default_factory=list)

    def start(self) -> None:
        """Start, until it is ready."""
        if not self.old:
            self._clean_other_backend()
        first: list[threading.Thread] = []
        for pods in self.pods:
            previous = self.subnets.previous(pods.family)
            if (previous.network, previous.subnet) != (pods.network, pods.subnet):
                log.info("recycle old rules of %s", previous.network)
                self._table(pods)  # flannel checks whether --random-fully works
                self._teardown(pods, rules.masquerade(previous))
            self._table(pods).clear_chain("nat", rules.MASQ_CHAIN)
            self._table(pods)  # and again
            self._ensure(pods, rules.masquerade(pods), first)
        for pods in self.pods:
            self._table(pods).clear_chain("filter", rules.FORWARD_CHAIN)
            self._ensure(pods, rules.forward(pods), first)
        self.subnets.write(self.pods)
        for thread in first:  # ready when the rules are complete, which old releases did not wait for
            thread.join()

    def stop(self) -> None:
        """As at SIGTERM."""
        self.stopping.set()
        if self.old:
            time.sleep(1)
            for pods in self.pods:
                self._teardown(pods, [rule for each, specs in self._written if each == pods for rule in specs])

    def _table(self, pods: Pods) -> IpTables:
        return IpTables(pods.family, self.backend, self.counter)

    def _clean_other_backend(self) -> None:
        for family in Family:
            table = f"flannel-{family}"
            try:
                Nft(family, table, self.counter).run(f"delete table {family.nft} {table}\n")
            except ProgramError:
                log.debug("no table %s to clean up", table)  # flannel logs this at a high verbosity only

    def _ensure(self, pods: Pods, specs: tuple[Spec, ...], first: list[threading.Thread]) -> None:
        """Bootstrap, then resync for ever; the bootstrap in a thread of its own in old releases."""
        if self.old:
            first.append(self._begin(pods, specs))
        else:
            self._begin(pods, specs).join()

    def _begin(self, pods: Pods, specs: tuple[Spec, ...]) -> threading.Thread:
        """Bootstrap in a thread, which ends when the rules are complete; another one then does the resync."""

        def work() -> None:
            table = self._table(pods)
            table.version()  # for the restore program
            self._bootstrap(table, specs)
            self._written.append((pods, specs))
            threading.Thread(target=self._resync, args=(table, specs), daemon=True).start()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def _bootstrap(self, table: IpTables, specs: tuple[Spec, ...]) -> None:
        lines: list[tuple[str, str]] = []
        for rule in specs:
            if not table.chain_exists(rule.table, rule.own_chain):
                table.clear_chain(rule.table, rule.own_chain)
            if table.exists(rule):
                lines.append((rule.table, rule.line("-D")))
            lines.append((rule.table, rule.line("-A")))
        table.restore(lines)
        log.info("bootstrap done: %s", specs[0].own_chain)

    def _resync(self, table: IpTables, specs: tuple[Spec, ...]) -> None:
        while not self.stopping.wait(self.resync):
            try:
                if not all(table.chain_exists(rule.table, rule.own_chain) and table.exists(rule) for rule in specs):
                    log.info("some rules are missing; deleting and recreating rules")
                    self._bootstrap(table, specs)
            except ProgramError as error:
                log.error("failed to ensure rules: %s", error)  # as flannel: log it, and try again next time

    def _teardown(self, pods: Pods, specs: Iterable[Spec]) -> None:
        table = self._table(pods)
        table.version()
        lines = []
        for rule in specs:
            if table.chain_exists(rule.table, rule.own_chain) and table.exists(rule):
                lines.append((rule.table, rule.line("-D")))
        table.restore(lines)


@dataclass
class FlannelNft:
    """nftables mode: one transaction per chain; ``old`` deletes its tables at SIGTERM, at once. No resync at all."""

    pods: tuple[Pods, ...]
    old: bool
    counter: Counter = field(default_factory=Counter)
    stopping: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Start, until it is ready."""
        if not self.old:
            self._clean_other_backend()
        tables = {}
        for family in Family:  # flannel creates both tables for any configuration
            nft = Nft(family, f"flannel-{family}", self.counter)
            nft.run(f'add table {nft.table} {{ comment "rules for flannel-{family}" ; }}\n')
            tables[family] = nft
        for pods in self.pods:
            nft = tables[pods.family]
            head = "postrtg { type nat hook postrouting priority 100 ; }"
            self._replace(nft, "postrtg", head, rules.nft_masquerade(pods), check=tables[Family.IPV4])
        for pods in self.pods:
            nft = tables[pods.family]
            self._replace(nft, "forward", "forward { type filter hook forward priority 0 ; }", rules.nft_forward(pods))

    def stop(self) -> None:
        """As at SIGTERM."""
        self.stopping.set()
        if self.old:
            for family in Family:
                nft = Nft(family, f"flannel-{family}", self.counter)
                nft.run(f"delete table {nft.table}\n")

    def _replace(self, nft: Nft, chain: str, head: str, lines: tuple[str, ...], check: Nft | None = None) -> None:
        if check is not None:  # whether the kernel knows fully-random
            test = "masqueradeTest {{ type nat hook postrouting priority 100 ; }}"
            check.check(
                f"add chain {check.table} {test}\nflush chain {check.table} masqueradeTest\n"
                f"add rule {check.table} masqueradeTest ip saddr != 127.0.0.1 masquerade fully-random\n"
            )
        text = [f"add chain {nft.table} {head}", f"flush chain {nft.table} {chain}"]
        text += [f"add rule {nft.table} {chain} {line}" for line in lines]
        nft.run("\n".join(text) + "\n")

    def _clean_other_backend(self) -> None:
        # upstream looks for FLANNEL-FWD in the nat table, where it never was; and an emptied FLANNEL-POSTRTG stays,
        # because the jump to it stays
        for family in Family:
            tables = IpTables(family, Backend.NFT, self.counter)
            for chain in (rules.MASQ_CHAIN, rules.FORWARD_CHAIN):
                try:
                    tables.clear_and_delete_chain("nat", chain)
                except ProgramError as error:
                    log.info("could not clean up %s: %s", chain, error)
