"""Pods' packets and their answers: each case is tried with real packets, the watch and the guard.

Real packets decide: the observers report "not carried" only where no pod is answered, and count those that are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network

import pytest
from tests.kernel.nftables.nodes import programs
from tests.kernel.observe.ground import PART, PODS, WHOLE, Ground, ground

from hitless.model.families import Backend, Family

pytestmark = pytest.mark.kernel

FLANNEL = """*raw
:PREROUTING ACCEPT [0:0]
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
COMMIT
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s {part} -d {whole} -j RETURN
-A FLANNEL-POSTRTG -s {whole} ! -d {multicast} -j MASQUERADE --random-fully
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:FLANNEL-FWD - [0:0]
-A FORWARD -j FLANNEL-FWD
-A FLANNEL-FWD -s {whole} -j ACCEPT
-A FLANNEL-FWD -d {whole} -j ACCEPT
COMMIT
"""
NATIVE = """
table {ip} flannel-{family} {{
  chain postrtg {{
    type nat hook postrouting priority srcnat;
    {ip} saddr {whole} {ip} daddr != {multicast} masquerade
  }}
}}
table {ip} other {{
  chain raw {{ type filter hook prerouting priority raw; }}
  chain forward {{ type filter hook forward priority filter; policy accept; }}
}}
"""
NOTHING = "flush ruleset"


@dataclass(frozen=True)
class Case:
    """``rules`` go in front (iptables: lines, nft: one text); which pods are then ``answered``; ``words`` of it."""

    name: str
    iptables: tuple[str, ...]
    answered: tuple[bool, bool, bool] = (True, True, True)
    words: str = ""
    nft: str = ""


def kube_router(*pods: int) -> tuple[str, ...]:
    """One chain for each pod that is kept in, chosen by its address, as K3s and k0s have them."""
    lines: list[str] = []
    for number in pods:
        chain = f"KUBE-POD-FW-{number}"
        lines += [f"-N {chain}", f"-A {chain} -m mark ! --mark 0x10000/0x10000 -j REJECT"]
        lines += [f"-I FORWARD 1 -s {{pod{number}}} -j {chain}"]
    return tuple(lines)


CASES = (
    Case("whole", ()),
    Case(
        "one pod is kept in by a policy",
        kube_router(0),
        (False, True, True),
        "1 of 3 pods is kept in by {chain0}",
        "{ip} saddr {pod0} reject",
    ),
    Case(
        "every pod that is there is kept in, and the next one would not be",
        kube_router(0, 1, 2),
        (False, False, False),
        "all 3 pods here; a pod without such a rule would be carried",
        "{ip} saddr {{ {pod0}, {pod1}, {pod2} }} reject",
    ),
    Case(
        "the next pod would not get out",
        ("-I FORWARD 1 -s {part} -j DROP", *(f"-I FORWARD 1 -s {{pod{number}}} -j ACCEPT" for number in range(3))),
        words="a pod that comes next",
    ),
    Case(
        "answers meet the policy",
        ("-P FORWARD DROP", "-D FLANNEL-FWD 2"),
        (False, False, False),
        "answers are dropped by the policy of FORWARD",
    ),
    Case(
        "established flows are dropped",
        ("-I FORWARD 1 -m conntrack --ctstate ESTABLISHED -j DROP",),
        (False, False, False),
        "answers are dropped by",
        "ct state established drop",
    ),
    Case(
        "answers to one pod are dropped",
        ("-I FORWARD 1 -d {pod1} -j DROP",),
        (True, False, True),
        "1 of 3 pods is without answers",
        "{ip} daddr {pod1} drop",
    ),
    Case(
        "answers are hidden from conntrack",
        ("-t raw -I PREROUTING 1 -i eth0 -j CT --notrack",),
        (False, False, False),
        "hides them from conntrack",
    ),
    Case(
        "answers are dropped on their last metre",
        ("-t mangle -I POSTROUTING 1 -s {far} -j DROP",),
        (False, False, False),
        "answers are dropped by POSTROUTING rule 1 (ip{six} mangle)",
    ),
    Case("pods' addresses before NAT is undone", ("-t mangle -I PREROUTING 1 -i eth0 -d {whole} -j DROP",)),
    Case("what is for the node itself", ("-P INPUT DROP",)),
    Case("reverse path filter", ("-t raw -I PREROUTING 1 -m rpfilter --invert -j DROP",)),
    Case(
        "only answers and new flows of pods are let through",
        (
            "-P FORWARD DROP",
            "-F FLANNEL-FWD",
            "-A FLANNEL-FWD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "-A FLANNEL-FWD -s {whole} -m conntrack --ctstate NEW -j ACCEPT",
        ),
    ),
    Case(
        "masquerading pod by pod",
        (
            "-t nat -F FLANNEL-POSTRTG",
            *(f"-t nat -N CNI-{number}" for number in (0, 1)),
            *(f"-t nat -A CNI-{number} -d {{part}} -j ACCEPT" for number in (0, 1)),
            *(f"-t nat -A CNI-{number} ! -d {{multicast}} -j MASQUERADE" for number in (0, 1)),
            *(f"-t nat -A POSTROUTING -s {{pod{number}}} -j CNI-{number}" for number in (0, 1)),
        ),
        (True, True, False),
        "1 of 3 pods is not translated",
    ),
)


def words_of(family: Family) -> dict[str, str]:
    pods = {f"pod{number}": address for number, address in enumerate(PODS[family])}
    return {
        "ip": family.nft,
        "six": "6" if family is Family.IPV6 else "",
        "family": family.value,
        "whole": WHOLE[family],
        "part": PART[family],
        "multicast": str(family.multicast),
        "far": "198.51.100.0/24" if family is Family.IPV4 else "2001:db8:ffff::/48",
        **pods,
    }


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest) -> Iterator[Ground]:
    programs("iptables-nft-restore", "iptables-legacy-restore", "ip", "unshare", "nsenter")
    with ground(request.param) as built:
        for family in Family:  # pods of a bridge are known once the node has exchanged packets with them
            built.node.nft(NATIVE.format(**words_of(family)))
            assert all(built.answered(family, [True] * 3))
            built.node.nft(NOTHING)
        yield built


def asked(ground: Ground, family: Family, case: Case, profile: str, change: Callable[[], None]) -> None:
    """Complete rules, then the case's: what real packets, the watch and the guard report."""
    standing = ground.ruleset()
    change()
    expected = list(case.answered)
    assert ground.answered(family, expected) == expected, "the wire says otherwise than the case"
    told = ground.watched(family, profile, ip_network(WHOLE[family]))
    side = ground.guarded(family, standing)
    chain = "KUBE-POD-FW-0" if profile == "flannel" else "forward"
    words = case.words.format(chain0=chain, **words_of(family))
    assert told.state == ("carried" if any(expected) else "not_carried"), told
    assert (told.pods, told.pods_not_carried, told.pods_unknown) == (3, expected.count(False), 0), told
    assert words in told.reason if not any(expected) else words in told.partly
    assert bool(told.partly) is (bool(words) and any(expected))
    assert bool(side.forward.open or side.egress.open) is not any(expected), (side.forward, side.egress)
    if side.forward.open:
        assert words in side.forward.open.reason
    else:
        assert words in side.partly and bool(side.partly) is bool(words)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize(
    ("made", "backend"),
    [("bridge", Backend.NFT), ("bridge", Backend.LEGACY), ("links", Backend.NFT)],
    indirect=["made"],
    scope="module",
)
@pytest.mark.parametrize("family", list(Family))
def test_with_iptables(made: Ground, family: Family, backend: Backend, case: Case) -> None:
    words = words_of(family)
    program = f"{family.iptables}-{backend.value}"

    def change() -> None:
        for line in case.iptables:
            made.node.run(program, "-w", *line.format(**words).split())

    try:
        made.node.run(f"{program}-restore", stdin=FLANNEL.format(**words))
        asked(made, family, case, "flannel", change)
    finally:
        made.node.run(f"{program}-restore", stdin=EMPTY)


EMPTY = "".join(f"*{table}\nCOMMIT\n" for table in ("raw", "mangle", "nat", "filter"))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.nft or case.name == "whole"], ids=lambda case: case.name
)
@pytest.mark.parametrize("made", ["bridge", "links"], indirect=True, scope="module")
@pytest.mark.parametrize("family", list(Family))
def test_with_nftables(made: Ground, family: Family, case: Case) -> None:
    words = words_of(family)

    def change() -> None:
        if case.nft:
            made.node.nft(f"add rule {words['ip']} other forward {case.nft.format(**words)}")

    try:
        assert made.node.nft(NATIVE.format(**words))
        asked(made, family, case, "flannel-nftables", change)
    finally:
        made.node.nft(NOTHING)
