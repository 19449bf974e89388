"""The rules that a Kubernetes node has before its network agent comes: kubelet's, kube-proxy's and Felix's.

Problem: an agent on a real node meets other programs' rules: jumps before and after its own, marks in use, conntrack,
tens of thousands of rules. Promise: text for one iptables-restore per family, a pure function of the plan, with the
chains, order and marks of kube-proxy in iptables mode and of Felix as in Canal (policy only); pod traffic passes.
Services cost what they cost on a node: five to eight rules each, half of them in the nat table's long KUBE-SERVICES.
FLANNEL-* is not here: the agent adds it. Sources: the output of iptables-save on RKE2 nodes, kube-proxy's and Felix's
documentation. Next stage: ``hitless.lab.building`` loads it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hitless.lab.plans import LabPlan
from hitless.model.families import Address, Family

__all__ = ["cluster_rules", "node_rules", "own_rules"]

_MASQ = "0x4000/0x4000"  # kube-proxy: this packet needs SNAT
_ACCEPTED = "0x10000/0x10000"  # Felix: policy accepted this packet


def node_rules(plan: LabPlan, family: Family, node: int) -> str:
    """The whole input of ``iptables-restore`` for one node and one family."""
    return cluster_rules(plan, family) + own_rules(plan, family, node)


def cluster_rules(plan: LabPlan, family: Family) -> str:
    """The part that all nodes share: mangle and nat, with the Services."""
    mangle = _table("mangle", ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"), {}, _mangle())
    return mangle + _table("nat", ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"), {}, _nat(plan, family))


def own_rules(plan: LabPlan, family: Family, node: int) -> str:
    """The part of one node: filter, with its pods' interfaces."""
    policies = {"FORWARD": plan.forward_policy.upper()}
    return _table("filter", ("INPUT", "FORWARD", "OUTPUT"), policies, _filter(plan, family, node))


def _table(name: str, base: Iterable[str], policies: dict[str, str], rules: Iterator[str]) -> str:
    """One table; its own chains are declared in the order in which rules name them: ``:NAME`` lines, or the chain of
    each ``-A``."""
    declared: dict[str, None] = {}
    lines = []
    builtin = tuple(base)
    for rule in rules:
        if rule.startswith(":"):
            declared.setdefault(rule[1:])
            continue
        chain = rule.split(" ", 2)[1]
        if chain not in builtin:
            declared.setdefault(chain)
        lines.append(rule)
    heads = [f":{chain} {policies.get(chain, 'ACCEPT')} [0:0]" for chain in builtin]
    heads += [f":{chain} - [0:0]" for chain in declared]
    return "\n".join([f"*{name}", *heads, *lines, "COMMIT", ""])


def _named(prefix: str, *parts: str) -> str:
    # kube-proxy: base32 of a SHA-256, sixteen characters, which are its first ten bytes
    return prefix + base64.b32encode(hashlib.sha256("".join(parts).encode()).digest()[:10]).decode()


def _cali(rule: str) -> str:
    """Mark a rule as Felix's: its first match is a comment with a hash of the rule."""
    _, chain, rest = rule.split(" ", 2)
    digest = base64.urlsafe_b64encode(hashlib.sha256(rule.encode()).digest()).decode()[:16]
    return f'-A {chain} -m comment --comment "cali:{digest}" {rest}'


# --- mangle ------------------------------------------------------------------------------------------------------


def _mangle() -> Iterator[str]:
    # The kubelet's chains, by which iptables-wrappers chooses a node's iptables.
    yield ":KUBE-IPTABLES-HINT"
    yield ":KUBE-KUBELET-CANARY"
    yield ":KUBE-PROXY-CANARY"
    yield _cali("-A PREROUTING -j cali-PREROUTING")
    yield _cali("-A POSTROUTING -j cali-POSTROUTING")
    yield ":cali-from-host-endpoint"
    yield ":cali-to-host-endpoint"
    yield _cali("-A cali-PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
    yield _cali(f"-A cali-PREROUTING -m mark --mark {_ACCEPTED} -j ACCEPT")
    yield _cali("-A cali-PREROUTING -j cali-from-host-endpoint")
    yield _cali(f"-A cali-PREROUTING -m mark --mark {_ACCEPTED} -j ACCEPT")
    yield _cali(f"-A cali-POSTROUTING -m mark --mark {_ACCEPTED} -j RETURN")
    yield _cali("-A cali-POSTROUTING -j MARK --set-xmark 0x0/0xf0000")
    yield _cali("-A cali-POSTROUTING -m conntrack --ctstate DNAT -j cali-to-host-endpoint")
    yield _cali(f"-A cali-POSTROUTING -m mark --mark {_ACCEPTED} -j RETURN")


# --- nat ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Service:
    """A Service as kube-proxy sees it; ``node_port`` 0 = none."""

    name: str
    address: Address
    port: int
    endpoints: tuple[str, ...]
    sources: tuple[Address, ...]
    node_port: int


def _services(plan: LabPlan, family: Family) -> Iterator[_Service]:
    network = plan.services_network(family)
    subnets = [plan.subnet(family, node) for node in range(plan.nodes)]
    for number in range(plan.services):
        # one in four has two endpoints, one in a hundred a NodePort: a plausible cluster, 5.8 rules a Service
        count = 2 if number % 4 == 3 else 1
        port = 443 if number == 0 else 80
        sources = []
        for copy in range(count):
            node = (number + copy) % plan.nodes
            if number == 0:
                sources.append(plan.node_address(family, node))
            else:
                # addresses without a pod: these rules only have to be passed
                sources.append(subnets[node][202 + number % 50])
        target = 6443 if number == 0 else 8080
        wrap = "[{}]:{}" if family is Family.IPV6 else "{}:{}"
        yield _Service(
            name="default/kubernetes:https" if number == 0 else f"ns{number % 40}/service-{number}:http",
            address=network[1 + number],
            port=port,
            endpoints=tuple(wrap.format(source, target) for source in sources),
            sources=tuple(sources),
            node_port=30000 + number // 100 if number % 100 == 50 else 0,
        )


def _nat(plan: LabPlan, family: Family) -> Iterator[str]:
    portals = '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    # Felix inserts its jumps at the top of each chain, kube-proxy appends its own.
    yield _cali("-A PREROUTING -j cali-PREROUTING")
    yield f"-A PREROUTING {portals}"
    yield _cali("-A OUTPUT -j cali-OUTPUT")
    yield f"-A OUTPUT {portals}"
    yield _cali("-A POSTROUTING -j cali-POSTROUTING")
    yield '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'
    yield ":cali-fip-dnat"
    yield ":cali-fip-snat"
    yield ":cali-nat-outgoing"
    yield ":KUBE-KUBELET-CANARY"
    yield ":KUBE-PROXY-CANARY"
    yield _cali("-A cali-PREROUTING -j cali-fip-dnat")
    yield _cali("-A cali-OUTPUT -j cali-fip-dnat")
    yield _cali("-A cali-POSTROUTING -j cali-fip-snat")
    yield _cali("-A cali-POSTROUTING -j cali-nat-outgoing")
    yield f"-A KUBE-MARK-MASQ -j MARK --set-xmark {_MASQ}"
    yield f"-A KUBE-POSTROUTING -m mark ! --mark {_MASQ} -j RETURN"
    yield "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0"
    yield (
        '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" '
        "-j MASQUERADE --random-fully"
    )
    yield ":KUBE-NODEPORTS"
    for service in _services(plan, family):
        yield from _service(plan, family, service)
    yield (
        '-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this '
        'chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS'
    )


def _service(plan: LabPlan, family: Family, service: _Service) -> Iterator[str]:
    length = service.address.max_prefixlen
    chain = _named("KUBE-SVC-", service.name, "tcp")
    portal = (
        f'-d {service.address}/{length} -p tcp -m comment --comment "{service.name} cluster IP" '
        f"-m tcp --dport {service.port}"
    )
    yield f"-A KUBE-SERVICES {portal} -j {chain}"
    yield f"-A {chain} ! -s {plan.network(family)} {portal} -j KUBE-MARK-MASQ"
    count = len(service.endpoints)
    for number, (endpoint, source) in enumerate(zip(service.endpoints, service.sources, strict=True)):
        leaf = _named("KUBE-SEP-", service.name, "tcp", endpoint)
        comment = f'-m comment --comment "{service.name} -> {endpoint}"'
        chance = "" if number == count - 1 else f" -m statistic --mode random --probability {1 / (count - number):.11f}"
        yield f"-A {chain} {comment}{chance} -j {leaf}"
        yield f'-A {leaf} -s {source}/{length} -m comment --comment "{service.name}" -j KUBE-MARK-MASQ'
        yield f'-A {leaf} -p tcp -m comment --comment "{service.name}" -m tcp -j DNAT --to-destination {endpoint}'
    if service.node_port:
        outside = _named("KUBE-EXT-", service.name, "tcp")
        yield (
            f'-A KUBE-NODEPORTS -p tcp -m comment --comment "{service.name}" '
            f"-m tcp --dport {service.node_port} -j {outside}"
        )
        yield (
            f'-A {outside} -m comment --comment "masquerade traffic for {service.name} external destinations"'
            " -j KUBE-MARK-MASQ"
        )
        yield f"-A {outside} -j {chain}"


# --- filter ------------------------------------------------------------------------------------------------------


def _filter(plan: LabPlan, family: Family, node: int) -> Iterator[str]:
    new = "-m conntrack --ctstate NEW -m comment --comment"
    for chain in ("KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL", "KUBE-SERVICES"):
        yield f":{chain}"
    yield ":KUBE-KUBELET-CANARY"
    yield ":KUBE-PROXY-CANARY"
    yield _cali("-A INPUT -j cali-INPUT")
    yield f'-A INPUT {new} "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL'
    yield '-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS'
    yield f'-A INPUT {new} "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES'
    yield "-A INPUT -j KUBE-FIREWALL"
    yield _cali("-A FORWARD -j cali-FORWARD")
    yield f'-A FORWARD {new} "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL'
    yield '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD'
    yield f'-A FORWARD {new} "kubernetes service portals" -j KUBE-SERVICES'
    yield f'-A FORWARD {new} "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES'
    if plan.forward_policy == "accept":
        # Felix's filterAllowAction Accept; with Return it leaves the decision to the rules below and the policy
        yield _cali(
            f'-A FORWARD -m comment --comment "Policy explicitly accepted packet." -m mark --mark {_ACCEPTED} -j ACCEPT'
        )
    yield _cali(f"-A FORWARD -j MARK --set-xmark {_ACCEPTED}")
    yield _cali("-A OUTPUT -j cali-OUTPUT")
    yield f'-A OUTPUT {new} "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL'
    yield f'-A OUTPUT {new} "kubernetes service portals" -j KUBE-SERVICES'
    yield "-A OUTPUT -j KUBE-FIREWALL"
    if family is Family.IPV4:
        yield (
            '-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet '
            'connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP'
        )
    else:
        yield ":KUBE-FIREWALL"
    yield "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP"
    yield f'-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark {_MASQ} -j ACCEPT'
    yield (
        '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" '
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    )
    yield from _felix(plan, node)


def _felix(plan: LabPlan, node: int) -> Iterator[str]:
    for chain in ("cali-INPUT", "cali-OUTPUT", "cali-cidr-block", "cali-from-hep-forward", "cali-to-hep-forward"):
        yield f":{chain}"
    yield _cali("-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000")
    yield _cali("-A cali-FORWARD -m mark --mark 0x0/0x10000 -j cali-from-hep-forward")
    yield _cali("-A cali-FORWARD -i cali+ -j cali-from-wl-dispatch")
    yield _cali("-A cali-FORWARD -o cali+ -j cali-to-wl-dispatch")
    yield _cali("-A cali-FORWARD -j cali-to-hep-forward")
    yield _cali("-A cali-FORWARD -j cali-cidr-block")
    for number in range(plan.pods_per_node):
        name = plan.pod_interface(node, number)
        yield _cali(f"-A cali-from-wl-dispatch -i {name} -g cali-fw-{name}")
        yield _cali(f"-A cali-to-wl-dispatch -o {name} -g cali-tw-{name}")
        for direction in ("fw", "tw"):
            chain = f"cali-{direction}-{name}"
            yield _cali(f"-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
            yield _cali(f"-A {chain} -m conntrack --ctstate INVALID -j DROP")
            yield _cali(f"-A {chain} -j MARK --set-xmark 0x0/0x10000")
            if direction == "fw":
                yield _cali(
                    f'-A {chain} -p udp -m comment --comment "Drop VXLAN encapped packets originating in workloads" '
                    "-m multiport --dports 4789 -j DROP"
                )
            yield _cali(f"-A {chain} -j cali-pri-kns.default")
            yield _cali(
                f'-A {chain} -m comment --comment "Return if profile accepted" -m mark --mark {_ACCEPTED} -j RETURN'
            )
            yield _cali(f'-A {chain} -m comment --comment "Drop if no profiles matched" -j DROP')
    for direction in ("from", "to"):
        yield _cali(f'-A cali-{direction}-wl-dispatch -m comment --comment "Unknown interface" -j DROP')
    yield _cali(
        f'-A cali-pri-kns.default -m comment --comment "Profile kns.default egress" -j MARK --set-xmark {_ACCEPTED}'
    )
    yield _cali(f"-A cali-pri-kns.default -m mark --mark {_ACCEPTED} -j RETURN")
