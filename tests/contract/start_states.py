"""Every state in which an agent can find a node, as texts that the real programs (and the fake kernel) execute.

``STATES`` maps a name to a function of backend and family that gives the texts to write, in order, and says in which
backend each is written. ``keeps`` names marks of foreign rules that must be there afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from hitless.desired import desired_state
from hitless.model.families import Backend, Family
from hitless.model.packets import TCP
from hitless.model.rules import DestinationPort, Protocol, Reject, Rule
from hitless.model.state import Holding, NodeState, Place, Purpose
from hitless.plan import bridge, plan
from hitless.sources import FamilyNetworks, SourceSnapshot

SAMPLES = Path(__file__).parents[1] / "samples" / "flannel"

NETWORKS = {
    Family.IPV4: FamilyNetworks(ip_network("10.42.0.0/16"), ip_network("10.42.1.0/24")),
    Family.IPV6: FamilyNetworks(ip_network("fd42::/48"), ip_network("fd42:0:0:1::/64")),
}
OTHER_NETWORKS = {
    Family.IPV4: FamilyNetworks(ip_network("10.244.0.0/16"), ip_network("10.244.7.0/24")),
    Family.IPV6: FamilyNetworks(ip_network("fd24::/48"), ip_network("fd24:0:0:7::/64")),
}
OTHER_SUBNET = {
    Family.IPV4: FamilyNetworks(ip_network("10.42.0.0/16"), ip_network("10.42.9.0/24")),
    Family.IPV6: FamilyNetworks(ip_network("fd42::/48"), ip_network("fd42:0:0:9::/64")),
}
IPTABLES = (Backend.NFT, Backend.LEGACY)

Texts = list[tuple[Backend, str]]


@dataclass(frozen=True)
class StartState:
    """``carries``: the egress path stands in it already, and must never be interrupted."""

    name: str
    texts: Callable[[Backend, Family], Texts]
    carries: bool
    backends: tuple[Backend, ...] = tuple(Backend)
    keeps: int = 0
    note: str = ""


def snapshot(*families: Family, random_fully: bool = True) -> SourceSnapshot:
    """The node's configuration in all these tests."""
    return SourceSnapshot({family: NETWORKS[family] for family in families}, True, random_fully, True, "test")


def our_text(
    backend: Backend, family: Family, networks: FamilyNetworks | None = None, *, random_fully: bool = True
) -> list[str]:
    """What the agent itself writes on an empty node, one text for each transaction."""
    wanted = SourceSnapshot({family: networks or NETWORKS[family]}, True, random_fully, True, "test")
    return [one.text for one in plan(desired_state(wanted, backend), NodeState()).transactions]


def _ours(backend: Backend, family: Family) -> Texts:
    return [(backend, text) for text in our_text(backend, family)]


def _sample(name: str) -> Callable[[Backend, Family], Texts]:
    def texts(backend: Backend, family: Family) -> Texts:
        networks = NETWORKS[family]
        text = (SAMPLES / name).read_text()
        for word, value in (
            ("NETWORK", networks.network),
            ("SUBNET", networks.subnet),
            ("MULTICAST", family.multicast),
            ("FAMILY", family.nft),
            ("TABLE", f"flannel-{family.value}"),
        ):
            text = text.replace(word, str(value))
        return [(backend, text)]

    return texts


def _edited(edit: Callable[[str, Family], str]) -> Callable[[Backend, Family], Texts]:
    """Our own texts, each changed."""
    return lambda backend, family: [(backend, edit(text, family)) for text in our_text(backend, family)]


def _then(*more: str) -> Callable[[Backend, Family], Texts]:
    """Our own rules, and then iptables lines in the nat table. NETWORK and SUBNET are filled in."""

    def texts(backend: Backend, family: Family) -> Texts:
        lines = "\n".join(more)
        for word, value in (("NETWORK", NETWORKS[family].network), ("SUBNET", NETWORKS[family].subnet)):
            lines = lines.replace(word, str(value))
        outside = "192.168.7.0/24" if family is Family.IPV4 else "2001:db8:77::/48"
        return [*_ours(backend, family), (backend, f"*nat\n{lines.replace('OUTSIDE', outside)}\nCOMMIT\n")]

    return texts


def _then_native(line: str, networks: dict[Family, FamilyNetworks] | None = None) -> Callable[[Backend, Family], Texts]:
    """Our own native rules (for some networks), and then somebody's in front of the masquerade rules."""

    def texts(backend: Backend, family: Family) -> Texts:
        words = line.replace("NETWORK", str(NETWORKS[family].network)).replace("SUBNET", str(NETWORKS[family].subnet))
        outside = "192.168.7.0/24" if family is Family.IPV4 else "2001:db8:77::/48"
        words = words.replace("OUTSIDE", outside).replace("FAMILY", family.nft)
        added = f"insert rule {family.nft} flannel-{family.value} postrtg {words}\n"
        return [
            *((backend, text) for text in our_text(backend, family, (networks or NETWORKS)[family])),
            (backend, added),
        ]

    return texts


def _lines(keep: Callable[[list[str]], list[str]]) -> Callable[[str, Family], str]:
    """Rule lines of our chain in each text, rearranged."""

    def edit(text: str, family: Family) -> str:
        lines = text.splitlines()
        own = [line for line in lines if line.startswith(("-A FLANNEL", "add rule"))]
        rest = [line for line in lines if line not in own]
        at = next((n for n, line in enumerate(rest) if line.startswith(("-A POST", "-A FORW", "COMMIT"))), len(rest))
        return "\n".join([*rest[:at], *keep(own), *rest[at:]]) + "\n"

    return edit


def _grouped(keep: Callable[[list[str]], list[str]]) -> Callable[[list[str]], list[str]]:
    """Native texts hold two chains: rearrange each for itself."""

    def grouped(lines: list[str]) -> list[str]:
        chains: dict[str, list[str]] = {}
        for line in lines:
            words = line.split()
            chains.setdefault(words[4] if words[0] == "add" else words[1], []).append(line)
        return [line for group in chains.values() for line in keep(group)]

    return grouped


def _half_nat(backend: Backend, family: Family) -> Texts:
    text = our_text(backend, family)[0]
    return [(backend, "\n".join(line for line in text.splitlines() if not line.startswith("-A POSTROUTING")) + "\n")]


def _elsewhere(backend: Backend, family: Family) -> Texts:
    other = Backend.LEGACY if backend is not Backend.LEGACY else Backend.NFT
    return _ours(other, family)


def _everywhere(backend: Backend, family: Family) -> Texts:
    return [text for each in Backend for text in _ours(each, family)]


def _bridged(backend: Backend, family: Family) -> Texts:
    """What an agent leaves that was killed while somebody reloaded his firewall, with rules of his own in FORWARD."""
    refusing = Holding((Rule((Protocol(TCP), DestinationPort(25, 25), Reject())),))
    place = Place(backend, family, Purpose.FORWARD)
    made = bridge(desired_state(snapshot(family), backend), NodeState({place: refusing}))
    return [(one.backend, one.text) for one in made.transactions]


_FLANNEL = [
    StartState(f"flannel {path.stem}", _sample(path.name), True, IPTABLES) for path in sorted(SAMPLES.glob("*.rules"))
] + [
    StartState(f"flannel {path.stem}", _sample(path.name), True, (Backend.NFTABLES,))
    for path in sorted(SAMPLES.glob("*.nft"))
]
_MASQ = '-m comment --comment "flanneld masq"'

STATES: tuple[StartState, ...] = (
    StartState("nothing there", lambda _backend, _family: [], False),
    StartState("our own", _ours, True),
    *_FLANNEL,
    StartState("half written: chain without jump", _half_nat, False, IPTABLES),
    StartState("half written: nat without filter", lambda b, f: _ours(b, f)[:1], True, IPTABLES),
    StartState("half written: the first three rules", _edited(_lines(_grouped(lambda own: own[:3]))), False),
    StartState("empty chains", _edited(_lines(lambda own: [])), False),
    StartState("duplicates", _edited(_lines(_grouped(lambda own: [line for line in own for _ in range(2)]))), True),
    StartState("another order", _edited(_lines(_grouped(lambda own: own[3:] + own[:3]))), True),
    StartState(
        "a changed subnet", lambda b, f: [(b, text) for text in our_text(b, f, OTHER_SUBNET[f])], True
    ),
    StartState("a changed network", lambda b, f: [(b, text) for text in our_text(b, f, OTHER_NETWORKS[f])], False),
    StartState("random-fully off", lambda b, f: [(b, text) for text in our_text(b, f, random_fully=False)], True),
    StartState(
        "a foreign exemption in front in our chain",
        _then("-I FLANNEL-POSTRTG 1 -s SUBNET -d OUTSIDE -j RETURN"), True, IPTABLES, keeps=1,
    ),
    StartState(
        "a foreign exemption and a missing rule",
        _then("-I FLANNEL-POSTRTG 1 -s SUBNET -d OUTSIDE -j RETURN", "-D FLANNEL-POSTRTG 3"), True, IPTABLES, keeps=1,
    ),
    StartState("a foreign RETURN that hides ours", _then("-I FLANNEL-POSTRTG 1 -j RETURN"), False, IPTABLES, keeps=1),
    StartState("a foreign rule at the end", _then("-A FLANNEL-POSTRTG -d OUTSIDE -j ACCEPT"), True, IPTABLES, keeps=1),
    *(
        StartState(f"natively: {name}", texts, carries, (Backend.NFTABLES,), keeps=1)
        for name, texts, carries in (
            ("an exemption", _then_native("FAMILY saddr SUBNET FAMILY daddr OUTSIDE return"), True),
            ("an exemption for all", _then_native("FAMILY daddr OUTSIDE return"), True),
            (
                "an exemption and a changed subnet",
                _then_native("FAMILY saddr NETWORK FAMILY daddr OUTSIDE return", OTHER_SUBNET), True,
            ),
            ("another mark's return", _then_native("meta mark == 0x8 return"), True),
            ("a return that hides ours", _then_native("return"), False),
            ("an accept that hides ours", _then_native("FAMILY saddr NETWORK accept"), False),
        )
    ),
    StartState("the jump missing", _then(f"-D POSTROUTING {_MASQ} -j FLANNEL-POSTRTG"), False, IPTABLES),
    StartState("the jump doubled", _then(f"-A POSTROUTING {_MASQ} -j FLANNEL-POSTRTG"), True, IPTABLES),
    StartState("the jump behind a RETURN", _then("-I POSTROUTING 1 -j RETURN"), False, IPTABLES, keeps=1),
    StartState("the jump behind an ACCEPT", _then("-I POSTROUTING 1 -s NETWORK -j ACCEPT"), False, IPTABLES, keeps=1),
    StartState("the rules in the other backend", _elsewhere, True),
    StartState("the rules in every backend", _everywhere, True),
    StartState("the bridge of a reload", _bridged, True, IPTABLES),
)  # fmt: skip

CASES = [
    (state, backend, family) for state in STATES for backend in state.backends for family in (Family.IPV4, Family.IPV6)
]


def case_id(case: tuple[StartState, Backend, Family]) -> str:
    """For pytest's ids."""
    state, backend, family = case
    return f"{state.name}-{backend.value}-{family.value}".replace(" ", "_").replace(":", "")
