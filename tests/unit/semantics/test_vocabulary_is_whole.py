"""The tables of docs/semantics.md leave nothing out that the kernel offers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hitless.kernel.xtables.matches import MATCHES
from hitless.kernel.xtables.targets import SILENT, TARGETS
from hitless.semantics.properties import PROPERTIES

TEXT = (Path(__file__).parents[3] / "docs" / "semantics.md").read_text()
WORDS = frozenset(re.findall(r"[A-Za-z0-9_-]+", TEXT[TEXT.index("## The vocabulary") :]))


def named(text: str) -> list[str]:
    return re.findall(r"\S+", text)


# Linux 6.18: net/netfilter/nft_*.c, xt_*.c and net/ipv{4,6}/netfilter; of nft the words of nft(8)
NFT = named(
    """
    meta ct fib rt socket exthdr numgen jhash symhash osf limit quota count log counter last masquerade snat dnat
    redirect reject notrack queue tproxy synproxy dup fwd flow add update delete vmap ip ip6 tcp udp icmp th ether
    """
)
META = named(
    """
    length protocol priority mark iif oif iifname oifname iiftype oiftype skuid skgid rtclassid nfproto l4proto
    pkttype cpu iifgroup oifgroup cgroup random ipsec iifkind oifkind time day hour sdif sdifname
    """
)
CT = named(
    """
    state direction status mark expiration helper l3proto protocol saddr daddr proto-src proto-dst label packets
    bytes avgpkt zone event id
    """
)
MATCH_NAMES = named(
    """
    addrtype ah bpf cgroup cluster comment connbytes connlabel connlimit connmark conntrack cpu dccp devgroup dscp
    dst ecn esp eui64 frag hashlimit hbh helper hl icmp icmp6 ipcomp iprange ipv6header ipvs l2tp length limit mac
    mark mh multiport nfacct osf owner physdev pkttype policy quota rateest realm recent rpfilter rt sctp set
    socket srh state statistic string tcp tcpmss time tos ttl u32 udp
    """
)
TARGET_NAMES = named(
    """
    ACCEPT DROP RETURN AUDIT CHECKSUM CLASSIFY CONNMARK CONNSECMARK CT DNAT DSCP ECN HL HMARK IDLETIMER LED LOG
    MARK MASQUERADE NETMAP NFLOG NFQUEUE RATEEST REDIRECT REJECT SECMARK SET SNAT SYNPROXY TCPMSS TCPOPTSTRIP TEE
    TOS TPROXY TRACE TTL
    """
)


@pytest.mark.parametrize("name", [*NFT, *META, *CT, *MATCH_NAMES, *TARGET_NAMES])
def test_what_the_kernel_offers_is_in_a_table(name: str) -> None:
    assert name in WORDS


def test_every_match_and_target_that_is_decoded_is_in_a_table_and_the_other_way_round() -> None:
    decoded = {name for name, _ in MATCHES}
    assert decoded == set(MATCH_NAMES)
    assert {name for name, _ in TARGETS} | SILENT >= set(TARGET_NAMES) - {"ACCEPT", "DROP", "RETURN"}


def test_no_property_is_known_that_nothing_asks_for() -> None:
    """The names are those that the decoders write."""
    sources = [
        *(Path(__file__).parents[3] / "src/hitless/kernel/nftables").glob("*.py"),
        *(Path(__file__).parents[3] / "src/hitless/kernel/xtables").glob("*.py"),
    ]
    text = "\n".join(path.read_text() for path in sources)
    for name in PROPERTIES:
        head = name.removesuffix(" original").removesuffix(" reply").removesuffix(" both").removesuffix(" present")
        head = head.rsplit(" ", 1)[0] if head.startswith(("counted", "bits of")) else head
        assert f'"{head}' in text or f" {head.split(' ')[0]} " in text, name
