"""``adopter``: the smallest agent whose restart makes no gap.

It reads the rules; when they are right it writes nothing, else it replaces its chains in one transaction per table,
jump included; at SIGTERM it ends and changes nothing. ``hitless agent`` is the real one; this one shows the difference
to flannel in a hundred lines.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from hitless.errors import ProgramError
from hitless.lab.standins import rules
from hitless.lab.standins.commands import Counter
from hitless.lab.standins.rules import Pods, Spec
from hitless.model.families import Backend

__all__ = ["Adopter"]


@dataclass
class Adopter:
    """One agent for the three backends."""

    pods: tuple[Pods, ...]
    backend: Backend
    resync: float
    counter: Counter = field(default_factory=Counter)
    stopping: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Start, until it is ready."""
        self._reconcile()
        threading.Thread(target=self._resync, daemon=True).start()

    def stop(self) -> None:
        """Rules outlive the process: nothing to do."""
        self.stopping.set()

    def _resync(self) -> None:
        while not self.stopping.wait(self.resync):
            self._reconcile()

    def _reconcile(self) -> None:
        for pods in self.pods:
            if self.backend.native:
                self._nftables(pods)
            else:
                self._iptables(pods, "nat", rules.masquerade(pods))
                self._iptables(pods, "filter", rules.forward(pods))

    def _run(self, command: Sequence[str], stdin: str = "") -> str:
        code, output, problem = self.counter.run(command, stdin)
        if code:
            raise ProgramError(command, code, problem)
        return output

    def _iptables(self, pods: Pods, table: str, specs: tuple[Spec, ...]) -> None:
        program = self.backend.tool(pods.family)
        observed = self._run([f"{program}-save", "-t", table]).splitlines()
        own = specs[0].own_chain
        jump, *lines = [spec.line("-A") for spec in specs]
        jumps = [line for line in observed if line.startswith("-A ") and line.endswith(f"-j {own}")]
        if [line for line in observed if line.startswith(f"-A {own} ")] == lines and jumps == [jump]:
            return
        text = [f"*{table}", f":{own} - [0:0]"]
        if jumps != [jump]:
            text += [line.replace("-A ", "-D ", 1) for line in jumps] + [jump]
        self._run([f"{program}-restore", "--noflush", "--wait"], "\n".join([*text, *lines, "COMMIT", ""]))

    def _nftables(self, pods: Pods) -> None:
        table = f"{pods.family.nft} {self.backend.table(pods.family)}"
        for chain, head, lines in (
            ("postrtg", "type nat hook postrouting priority srcnat; policy accept;", _corrected(pods)),
            ("forward", "type filter hook forward priority filter; policy accept;", rules.nft_forward(pods)),
        ):
            code, output, _ = self.counter.run(["nft", "list", "chain", *table.split(), chain])
            observed = [line.strip() for line in output.splitlines()[2:-2]]
            if code == 0 and observed == [head, *lines]:
                continue
            text = [f"add table {table}", f"add chain {table} {chain} {{ {head} }}", f"flush chain {table} {chain}"]
            text += [f"add rule {table} {chain} {line}" for line in lines]
            self._run(["nft", "-f", "-"], "\n".join([*text, ""]))


def _corrected(pods: Pods) -> tuple[str, ...]:
    """flannel's nftables rules without its two defects: the mark masked, the fourth rule as in iptables mode."""
    ip, network, subnet = pods.family.nft, pods.network, pods.subnet
    mark, out, back, foreign, *rest = rules.nft_masquerade(pods)
    mark = "meta mark & 0x00004000 == 0x00004000 return"
    foreign = f"{ip} saddr != {network} {ip} daddr {subnet} return"
    return (mark, out, back, foreign, *rest)
