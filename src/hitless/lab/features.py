"""What a lab needs of this machine, probed and not assumed, each with its remedy.

Problem: "Operation not supported" does not tell users which module their kernel lacks. Promise: ``probe`` tries each
feature in a scratch namespace and reports all of them; ``require_programs`` is the cheap check before every build;
``explain`` raises ``MissingError`` for a build that failed because of a missing feature. Nothing is changed on the
machine, except that the kernel may load modules on demand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hitless.errors import HitlessError, KernelError, MissingError, ProgramError
from hitless.kernel import iptables, processes
from hitless.kernel.namespaces import Namespace
from hitless.lab import etcd, overlays
from hitless.lab.keeper_client import Keeper
from hitless.lab.plans import LabPlan, LeaseStore, OverlayType
from hitless.model.families import Family

__all__ = ["Feature", "explain", "probe", "require_programs"]


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature that a lab needs; ``problem`` is empty when it is present."""

    name: str
    problem: str = ""
    remedy: str = ""

    @property
    def present(self) -> bool:
        """Whether this machine has it."""
        return not self.problem


def _programs(plan: LabPlan) -> tuple[str, ...]:
    tools = [plan.backend.tool(family, end) for family in plan.families for end in ("", "-restore")]
    extra = ["nft"] if plan.backend.native else []
    extra += [etcd.PROGRAM] if plan.leases == LeaseStore.ETCD else []
    return ("ip", "nsenter", *(tools if plan.kubernetes else ()), *extra)


def _program(name: str) -> str:
    return iptables.program(name) if "tables-" in name else processes.program(name)


def require_programs(plan: LabPlan) -> None:
    """Raise ``MissingError`` for the first program that the plan needs and that is not installed."""
    for name in _programs(plan):
        try:
            _program(name)
        except MissingError as error:
            if name != etcd.PROGRAM:
                raise
            raise MissingError(
                "the program etcd is not installed, in which agents of this lab keep their leases", remedy=etcd.REMEDY
            ) from error


def probe(plan: LabPlan) -> tuple[Feature, ...]:
    """Every feature that the plan needs, tried in temporary namespaces."""
    found = []
    for name in _programs(plan):
        try:
            _program(name)
            found.append(Feature(f"program {name}"))
        except MissingError as error:
            found.append(Feature(f"program {name}", str(error).removesuffix(f"; {error.remedy}"), error.remedy))
    try:
        keeper = Keeper()
    except MissingError as error:
        return (*found, Feature("namespaces (network, mount, user)", str(error), error.remedy))
    except HitlessError as error:
        remedy = "run it as root, or allow user namespaces"
        return (*found, Feature("namespaces (network, mount, user)", str(error), remedy))
    try:
        found.append(Feature("namespaces (network, mount, user)"))
        held = keeper.make("probe", mount=True)
        space = held.namespace(keeper.keep)
        for name, remedy, attempt in _attempts(plan, keeper):
            try:
                attempt(space)
                found.append(Feature(name))
            except ProgramError as error:
                lines = error.stderr.strip().splitlines()
                found.append(Feature(name, lines[0] if lines else str(error), remedy))
            except (KernelError, MissingError) as error:
                found.append(Feature(name, str(error), remedy))
    finally:
        keeper.close()
    return tuple(found)


_Attempt = tuple[str, str, Callable[[Namespace], None]]


def _attempts(plan: LabPlan, keeper: Keeper) -> list[_Attempt]:
    def ip(text: str) -> Callable[[Namespace], None]:
        return lambda space: _run(["ip", "-batch", "-"], space, text)

    def kernel(option: str, module: str) -> str:
        return f"load it (modprobe {module}) or use a kernel with {option}"

    attempts: list[_Attempt] = [
        ("veth links", kernel("CONFIG_VETH", "veth"), ip("link add p0 type veth peer name p1\n")),
        ("bridge links", kernel("CONFIG_BRIDGE", "bridge"), ip("link add b0 type bridge\n")),
    ]
    if plan.overlay in overlays.DEVICES:
        command, module, option = overlays.DEVICES[OverlayType(plan.overlay)]
        attempts.append((f"{module} links", kernel(option, module), ip(f"{command}\n")))
    for family in plan.families:
        if family is Family.IPV6:
            check = "link set lo up\naddr add fd00::1/128 dev lo nodad\n"
            attempts.append(("IPv6", "boot without ipv6.disable=1", ip(check)))
        forwarding = {Family.IPV4: "net/ipv4/ip_forward", Family.IPV6: "net/ipv6/conf/all/forwarding"}[family]
        attempts.append((f"{family} forwarding", "use a kernel with CONFIG_SYSCTL", _sysctl(keeper, forwarding)))
        if plan.kubernetes:
            remedy, tool = plan.rules_backend.needs, plan.backend.tool(family)
            for table, rule in _RULES.items():
                attempts.append((f"{tool}: {rule}", remedy, _rule(tool, table, rule)))
    if plan.backend.native:
        text = (
            "add table ip p\nadd chain ip p c { type nat hook postrouting priority 100; }\nadd rule ip p c masquerade\n"
        )
        attempts.append(("nft: nat chains", plan.backend.needs, lambda space: _run(["nft", "-f", "-"], space, text)))
    return attempts


_RULES = {
    "nat": "-j MASQUERADE --random-fully",
    "nat ": "-m mark ! --mark 0x4000/0x4000 -j RETURN",
    "nat  ": "-m addrtype --dst-type LOCAL -j RETURN",
    "nat   ": "-m statistic --mode random --probability 0.5 -j RETURN",
    "filter": "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "filter ": "-p udp -m multiport --dports 4789 -j DROP",
    "mangle": "-m comment --comment probe -j MARK --set-xmark 0x0/0xf0000",
}


def _run(command: list[str], space: Namespace, stdin: str = "") -> None:
    processes.run(command, namespace=space, stdin=stdin)


def _rule(tool: str, table: str, rule: str) -> Callable[[Namespace], None]:
    chain = "FORWARD" if table.startswith("filter") else "POSTROUTING"
    return lambda space: _run([tool, "--wait", "-t", table.strip(), "-A", chain, *rule.split()], space)


def _sysctl(keeper: Keeper, path: str) -> Callable[[Namespace], None]:
    def attempt(_space: Namespace) -> None:
        held = keeper.make("forwarding", sysctls={path: "1"})
        if held.missing:
            raise KernelError("write", f"/proc/sys/{path}", reason="no such file")

    return attempt


def explain(plan: LabPlan, error: HitlessError) -> None:
    """Raise ``MissingError`` from ``error`` when a feature is missing; return when none is."""
    for feature in probe(plan):
        if not feature.present:
            raise MissingError(
                f"the lab cannot be made whole: {feature.name}: {feature.problem}", remedy=feature.remedy
            ) from error
