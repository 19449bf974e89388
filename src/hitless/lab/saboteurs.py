"""Faults: damage to a node's rules in a lab, as administrators, firewalls and other agents cause it.

Problem: agents and guards must be tested with damaged rules. Promise: each fault is one kind of damage seen in the
field, done with the commands that cause it there, for iptables-nft, iptables-legacy and native nftables, in both
families. A fault is a context manager that saves the tables before it acts and restores each in one transaction, also
when the block raises; ``act`` alone leaves the damage. Only the given namespace is changed. The undo also removes what
other programs wrote to these tables meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType

from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace
from hitless.lab.clusters import LabCluster, LabNode
from hitless.lab.standins.rules import MASQ_CHAIN, Pods, Spec, forward, masquerade
from hitless.model.families import Backend, Family, KernelPath

__all__ = ["FAULTS", "Fault", "SabotageTarget", "opens_a_gap"]

_TABLES = ("nat", "filter")


@dataclass(frozen=True, slots=True)
class SabotageTarget:
    """Where the damage is done: a node's namespace, the backend of the agent there, and its networks."""

    namespace: Namespace
    backend: Backend
    pods: tuple[Pods, ...]

    @classmethod
    def of(cls, cluster: LabCluster, node: LabNode) -> SabotageTarget:
        """A node of a lab."""
        plan = cluster.plan
        pods = tuple(Pods.of(family, plan.network(family), node.subnets[family]) for family in plan.families)
        return cls(node.namespace, plan.backend, pods)

    def run(self, *command: str, stdin: str = "", check: bool = True) -> str:
        """Run a command there; its output."""
        return processes.run(command, namespace=self.namespace, stdin=stdin, check=check).stdout

    def iptables(self, family: Family, *arguments: str) -> None:
        """Run the iptables that holds the agent's (or, in nftables mode, kube-proxy's) rules."""
        self.run(self.backend.tool(family), "--wait", *arguments)

    def nft(self, text: str) -> None:
        """One nft transaction."""
        self.run("nft", "-f", "-", stdin=text)

    def snapshot(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        """The commands, with their input, that restore every table to its present state."""
        found: list[tuple[tuple[str, ...], str]] = []
        for pods in self.pods:
            program = self.backend.tool(pods.family)
            for table in ("mangle", *_TABLES):
                saved = self.run(f"{program}-save", "-t", table)
                found.append(((f"{program}-restore", "--wait"), saved or f"*{table}\nCOMMIT\n"))
            if self.backend.native:
                name = f"{pods.family.nft} {self.backend.table(pods.family)}"
                listed = self.run("nft", "list", "table", *name.split(), check=False)
                found.append((("nft", "-f", "-"), f"add table {name}\ndelete table {name}\n{listed}"))
        return tuple(found)


@dataclass
class Fault:
    """One kind of damage to one target."""

    name: str
    target: SabotageTarget
    damage: Callable[[SabotageTarget, Pods], None]
    _undo: list[tuple[tuple[str, ...], str]] = field(default_factory=list)

    def act(self) -> None:
        """Cause the damage, in every family."""
        for pods in self.target.pods:
            self.damage(self.target, pods)

    def undo(self) -> None:
        """Restore the tables as they were when the block was entered."""
        for command, text in self._undo:
            self.target.run(*command, stdin=text)
        self._undo.clear()

    def __enter__(self) -> Fault:
        self._undo.extend(self.target.snapshot())
        try:
            self.act()
        except BaseException:
            self.undo()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def _native(target: SabotageTarget) -> bool:
    return target.backend.native


def _chain(target: SabotageTarget, pods: Pods, name: str = "postrtg") -> str:
    return f"{pods.family.nft} {target.backend.table(pods.family)} {name}"


def _flush_chain(target: SabotageTarget, pods: Pods) -> None:
    if _native(target):
        target.nft(f"flush chain {_chain(target, pods)}\n")
    else:
        target.iptables(pods.family, "-t", "nat", "-F", MASQ_CHAIN)


def _delete_jump(target: SabotageTarget, pods: Pods) -> None:
    if _native(target):  # a base chain is called by its hook, so that the call ends only with the chain
        target.nft(f"flush chain {_chain(target, pods)}\ndelete chain {_chain(target, pods)}\n")
    else:
        jump = masquerade(pods)[0]
        target.iptables(pods.family, "-t", jump.table, "-D", jump.chain, *jump.arguments)


def _return_in_front(target: SabotageTarget, pods: Pods) -> None:
    if _native(target):
        target.nft(f"insert rule {_chain(target, pods)} return\n")
    else:
        target.iptables(pods.family, "-t", "nat", "-I", MASQ_CHAIN, "1", "-j", "RETURN")


def _accept_in_front(target: SabotageTarget, pods: Pods) -> None:
    if _native(target):
        target.nft(f"insert rule {_chain(target, pods)} {pods.family.nft} saddr {pods.network} accept\n")
    else:
        target.iptables(pods.family, "-t", "nat", "-I", "POSTROUTING", "1", "-s", pods.network, "-j", "ACCEPT")


def _flush_nat(target: SabotageTarget, pods: Pods) -> None:
    if _native(target):
        target.nft(f"flush table {pods.family.nft} {target.backend.table(pods.family)}\n")
    else:
        target.iptables(pods.family, "-t", "nat", "-F")


def _flush_filter(target: SabotageTarget, pods: Pods) -> None:
    target.iptables(pods.family, "-F")


def _flush_ruleset(target: SabotageTarget, pods: Pods) -> None:
    # without the family nft would flush all families
    target.nft(f"flush ruleset {pods.family.nft}\n")


def _rewrite(target: SabotageTarget, pods: Pods, specs: tuple[Spec, ...]) -> None:
    """FLANNEL-POSTRTG with other rules, in one transaction."""
    text = "\n".join(["*nat", f":{MASQ_CHAIN} - [0:0]", *(spec.line("-A") for spec in specs), "COMMIT", ""])
    target.run(target.backend.tool(pods.family, "-restore"), "--noflush", "--wait", stdin=text)


def _rewrite_native(target: SabotageTarget, pods: Pods, order: Callable[[list[str]], list[str]]) -> None:
    listed = target.run("nft", "list", "chain", *_chain(target, pods).split()).splitlines()
    rules = [line.strip() for line in listed[3:-2]]
    lines = [
        f"flush chain {_chain(target, pods)}",
        *(f"add rule {_chain(target, pods)} {rule}" for rule in order(rules)),
        "",
    ]
    target.nft("\n".join(lines))


def _reorder(target: SabotageTarget, pods: Pods) -> None:
    """The first MASQUERADE comes before the RETURNs: pods of other nodes are translated too."""
    if _native(target):
        _rewrite_native(target, pods, lambda rules: [rules[4], *rules[:4], *rules[5:]])
    else:
        _, *rules = masquerade(pods)
        _rewrite(target, pods, (rules[4], *rules[:4], *rules[5:]))


def _duplicate(target: SabotageTarget, pods: Pods) -> None:
    if _native(target):
        _rewrite_native(target, pods, lambda rules: [*rules, *rules])
    else:
        jump, *rules = masquerade(pods)
        _rewrite(target, pods, (*rules, *rules))
        target.iptables(pods.family, "-t", "nat", "-A", jump.chain, *jump.arguments)


def _wrong_subnet(target: SabotageTarget, pods: Pods) -> None:
    """All rules in the right order, but for another network."""
    other = ("10.99.0.0/16", "10.99.7.0/24") if pods.family is Family.IPV4 else ("fd99::/48", "fd99:0:0:7::/64")
    wrong = Pods(pods.family, *other)
    if _native(target):
        swap = {pods.network: wrong.network, pods.subnet: wrong.subnet}

        def for_other_network(rules: list[str]) -> list[str]:
            return [" ".join(swap.get(token, token) for token in rule.split()) for rule in rules]

        _rewrite_native(target, pods, for_other_network)
    else:
        _rewrite(target, pods, masquerade(wrong)[1:])


def _firewalld_reload(target: SabotageTarget, pods: Pods) -> None:
    """firewalld with its iptables backend: policies DROP, flush and delete, its own rules, policies ACCEPT."""
    for chain in ("INPUT", "FORWARD", "OUTPUT"):
        target.iptables(pods.family, "-P", chain, "DROP")
    for table in ("mangle", "nat", "filter"):
        target.iptables(pods.family, "-t", table, "-F")
        target.iptables(pods.family, "-t", table, "-X")
    target.iptables(pods.family, "-A", "INPUT", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
    for chain in ("INPUT", "FORWARD", "OUTPUT"):
        target.iptables(pods.family, "-P", chain, "ACCEPT")


def _policy_drop(target: SabotageTarget, pods: Pods) -> None:
    target.iptables(pods.family, "-P", "FORWARD", "DROP")


def _drop_in_front(target: SabotageTarget, pods: Pods) -> None:
    target.iptables(pods.family, "-I", "FORWARD", "1", "-s", pods.network, "-j", "DROP")


def _forward_jump(target: SabotageTarget, pods: Pods) -> None:
    if _native(target):
        name = _chain(target, pods, "forward")
        target.nft(f"flush chain {name}\ndelete chain {name}\n")
    else:
        jump = forward(pods)[0]
        target.iptables(pods.family, "-D", jump.chain, *jump.arguments)


_DAMAGES: Mapping[str, Callable[[SabotageTarget, Pods], None]] = {
    "flush-chain": _flush_chain,
    "delete-jump": _delete_jump,
    "return-in-front": _return_in_front,
    "accept-in-front": _accept_in_front,
    "flush-nat": _flush_nat,
    "flush-filter": _flush_filter,
    "flush-ruleset": _flush_ruleset,
    "reorder": _reorder,
    "duplicate": _duplicate,
    "wrong-subnet": _wrong_subnet,
    "firewalld-reload": _firewalld_reload,
    "policy-drop": _policy_drop,
    "drop-in-front": _drop_in_front,
    "delete-forward-jump": _forward_jump,
}


def _maker(name: str) -> Callable[[SabotageTarget], Fault]:
    return lambda target: Fault(name, target, _DAMAGES[name])


FAULTS: Mapping[str, Callable[[SabotageTarget], Fault]] = MappingProxyType({name: _maker(name) for name in _DAMAGES})
"""Every fault by name: ``with FAULTS["flush-chain"](SabotageTarget.of(cluster, node)): …``"""

_GAPS = frozenset(
    ("flush-chain", "delete-jump", "return-in-front", "accept-in-front", "flush-nat", "wrong-subnet", "drop-in-front")
)


def opens_a_gap(name: str, backend: Backend) -> bool:
    """Whether a new flow of a pod to the outside is not carried while the fault lasts (FORWARD policy accept)."""
    match name:
        case "flush-ruleset":
            return backend.path is KernelPath.NF_TABLES  # legacy rules are not in it
        case "firewalld-reload":
            return not backend.native  # it changes only the tables of iptables
        case _:
            return name in _GAPS
