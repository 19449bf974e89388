"""Only our own lines reach iptables-restore and nft, for all inputs."""

from __future__ import annotations

import json
from ipaddress import IPv6Address, IPv6Network, ip_network
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tests.contract.start_states import snapshot

from hitless.desired import desired_state
from hitless.errors import HitlessError, KernelError
from hitless.kernel import iptables, rule_text
from hitless.model.families import Backend, Family
from hitless.model.rules import Comment, Jump, Mark, Rule, Source
from hitless.model.state import Holding, NodeState, Place, Purpose
from hitless.plan import PlannedTransaction, cleanup, iptables_rule, nft_rule, plan
from hitless.sources import FamilyNetworks, Options, SourceSnapshot, parse_flags, parse_netconf, snapshot_from
from hitless.sources.subnets import read_subnet_file

FAMILIES = (Family.IPV4, Family.IPV6)
EVIL = st.sampled_from(
    [
        "fd42::%1 -j RETURN\nCOMMIT\n*filter\n-I FORWARD -j ACCEPT\nCOMMIT\n*nat\n#/48",
        "fd42::%1/48",
        "fd42::/48\nCOMMIT",
        "10.42.0.0/16 -j ACCEPT",
        "10.42.0.0/16",
        "fd42::/48",
        "10.42.1.0/24",
        "fd42:0:0:1::/64",
        "::/0",
        "10.42.1.1/24",
        "fd42:0:0:1::%eth0/64",
        "10.42.0.0/16;flush ruleset",
        '"',
        "$(reboot)/16",
        "10.42.0.0/²",
        "",
    ]
) | st.text(max_size=30)


def texts(one: SourceSnapshot) -> list[PlannedTransaction]:
    found: list[PlannedTransaction] = []
    for backend in Backend:
        desired = desired_state(one, backend)
        found += plan(desired, NodeState()).transactions
        found += cleanup(desired).transactions
    return found


def test_every_text_of_ours_passes() -> None:
    for transaction in texts(snapshot(*FAMILIES)):
        rule_text.check(transaction.program, transaction.text)


@settings(deadline=None)
@given(EVIL, EVIL, st.lists(EVIL, max_size=3), st.booleans())
@example("10.42.0.0/16", "fd42::%1 -j RETURN\nCOMMIT\n*nat\n#/48", ["10.42.1.0/24,fd42:0:0:1::/64"], True)
def test_from_net_conf_and_flags_to_the_text(ipv4: str, ipv6: str, subnets: list[str], dual: bool) -> None:
    """Either one of our errors, or texts that contain only networks."""
    try:
        conf = parse_netconf(json.dumps({"Network": ipv4, "IPv6Network": ipv6, "EnableIPv6": dual}))
        given_subnets = [word for text in subnets for word in (f"--node-subnet={text}",)]
        options: Options = parse_flags(["--ip-masq", *given_subnets], {})
        made = snapshot_from(
            conf, options.node_subnets, masquerade=True, random_fully=True, forward=True, origin="a test"
        )
        found = texts(made)
    except HitlessError:
        return
    for transaction in found:
        rule_text.check(transaction.program, transaction.text)
        assert transaction.text.count("\n*") == 0 and transaction.text.count("COMMIT") <= 1


@settings(deadline=None)
@given(EVIL, EVIL, EVIL)
def test_from_subnet_env_to_the_text(
    tmp_path_factory: pytest.TempPathFactory, network: str, subnet: str, mtu: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "subnet.env"
    path.write_bytes(
        f"FLANNEL_NETWORK={network}\nFLANNEL_SUBNET={subnet}\nFLANNEL_MTU={mtu}\n".encode("utf-8", "replace")
    )
    try:
        read = read_subnet_file(path)
        assert read is not None
        made = snapshot_from(
            parse_netconf('{"Network": "10.42.0.0/16"}'),
            read.subnets,
            masquerade=True,
            random_fully=True,
            forward=True,
            origin="x",
        )
    except HitlessError:
        return
    for transaction in texts(made):
        rule_text.check(transaction.program, transaction.text)


def test_a_typed_value_that_carries_more_than_a_number_brings_none_of_it_into_a_rule() -> None:
    sneaky = IPv6Network((IPv6Address("fd42::"), 48))
    sneaky.network_address = IPv6Address("fd42::%1 -j RETURN\nCOMMIT\n#")
    assert "COMMIT" in str(sneaky)
    assert iptables_rule(Rule((Source(sneaky),))) == "-s fd42::/48"
    assert nft_rule(Rule((Source(sneaky),)), Family.IPV6) == "ip6 saddr fd42::/48"
    one = SourceSnapshot({Family.IPV6: FamilyNetworks(sneaky, ip_network("fd42:0:0:1::/64"))}, masquerade=True)
    for transaction in texts(one):
        rule_text.check(transaction.program, transaction.text)


NAMES = st.text(max_size=40) | st.sampled_from(
    ["X\nCOMMIT\n*filter\n-F FORWARD", "A B", '"', "-j", "!", "KUBE-MARK-MASQ", "ü"]
)


@settings(deadline=None)
@given(NAMES, NAMES, st.integers(0, 2**32 - 1))
@example("X\nCOMMIT\n*filter\n-F FORWARD\nCOMMIT\n*nat", "flanneld masq", 1)
def test_names_and_comments_of_other_peoples_rules_never_break_a_line(chain: str, comment: str, mark: int) -> None:
    """A rule that jumps to our chain, or has our comment, is ours to delete, with all that is in it."""
    for purpose in Purpose:
        place = Place(Backend.NFT, Family.IPV4, purpose)
        names = place.names
        entry = (
            Rule((Comment(names.comment), Mark(mark, mark), Jump(chain))),
            Rule((Comment(comment), Jump(names.chain))),
        )
        held = Holding(entry, (Rule((Comment(names.comment), Jump(chain))),))
        observed = NodeState({place: held})
        for made in (cleanup(observed), plan(desired_state(snapshot(Family.IPV4), Backend.NFT), observed)):
            for transaction in made.transactions:
                rule_text.check(transaction.program, transaction.text)


CUTS = st.tuples(
    st.integers(0, 400),
    st.integers(0, 12),
    st.text(max_size=12)
    | st.sampled_from(
        [
            "\n",
            "\0",
            "\r",
            '"',
            "\\",
            "\n-F FORWARD",
            "\nCOMMIT\n*filter\n",
            ";",
            "{",
            " -j ACCEPT",
            "\u2028",
            "\x1b[2J",
            "`",
            " ",
        ]
    ),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(st.integers(0, 100), CUTS)
def test_a_text_that_was_tampered_with_is_refused_or_still_one_of_ours(which: int, cut: tuple[int, int, str]) -> None:
    """Text that is accepted consists of lines of the grammar, for our chains, in printable ASCII."""
    ours = texts(snapshot(*FAMILIES))
    one = ours[which % len(ours)]
    at, length, put = cut
    text = one.text[: at % (len(one.text) + 1)] + put + one.text[at % (len(one.text) + 1) + length :]
    assume(text != one.text)
    try:
        rule_text.check(one.program, text)
    except KernelError as error:
        assert "nothing was written" in str(error) and str(error).isprintable() and len(str(error)) < 300
        return
    assert text.isascii() and all(line.isprintable() for line in text.split("\n"))
    if one.program == "nft":
        assert all(" flannel-ipv" in line for line in text.splitlines())
    else:
        assert (
            text.startswith(f"*{one.table}\n")
            and text.endswith("\nCOMMIT\n")
            and text.splitlines().count("COMMIT") == 1
        )
        assert all("FLANNEL-" in line or "POSTROUTING" in line or "FORWARD" in line for line in text.splitlines()[1:-1])


WRONG = [
    ("iptables-nft-restore", "*nat\n-F POSTROUTING\nCOMMIT\n"),
    ("iptables-nft-restore", "*nat\n-X\nCOMMIT\n"),
    ("iptables-nft-restore", "*raw\nCOMMIT\n"),
    ("iptables-nft-restore", "*nat\n:POSTROUTING DROP [0:0]\nCOMMIT\n"),
    ("iptables-nft-restore", "*nat\n-A FLANNEL-POSTRTG -s fd42::/48 -j RETURN\nCOMMIT\n"),
    ("ip6tables-nft-restore", "*nat\n-A FLANNEL-POSTRTG -s fd42::%1/48 -j RETURN\nCOMMIT\n"),
    ("iptables-nft-restore", "*nat\n-A FLANNEL-POSTRTG -s 10.42.0.1/16 -j RETURN\nCOMMIT\n"),
    ("iptables-nft-restore", '*nat\n-A FLANNEL-POSTRTG -m comment --comment "a -j RETURN\nCOMMIT\n'),
    ("iptables-nft-restore", '*nat\n-A FLANNEL-POSTRTG -m comment --comment "a" b" -j RETURN\nCOMMIT\n'),
    ("iptables-nft-restore", "*nat\n-A FLANNEL-POSTRTG -p tcp -j RETURN\nCOMMIT\n"),
    ("iptables-nft-restore", "*nat\n-A FLANNEL-POSTRTG -j RETURN"),
    ("iptables-nft-restore", "*nat\n-A FLANNEL-POSTRTG -j RETURN\nCOMMIT\nCOMMIT\n"),
    ("iptables-nft-restore", "*nat\nCOMMIT\n*filter\nCOMMIT\n"),
    ("iptables-nft-restore", ""),
    ("nft", "flush ruleset\n"),
    ("nft", "add rule ip flannel-ipv4 postrtg masquerade; flush ruleset\n"),
    ("nft", "add rule ip nat POSTROUTING masquerade\n"),
    ("nft", "add chain ip flannel-ipv4 postrtg { type nat hook postrouting priority 0 ; policy drop ; }\n"),
    ("nft", "delete rule ip flannel-ipv4 postrtg handle None\n"),
    ("nft", 'include "/etc/shadow"\n'),
]


@pytest.mark.parametrize(("program", "text"), WRONG)
def test_what_no_printer_of_ours_makes_is_refused_and_no_program_is_started(
    program: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "started"
    for name in ("nft", "iptables-nft-restore", "ip6tables-nft-restore"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KernelError, match="nothing was written"):
        iptables.batch(text) if program == "nft" else iptables.restore(program, text)
    assert not mark.exists()
