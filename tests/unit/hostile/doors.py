"""Every way by which foreign bytes come in, with good examples of what is expected there."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, cast

from tests.unit.hostile.mutating import Target
from tests.unit.nftables.rule_samples import RECORDED
from tests.unit.xtables.blobs import Blob, error, extension, standard

from hitless import profiles as plugins
from hitless.errors import HitlessError, InputError
from hitless.evidence import log
from hitless.guard import status
from hitless.kernel import conntrack, netlink
from hitless.kernel.nftables import expressions, interest, wire
from hitless.kernel.nftables.changes import Desync
from hitless.kernel.nftables.prefilter import KnownHeader, RuleIndex
from hitless.kernel.nftables.receiving import Receiver
from hitless.kernel.nftables.replay import Replay
from hitless.kernel.nftables.sets import SetState
from hitless.kernel.nftables.state import ChainState, State, TableState
from hitless.kernel.rtnetlink.reader import RtnetlinkReader, confirmed, unicast
from hitless.kernel.xtables.extensions import decode_match, decode_target
from hitless.kernel.xtables.layout import entry_offsets, same_entries
from hitless.kernel.xtables.tables import decode_table
from hitless.kube import answers, kubeconfig
from hitless.kube.client import Client
from hitless.kube.contexts import Connection, KubeconfigCluster
from hitless.kube.objects import NODES, PODS
from hitless.kube.transport import Answer
from hitless.model import events, reading
from hitless.model.families import Family
from hitless.model.headers import PacketHeader
from hitless.probe import http
from hitless.probe import wire as probe
from hitless.sources import flags, kubernetes, netconf, subnets
from hitless.watch import profiles

OURS = (HitlessError,)
HEADERS = (
    PacketHeader(4, 6, IPv4Address("10.0.0.1").packed, IPv4Address("192.0.2.1").packed, 40000, 443),
    PacketHeader(6, 17, IPv6Address("fd00::1").packed, None),
)


def doors(folder: Path) -> Iterator[Target]:
    """All of them; ``folder`` is for those that read files."""
    yield from _texts(folder)
    yield from _documents(folder)
    yield from _nftables()
    yield from _netlink()
    yield from _xtables()
    yield from _wire()


# --- text


def _file(folder: Path, name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    path = folder / name

    def take(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return take


NETCONF = [
    b'{"Network": "10.42.0.0/16", "EnableIPv4": true, "EnableIPv6": true, "IPv6Network": "2001:cafe:42::/56",'
    b' "SubnetLen": 24, "SubnetMin": "10.42.1.0", "Backend": {"Type": "vxlan", "VNI": 1, "Port": 8472, "MTU": 1450}}',
    b'{"Network":"10.42.0.0/16","Backend":{"Type":"host-gw"}}',
]
SUBNET = [
    b"FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.1.1/24\nFLANNEL_IPV6_NETWORK=2001:cafe:42::/56\n"
    b"FLANNEL_IPV6_SUBNET=2001:cafe:42:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
]
FLAGS = [
    b"--kube-subnet-mgr\0--ip-masq\0--iface=eth0\0--net-config-path=/etc/kube-flannel/net-conf.json\0-v=2",
    b"-healthz-port\00010\0--iptables-resync=5\0--iptables-forward-rules=false\0--network=10.42.0.0/16",
]


def _texts(folder: Path) -> Iterator[Target]:
    yield Target("net-conf.json", NETCONF, _file(folder, "net-conf.json", netconf.read_netconf), OURS)
    yield Target("subnet.env", SUBNET, _file(folder, "subnet.env", subnets.read_subnet_file), OURS)
    environment = {"FLANNELD_IP_MASQ": "true"}
    yield Target(
        "agent's flags",
        FLAGS,
        lambda data: flags.parse_flags(data.decode("utf-8", "replace").split("\0"), environment),
        OURS,
    )
    yield Target("addresses and numbers", [b"10.42.0.7", b"fd42::7/64", b"10.0.0.0/8", b"%65535", b"12"], _read, OURS)
    shipped = [(Path(plugins.__file__).parent / f"{name}.toml").read_bytes() for name in plugins.names()]
    yield Target("watch profile", shipped, lambda data: profiles.parse(data.decode("utf-8", "replace"), "p.toml"), OURS)


def _read(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for read in (reading.address, reading.network):
        try:
            found = read(text, where="here")
        except InputError:
            continue
        assert set(str(found)) <= set("0123456789abcdef.:/"), f"{text!r} became {found}"
    reading.whole_of(text)
    reading.number(text)


# --- documents


KUBECONFIG = [
    b"apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster:\n    server: http://192.0.2.1:8080\n"
    b"users:\n- name: u\n  user:\n    token: t\ncontexts:\n- name: c\n  context:\n    cluster: k\n    user: u\n",
    json.dumps(
        {
            "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": "http://[2001:db8::1]:80"}}],
            "users": [{"name": "u", "user": {"tokenFile": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        }
    ).encode(),
]
_NODE: dict[str, Any] = {
    "kind": "Node",
    "metadata": {
        "name": "n",
        "resourceVersion": "7",
        "annotations": {"flannel.alpha.coreos.com/backend-type": "vxlan"},
    },
    "spec": {"podCIDR": "10.42.1.0/24", "podCIDRs": ["10.42.1.0/24", "2001:cafe:42:1::/64"]},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.2"}], "conditions": []},
}
_PODS: dict[str, Any] = {
    "kind": "PodList",
    "metadata": {"resourceVersion": "9", "continue": "x"},
    "items": [
        {
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "b"}},
            "spec": {"nodeName": "n", "hostNetwork": True, "containers": [{"name": "c", "image": "i"}]},
            "status": {
                "phase": "Running",
                "podIP": "10.42.1.7",
                "containerStatuses": [{"name": "c", "restartCount": 1}],
            },
        }
    ],
}
EVENTS = [
    events.encode(each) + b"\n"
    for each in (
        events.Header(t=1, tool="watch", version="1", pid=2, config={"a": [1]}),
        events.Gap(t=9, family="ipv4", network="10.42.0.0/16", begin=1, end=9, reason="r"),
        events.RuleState(t=9, family="ipv6", network="fd42::/56", state="carried", reason="", generation=4),
        events.Heartbeat(t=9, tool="watch", interval_ns=5, max_lag_ns=6, cpu_ns=7, detail=""),
        events.Summary(t=9, tool="watch", totals={"gaps": 1}),
        events.Note(t=9, level="info", text="x"),
    )
]
STATE = json.dumps(
    {"schema": 1, "pid": 0, "mode": "guard", "families": {"ipv4": {"state": "carrying", "why": "", "networks": ["x"]}}}
).encode()


def _documents(folder: Path) -> Iterator[Target]:
    node = json.dumps(_NODE).encode()
    pods = json.dumps(_PODS).encode()
    yield Target("kubeconfig (tools)", KUBECONFIG, _file(folder, "tools", lambda path: kubeconfig.merged([path])), OURS)
    yield Target("kubeconfig (agent)", KUBECONFIG, _file(folder, "agent", _agent_kubeconfig), OURS)
    yield Target("node object (agent)", [node], _node_answer, OURS)
    yield Target("object of the API", [node], lambda data: answers.one(data, NODES), (ValueError,))
    yield Target("list of the API", [pods], lambda data: answers.page(data, PODS), (ValueError,))
    yield Target("line of a watch", [b'{"type":"ADDED","object":' + node + b"}"], _watched, (ValueError,))
    yield Target("event line", EVENTS, events.decode, (ValueError,))
    yield Target("event log", [b"".join(EVENTS)], lambda data: log.parse(data.splitlines(True), where="log"), OURS)
    yield Target("guard's state file", [STATE], _file(folder, "state.json", status._written), ())


def _agent_kubeconfig(path: Path) -> object:
    environment = {"NODE_NAME": "n"}
    options = flags.parse_flags(["--kube-subnet-mgr", f"--kubeconfig-file={path}"], environment)
    return kubernetes.NodeSource.from_options(options)


class _Answering(Client):
    """What the agent makes of a server's answer, without the server."""

    told = b""

    def _answer(self, *_: object, **__: object) -> Answer:
        return Answer(200, self.told)


def _node_answer(data: bytes) -> object:
    client = _Answering(Connection("a test", None, "", KubeconfigCluster("http://192.0.2.1"), ""), {})
    client.told = data
    return kubernetes.NodeSource("n", client).subnets()


def _watched(data: bytes) -> None:
    answers.one(answers.read(data, answers.WatchEvent).object, NODES)


# --- nf_tables


def _samples() -> Iterator[tuple[bytes, list[tuple[bytes, list[bytes]]]]]:
    for found in json.loads(RECORDED.read_text())["rules"].values():
        sets = [(bytes.fromhex(head), [bytes.fromhex(each) for each in lists]) for head, lists in found["sets"]]
        yield bytes.fromhex(found["rule"]), sets


def _nftables() -> Iterator[Target]:
    samples = list(_samples())
    rules = [rule for rule, _ in samples]
    known: dict[str, SetState] = {}
    lists: list[bytes] = []
    heads: list[bytes] = []
    for _, sets in samples:
        for head, listed in sets:
            state = SetState.read(netlink.attributes(head, 4))
            for each in listed:
                state.apply(each)
            known[state.name] = state
            lists += listed
            heads.append(head)

    def rule(data: bytes) -> None:
        for family in ("ip", "ip6", "inet"):
            expressions.decode(data, family, known.get)
        interest.references(data)
        for header in HEADERS:
            RuleIndex([data]).candidates(KnownHeader(header))

    yield Target("nft rule", rules, rule, ())

    def elements(data: bytes) -> None:
        for flags_of_set in (0, wire.SET_INTERVAL, wire.SET_INTERVAL | wire.SET_CONCAT, wire.SET_MAP):
            found = SetState("s", flags_of_set, 0, 4)
            try:
                found.apply(data)
            finally:
                found.intervals()
                found.intervals_containing(((slice(0, 4), b"\x0a\0\0\1"),))
                if (members := found.members()) is not None:
                    members.covers(IPv4Address("10.0.0.1"))
                    members.covers(IPv6Address("::1"))

    yield Target("nft elements", lists, elements, OURS)
    yield Target("nft events", [_datagram(rules, heads)], _Events().take, OURS)


def _datagram(rules: list[bytes], heads: list[bytes]) -> bytes:
    """A transaction, with messages of several kinds."""
    base = wire.SUBSYSTEM << 8
    parts = [netlink.message(base | wire.NEWSET, 0, 0, head) for head in heads[:3]]
    parts += [netlink.message(base | wire.NEWRULE, netlink.CREATE | netlink.APPEND, 0, each) for each in rules[:4]]
    chain = (
        netlink.text(wire.CHAIN_TABLE, "t") + netlink.be64(wire.CHAIN_HANDLE, 9) + netlink.text(wire.CHAIN_NAME, "c")
    )
    table = netlink.text(wire.TABLE_NAME, "t")
    for kind, payload in (
        (wire.NEWTABLE, table),
        (wire.NEWCHAIN, chain),
        (wire.DELCHAIN, chain),
        (wire.DELTABLE, table),
    ):
        parts.append(netlink.message(base | kind, 0, 0, netlink.nfgenmsg(2) + payload))
    return b"".join(parts)


class _Events:
    """What the mirror does with datagrams: sift, cut into messages, apply; but for the threads."""

    def __init__(self) -> None:
        self._receiver = cast(Any, object.__new__(Receiver))
        self._receiver.skipped = {interest.identity((2, "t"), interest.ObjectRef(False, "c"))}
        self._receiver._left_out = {}

    def take(self, data: bytes) -> None:
        table = TableState(2, "t", chains={"f": ChainState("f", 1), "SAMPLE": ChainState("SAMPLE", 2)}, top=2)
        replay = Replay(State(1, {(2, "t"): table}), (2, 10, 1), None, interest.Interest(frozenset({"forward"})))
        last = netlink.Message(wire.SUBSYSTEM << 8 | wire.NEWGEN, 0, 0, 0, netlink.nfgenmsg(0) + netlink.be32(1, 2))
        sifted = self._receiver._sift(data)
        left_out, self._receiver._left_out = self._receiver._left_out, {}
        try:
            replay.commit(netlink.messages(sifted), last, left_out)
        except Desync:
            return
        for one in replay.state.ruleset().tables:
            for chain in one.chains.values():
                len(chain.rules)


# --- rtnetlink, conntrack


class _Answered:
    """A socket whose dumps answer with the messages of one datagram."""

    data = b""

    def request(self, *_: object, **__: object) -> list[netlink.Message]:
        return list(netlink.messages(self.data))

    def collect(
        self, _kind: int, _payload: bytes, decode: Callable[[netlink.Message], object], **_: object
    ) -> list[object]:
        return [value for one in self.request() if (value := decode(one)) is not None]


class _NoChanges:
    """Nothing changes meanwhile."""

    def begin(self, group: int) -> None:
        pass

    def end(self, group: int, matters: object) -> bool:
        return False


def _netlink() -> Iterator[Target]:
    def link(kind: int) -> bytes:
        info = netlink.nested(18, netlink.text(1, "veth"))
        body = struct.pack("=BxHiII", 0, 1, 3, 0x10043, 0) + netlink.text(3, "eth0") + netlink.u32(10, 2) + info
        return netlink.message(kind, 0, 0, body)

    def address(family: int, raw: bytes) -> bytes:
        return netlink.message(20, 0, 0, struct.pack("=BBBBI", family, 24, 0, 0, 3) + netlink.attribute(1, raw))

    def route(family: int, raw: bytes) -> bytes:
        body = struct.pack("=BBBBBBBBI", family, 8 * len(raw), 0, 0, 254, 3, 0, 1, 0)
        body += netlink.attribute(1, raw) + netlink.u32(4, 3) + netlink.u32(15, 254) + netlink.u32(6, 100)
        return netlink.message(24, 0, 0, body)

    def neighbour(family: int, raw: bytes) -> bytes:
        body = struct.pack("=BxxxiHBB", family, 3, 2, 0, 1) + netlink.attribute(1, raw)
        return netlink.message(28, 0, 0, body)

    four, six = IPv4Address("10.42.0.1").packed, IPv6Address("fd42::1").packed
    reader = cast(Any, object.__new__(RtnetlinkReader))
    reader._socket = answered = _Answered()
    reader._changes = _NoChanges()

    def take(data: bytes) -> None:
        answered.data = data
        for ask in (
            reader.devices,
            *(lambda f=family: reader.addresses({3: "eth0"}, f) for family in Family),
            *(lambda f=family: reader.routes({3: "eth0"}, f, unicast) for family in Family),
            *(lambda f=family: reader.neighbours({3: "eth0"}, f, confirmed) for family in Family),
            lambda: reader.forwarding({3: "eth0"}, 3, confirmed),
            lambda: reader.lookup({3: "eth0"}, IPv4Address("192.0.2.1")),
        ):
            try:
                ask()
            except HitlessError:
                continue

    seeds = [link(16), address(2, four), address(10, six), route(2, four), route(10, six), neighbour(2, four)]
    yield Target("rtnetlink", [*seeds, b"".join(seeds)], take, OURS)

    def tuples(raw: bytes, other: bytes, first: int) -> bytes:
        ip = netlink.nested(1, netlink.attribute(first, raw), netlink.attribute(first + 1, other))
        ports = netlink.nested(2, netlink.attribute(1, b"\6"), netlink.be16(2, 40000), netlink.be16(3, 443))
        return ip + ports

    def entry(raw: bytes, other: bytes, first: int) -> bytes:
        both = netlink.nested(1, tuples(raw, other, first)), netlink.nested(2, tuples(other, raw, first))
        return netlink.nfgenmsg(2) + b"".join((*both, netlink.be32(3, 0x18E), netlink.be32(8, 1), netlink.be32(12, 77)))

    flows = [entry(four, IPv4Address("192.0.2.1").packed, 1), entry(six, IPv6Address("2001:db8::1").packed, 3)]
    yield Target("conntrack", flows, lambda data: conntrack._entry(data, 0), OURS)


# --- xtables


def _xtables() -> Iterator[Target]:
    names = [
        ("conntrack", 3),
        ("multiport", 1),
        ("tcp", 0),
        ("comment", 0),
        ("set", 4),
        ("iprange", 1),
        ("addrtype", 1),
    ]
    targets = [("MASQUERADE", 0), ("SNAT", 2), ("DNAT", 2), ("MARK", 2), ("", 0), ("REJECT", 0), ("CT", 2)]

    def blob(data: bytes) -> None:
        for family in Family:
            for name, revision in names:
                decode_match(name, revision, data, family)
            for name, revision in targets:
                decode_target(name, revision, data, family)

    yield Target("xtables extension", [bytes(160), bytes(range(200)), standard(-2)[32:]], blob, ())
    for family in Family:
        yield _table(family)


def _table(family: Family) -> Target:
    made = Blob(family)
    made.built_in("PREROUTING", standard(-5))
    made.built_in("INPUT")
    made.built_in("OUTPUT")
    made.built_in("POSTROUTING", extension("MASQUERADE", 0, bytes(24)), standard(0))
    made.user("A", standard(-5), error("x"))
    info, entries = made.finish()
    whole = struct.pack("=I", len(entries)) + entries

    def take(data: bytes) -> None:
        body = data[4:]
        table = decode_table(family, "nat", replace(info, size=len(body)), body)
        for name in list(table.chains):
            len(table.chains[name].rules)
            for header in HEADERS:
                table.rules_for(name, header)
                table.specific_rules(name, header)
            table.calls(name)
        same_entries(family, entry_offsets(family, body), body, body[::-1])

    return Target(f"xtables table {family.value}", [whole], take, OURS)


# --- the far end and the prober


def _wire() -> Iterator[Target]:
    token = b"0123456789abcdef"
    asked = probe.udp_request(token, 3)
    told = probe.udp_answer("10.42.0.7", 40000, asked) or b""
    head = probe.http_answer("10.42.0.7", 40000)
    banner = probe.banner("fd42::7", 40000)
    yield Target("far end: datagram", [asked], lambda data: probe.udp_answer("10.42.0.7", 40000, data), ())
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield Target("far end: HTTP", [request, b"POST /x HTTP/1.0\r\n\r\n"], probe.is_http_request, ())

    def answer(data: bytes) -> None:
        probe.read_udp_answer(data, token)
        probe.read_banner(data)
        probe.http_seen(data)
        http.read_head(data)

    yield Target("prober: answers", [told, head, banner, b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n"], answer, ())
