"""Random rule sets out of the whole vocabulary of docs/semantics.md, as text; many of them in one load.

What packets add to sets and lists is looked up by no rule: a packet must not change what is true of the next one.

Each rule set is for one source address: dispatching rules at every hook send its packets to its own chains, so that one
transaction tries ``SETS`` rule sets and one look at the far end answers for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from random import Random

from hitless.model.families import Address, Family

__all__ = ["SETS", "iptables_batch", "nft_batch", "sources"]

SETS = 24
_FIRST = {Family.IPV4: ip_address("10.42.1.10"), Family.IPV6: ip_address("fd42:0:0:1::10")}


def sources(family: Family) -> list[Address]:
    """The pods' addresses, one for each rule set."""
    return [_FIRST[family] + number for number in range(SETS)]


# --- nft: {a|b} is a choice, {!} a negation in half of the cases

_NFT_BOTH_FAMILIES = (
    "meta l4proto {!}{tcp|udp|{ tcp, udp }|{ icmp, ipv6-icmp, sctp }}",
    "{tcp|udp} {dport|sport} {!}{53|443|80|1-1023|{ 53, 80 }|{ 443, 8000-9000 }}",
    "meta l4proto { tcp, udp } th dport {!}{53|443|1-100}",
    "tcp flags & (fin | syn | rst | ack) {==|!=} {syn|ack}",
    "tcp {ackseq|urgptr} {!}0",
    "udp length {>|<} {7|8|100}",
    'iifname {!}{"pod0"|"po*"|"veth7"|{ "pod0", "lan0" }|{ "lan0", "lo" }}',
    'oifname {!}{"up0"|"up*"|"eth0"|{ "up0", "eth0" }}',
    '{iif|oif} {!}{"pod0"|"up0"|"lo"}',
    'iifname . oifname {!}{ "pod0" . "{up0|eth9}", "lan0" . "up0" }',
    "meta mark {==|!=} {0x0|0x1|0x3}",
    "meta mark & 0x{1|2|3|ff} {==|!=} 0x{0|1|2}",
    "meta mark {!}{ 0x0, 0x{1|2} }",
    "ct mark {==|!=} {0x0|0x1}",
    "ct mark & 0x{1|f0} {==|!=} 0x{0|1|10}",
    "ct mark {!}{ 0x{0|1|2}, 0x10 }",
    "ct state {!}{new|established|{ new, related }|{ established, invalid }|untracked}",
    "ct status {|! }{assured|seen-reply|snat|confirmed}",
    "ct direction {!}{original|reply}",
    'ct helper {!}"ftp"',
    "ct label {|! }{1|7}",
    "ct zone {!}{0|1}",
    "ct {original|reply} packets {>|<} {0|1|2}",
    "ct protocol {!}{tcp|udp}",
    "ct reply bytes {>|<} 1",
    "meta protocol {!}{ip|ip6}",
    "meta pkttype {!}{host|broadcast|{ broadcast, multicast }}",
    "meta length {>|<} {27|60|70|2000}",
    "meta skuid {!}0",
    "meta cgroup {!}5",
    "meta ipsec {exists|missing}",
    "rt ipsec {exists|missing}",
    "meta {iifgroup|oifgroup} {!}{0|7}",
    'meta {iifkind|oifkind} {!}"{veth|bridge}"',
    "fib {saddr|daddr} type {!}{local|unicast|multicast|{ local, broadcast }}",
    "fib saddr . iif oif {exists|missing}",
    'fib daddr oifname {!}"{up0|pod0}"',
    "meta l4proto . th dport {!}{ tcp . {443|1-1024}, udp . {53|9-99} }",
)
_NFT_IPV4 = (
    "ip {saddr|daddr} {!}{10.42.0.0/16|10.42.1.0/28|198.51.100.1|198.51.100.0/24|{ 10.42.1.12, 203.0.113.0/24 }}",
    "ip saddr & 0.0.0.3 {==|!=} 0.0.0.{0|1|2}",
    "ip protocol {!}{tcp|udp|icmp}",
    "icmp type {!}{echo-request|echo-reply|{ echo-request, 3 }}",
    "icmp code {!}0",
    "ip {version {!}4|hdrlength {!}5}",
    "ip frag-off & 0x{1fff|2000} {==|!=} 0",
    "ip ttl {<|>} {1|2|64}",
    "ip length {<|>} {20|44|100}",
    "ip option {lsrr|ra} {exists|missing}",
    "ct original ip {saddr|daddr} {!}{10.42.0.0/16|198.51.100.1|10.42.1.0/29}",
    "ct reply ip saddr {!}198.51.100.0/24",
    "meta l4proto tcp ct original proto-{src|dst} {!}{443|1-20000}",
    "ct l3proto {!}ipv4",
    "ip saddr . ip daddr {!}{ 10.42.1.0/28 . 198.51.100.0/24, 10.42.0.0/16 . 203.0.113.9 }",
    "ip saddr . tcp dport {!}{ 10.42.1.0/27 . {80|443|1-1024} }",
    "ip {saddr|daddr} {!}@{plain|wide|timed|filled|counted}",
    "ip saddr . iifname {!}@pairs",
)
_NFT_IPV6 = (
    "ip6 {saddr|daddr} {!}{fd42::/48|fd42:0:0:1::10/124|2001:db8:ffff::1|2001:db8:ffff::/64}",
    "ip6 nexthdr {!}{tcp|udp|ipv6-icmp}",
    "icmpv6 type {!}{echo-request|echo-reply|{ echo-request, nd-router-advert }}",
    "ip6 hoplimit {<|>} {1|2|64}",
    "ip6 length {<|>} {7|30|100}",
    "exthdr {frag|hbh|rt} {exists|missing}",
    "ct original ip6 {saddr|daddr} {!}{fd42::/48|2001:db8:ffff::1}",
    "ip6 saddr . tcp dport {!}{ fd42::/48 . {80|443|1-1024} }",
    "ip6 {saddr|daddr} {!}@{plain|wide|timed|filled|counted}",
)
_NFT_OPEN = (
    "limit rate {over |}1000000/second",
    "numgen inc mod 2 {0|1}",
    "jhash ip{6} saddr mod 2 {0|1}",
    'meta day "{Sunday|Monday}"',
    "ct count {over |}1000",
    "ip{6} dscp {!}{46|0}",
    "meta cpu {0|1}",
    "quota {over |}1000000000 bytes",
    "tcp option {maxseg|sack-permitted} {exists|missing}",
    "tcp window {>|<} 1000",
)
_NFT_CHANGES = (
    "meta mark set {0x1|0x2|meta mark & 0xfffffffe|meta mark ^ 0x3|meta mark & 0xf0 ^ 0x1}",
    "ct mark set {0x1|meta mark|ct mark & 0xf ^ 0x10|meta mark & 0x3 ^ 0x10}",
    "meta mark set {ct mark|ct mark & 0xf|ct mark ^ 0x2}",
    "meta priority set 1:1",
    'log prefix "x"',
    "counter",
    "add @sink { ip{6} {saddr|daddr} }",
    "meta nftrace set 0",
)
_NFT_CHOICES = (
    "meta l4proto vmap { tcp : {drop|accept|return|jump S}, udp : {continue|accept|jump S} }",
    "tcp dport vmap { {80|443} : {drop|accept|return}, 1000-2000 : drop{|, * : jump S} }",
    'iifname vmap { "pod0" : {continue|jump S|accept|return}, "lan0" : drop }',
    "ct state vmap { new : {continue|jump S|accept|drop}, established : accept, invalid : drop }",
    "meta mark vmap { 0x0 : {continue|jump S|return}, 0x1 : {drop|accept} }",
    "numgen inc mod 2 vmap { 0 : {accept|return|jump S}, 1 : {accept|return|jump S} }",
    "meta l4proto . th dport vmap { tcp . 443 : {drop|jump S}, udp . 1-100 : {accept|return} }",
)
_NFT_SETS = """
  set plain {{ type {kind}; elements = {{ {one}, {far} }}; }}
  set wide {{ type {kind}; flags interval; elements = {{ {net} }}; }}
  set timed {{ type {kind}; flags timeout; elements = {{ {one} timeout 1h, {two} }}; }}
  set filled {{ type {kind}; flags dynamic,timeout; timeout 1h; elements = {{ {two} }}; }}
  set sink {{ type {kind}; flags dynamic,timeout; timeout 1h; }}
  set counted {{ type {kind}; counter; elements = {{ {one}, {two} }}; }}
  set pairs {{ type {kind} . ifname; elements = {{ {one} . "pod0", {two} . "lan0" }}; }}
"""


def _drawn(random: Random, template: str, family: Family) -> str:
    """A template with its choices made, the innermost first."""
    text = template.replace("{6}", "6" if family is Family.IPV6 else "")
    text = text.replace("{!}", random.choice(("", "!= ")))
    while True:
        # the last { that opens a choice: braces of nft's own are followed by a blank
        at = max((i for i in range(len(text) - 1) if text[i] == "{" and text[i + 1] not in " "), default=-1)
        if at < 0:
            return text
        end, depth = at, 0
        parts, begin = [], at + 1
        for end in range(at, len(text)):
            if text[end] == "{":
                depth += 1
            elif text[end] == "}":
                depth -= 1
                if depth == 0:
                    break
            elif text[end] == "|" and depth == 1:
                parts.append(text[begin:end])
                begin = end + 1
        parts.append(text[begin:end])
        text = text[:at] + random.choice(parts) + text[end + 1 :]


_PROTOCOLS = ("tcp", "udp", "icmp", "l4proto", "nexthdr", "protocol")
_NOT_AT_POSTROUTING = ("fib saddr . iif", "fib daddr oif", "meta ipsec")


def _nft_conditions(random: Random, family: Family, kind: str) -> list[str]:
    own = _NFT_IPV4 if family is Family.IPV4 else _NFT_IPV6
    found = []
    for _ in range(random.choice((0, 1, 1, 1, 2))):
        pool: Sequence[str] = random.choice((_NFT_BOTH_FAMILIES, _NFT_BOTH_FAMILIES, own))
        if random.random() < 0.04:
            pool = _NFT_OPEN
        found.append(_drawn(random, random.choice(pool), family))
    # nft refuses rules that ask for two protocols
    speaking = [text for text in found if any(word in text for word in _PROTOCOLS)]
    found = [text for text in found if text not in speaking[1:]]
    return [text for text in found if kind != "nat" or not text.startswith(_NOT_AT_POSTROUTING)]


def _nft_rule(random: Random, family: Family, kind: str, callee: str) -> str:
    conditions = _nft_conditions(random, family, kind)
    if random.random() < 0.12 and callee and kind == "filter":
        choice = _drawn(random, random.choice(_NFT_CHOICES), family)
        conditions = [text for text in conditions if not any(word in text for word in _PROTOCOLS)]
        return " ".join([*conditions, choice]).replace("jump S", f"jump {callee}")
    if random.random() < 0.3:
        return " ".join([*conditions, _drawn(random, random.choice(_NFT_CHANGES), family)])
    node = "192.0.2.11" if family is Family.IPV4 else "2001:db8:0:1::11"
    actions = {
        "filter": ["accept", "return", "drop" if conditions else "return", "reject" if conditions else "accept"],
        "early": ["accept", "return", "drop" if conditions else "accept", "notrack" if conditions else "accept"],
        "nat": [
            "masquerade",
            "masquerade fully-random",
            f"snat {family.nft} to {node}",
            "return",
            "accept",
            "masquerade",
        ],
    }[kind]
    if callee:
        actions += [f"jump {callee}", f"goto {callee}"]
    return " ".join([*conditions, random.choice(actions)])


_HOOKS = (
    ("raw", "early", "filter", "prerouting", -300),
    ("pre", "filter", "filter", "prerouting", -150),
    ("fwd", "filter", "filter", "forward", 0),
    ("nat", "nat", "nat", "postrouting", 100),
)


def nft_batch(random: Random, family: Family) -> str:
    """A whole rule set for nft -f, in place of everything."""
    word, inet = family.nft, random.random() < 0.3
    lines = ["flush ruleset", "table inet tracked {", "chain user {", "ct state invalid counter", "}", "}"]
    lines.append(f"table {'inet' if inet else word} t {{")
    addresses = [str(address) for address in sources(family)]
    values = {
        "one": addresses[0],
        "two": addresses[3],
        "kind": "ipv4_addr",
        "far": "198.51.100.1",
        "net": "10.42.1.0/28",
    }
    if family is Family.IPV6:
        values |= {"kind": "ipv6_addr", "far": "2001:db8:ffff::1", "net": "fd42:0:0:1::10/125"}
    lines.append(_NFT_SETS.format(**values))
    for name, kind, *_ in _HOOKS:
        for number in range(SETS):
            many = 4 if kind in ("filter", "nat") else 2
            inner = [_nft_rule(random, family, kind, "") for _ in range(random.randint(0, 2))]
            # what is not reached in ``raw`` would hide the rest
            lines += [f"chain {name}s{number} {{", *inner, "}"]
            outer = [_nft_rule(random, family, kind, f"{name}s{number}") for _ in range(random.randint(0, many))]
            lines += [f"chain {name}{number} {{", *outer, "}"]
    for name, _, type_, hook, priority in _HOOKS:
        lines += [f"chain b{name} {{", f"type {type_} hook {hook} priority {priority}; policy accept;"]
        lines += [f"{word} saddr {address} jump {name}{number}" for number, address in enumerate(addresses)]
        if name == "fwd":  # the answers, too
            lines += [f"{word} daddr {address} jump {name}{number}" for number, address in enumerate(addresses)]
        lines.append("}")
    return "\n".join([*lines, "}"]) + "\n"


# --- iptables

_XT = (
    "{!}-p {tcp|udp}",
    "-p {tcp -m tcp|udp -m udp}",
    "-p tcp -m tcp {!}--dport {443|80|1:1023}",
    "-p udp -m udp {!}--dport {53|443}",
    "-p tcp -m tcp {!}--tcp-flags FIN,SYN,RST,ACK {SYN|ACK}",
    "-p {tcp|udp} -m multiport {!}--{dports|ports} {53,443|80,8000:9000}",
    "{!}-i {pod0|po+|veth7}",
    "-m mark {!}--mark 0x{0|1|2|3}/0x{1|3|ff}",
    "-m connmark {!}--mark 0x{0|1|2|10}/0x{1|3|ff|ffffffff}",
    "-m conntrack {!}--ctstate {NEW|ESTABLISHED,RELATED|INVALID|UNTRACKED|NEW,SNAT}",
    "-m conntrack {!}--ctproto {tcp|udp}",
    "-m conntrack --ctdir {ORIGINAL|REPLY}",
    "-m conntrack {!}--ctstatus {NONE|ASSURED|SEEN_REPLY,CONFIRMED}",
    "-p {tcp|udp} -m conntrack {!}--ctorigdstport {443|1:100}",
    "-m state --state {NEW|ESTABLISHED|INVALID}",
    "-m addrtype {!}--{src|dst}-type {LOCAL|UNICAST|MULTICAST}",
    "-m pkttype {!}--pkt-type {unicast|broadcast|multicast}",
    "-m length {!}--length {0:27|28:60|0:2000|1000:2000}",
    "-m helper {!}--helper ftp",
    "-m connbytes {!}--connbytes {2:|1:1|5:10} --connbytes-dir {original|reply|both} --connbytes-mode packets",
    "-m connlabel {!}--label {3|7}",
    "-m policy --dir in --pol {ipsec|none}",
    "-m physdev {!}--physdev-is-bridged",
    "-m devgroup {!}--src-group 0x{0|7}",
    '-m comment --comment "why"',
    "-m recent {!}--rcheck --name r{1|2} --rsource",
    "-m recent --set --name s{1|2} --rsource",
    '-p tcp -m string {!}--string "BitTorrent" --algo bm',
)
_XT_IPV4 = (
    "{!}-s {10.42.0.0/16|10.42.1.0/28|10.42.1.12|10.0.0.1/255.0.0.3}",
    "{!}-d {198.51.100.0/24|198.51.100.1|203.0.113.9}",
    "{!}-f",
    "{!}-p icmp",
    "-p icmp -m icmp {!}--icmp-type {8|0|3}",
    "-m iprange {!}--{src|dst}-range {10.42.1.5-10.42.1.20|198.51.100.1-198.51.100.9}",
    "-m ttl --ttl-{lt 2|gt 1|eq 1}",
    "-m conntrack {!}--ctorig{src|dst} {10.42.0.0/16|198.51.100.1|10.42.1.8/29}",
    "-m conntrack {!}--ctreplsrc {198.51.100.0/24|10.0.0.0/8}",
    "-m set {!}--match-set hits {src|dst}",
    "-m set {!}--match-set ports {src,dst|dst,dst}",
    "-m set {!}--match-set nets {src|dst}",
    "-m set {!}--match-set all {src|dst}",
)
_XT_IPV6 = (
    "{!}-s {fd42::/48|fd42:0:0:1::10/124}",
    "{!}-d {2001:db8:ffff::/64|2001:db8:ffff::1}",
    "{!}-p ipv6-icmp",
    "-p ipv6-icmp -m icmp6 {!}--icmpv6-type {128|129}",
    "-m hl --hl-{lt 2|gt 1}",
    "-m {frag --fragmore|hbh|rt}",
    "-m ipv6header {!}--header {frag|hop,dst} --soft",
    "-m conntrack {!}--ctorig{src|dst} {fd42::/48|2001:db8:ffff::1}",
)
_XT_OPEN = (
    "-m limit --limit 10000/second --limit-burst 10000",
    "-m statistic --mode nth --every 2 --packet {0|1}",
    "-m dscp {!}--dscp {46|0}",
    "-m time --weekdays {Sun|Mon,Tue}",
    "-m cpu {!}--cpu 0",
    "-m hashlimit --hashlimit-upto 10000/second --hashlimit-name h --hashlimit-mode srcip",
)
_XT_CHANGES = {
    "mangle": (
        "-j MARK --set-xmark 0x{0|1|2|3}/0x{1|3|ffffffff}",
        "-j CONNMARK --set-xmark 0x{0|1|10}/0x{1|ff}",
        "-j CONNMARK --save-mark --nfmask 0x{1|3|ff} --ctmask 0x{1|ff}",
        "-j CONNMARK --restore-mark --nfmask 0x{1|ff} --ctmask 0x{1|3|ff}",
        "-j CONNMARK --{save|restore}-mark",
    ),
    "filter": ('-j LOG --log-prefix "x"', "-j NFLOG", ""),
    "raw": ("-j MARK --set-xmark 0x1/0x1", "", "-j CT --notrack"),
    "nat": ("-j MARK --set-xmark 0x{1|2}/0x3", ""),
}


def _not_xt(random: Random, template: str) -> str:
    return template.replace("{!}", random.choice(("", "! ")))


def _xt_rule(random: Random, family: Family, table: str, callee: str) -> str:
    own = _XT_IPV4 if family is Family.IPV4 else _XT_IPV6
    found: list[str] = []
    for _ in range(random.choice((0, 1, 1, 1, 2))):
        pool: Sequence[str] = random.choice((_XT, _XT, own))
        pool = _XT_OPEN if random.random() < 0.04 else pool
        text = _drawn(random, _not_xt(random, random.choice(pool)), family)
        words = set(text.split()) & {"-p", "-s", "-d", "-i", "-f", "--ctstate", "-m"}
        if not any(words - {"-m"} & set(each.split()) for each in found) and not (
            "-p tcp -m udp" in text or "-p udp -m tcp" in text
        ):
            found.append(text)
    if random.random() < 0.3:
        return " ".join([*found, _drawn(random, random.choice(_XT_CHANGES[table]), family)])
    node = "192.0.2.11" if family is Family.IPV4 else "2001:db8:0:1::11"
    actions = {
        "filter": [
            "-j ACCEPT",
            "-j RETURN",
            "-j DROP" if found else "-j RETURN",
            "-j REJECT" if found else "-j ACCEPT",
        ],
        "mangle": ["-j ACCEPT", "-j RETURN", "-j DROP" if len(found) > 1 else "-j RETURN"],
        "raw": ["-j ACCEPT", "-j RETURN"],
        "nat": ["-j MASQUERADE", f"-j SNAT --to-source {node}", "-j RETURN", "-j ACCEPT", "-j MASQUERADE"],
    }[table]
    if callee:
        actions += [f"-j {callee}", f"-g {callee}"]
    return " ".join([*found, random.choice(actions)])


_PLACES = (("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("filter", "FORWARD"), ("nat", "POSTROUTING"))


_NOT_IN_NAT = ("-i ", "physdev", "src-group", "-m policy")


def iptables_batch(random: Random, family: Family) -> str:
    """Text for iptables-restore, in place of everything; the ipsets of ``IPSETS`` must be there."""
    lines = []
    for table, base in _PLACES:
        chains, rules = [], []
        for number, address in enumerate(sources(family)):
            name = f"{table[0].upper()}{number}"
            chains += [f":{name} - [0:0]", f":{name}S - [0:0]"]
            rules.append(f"-A {base} -s {address} -j {name}")
            if base == "FORWARD":  # the answers, too
                rules.append(f"-A {base} -d {address} -j {name}")
            many = {"filter": 4, "nat": 4, "mangle": 3, "raw": 1}[table]
            for chain, callee, most in ((f"{name}S", "", 2), (name, f"{name}S", many)):
                for _ in range(random.randint(0, most)):
                    text = _xt_rule(random, family, table, callee)
                    if base != "POSTROUTING" or not any(word in text for word in _NOT_IN_NAT):
                        rules.append(f"-A {chain} {text}")
        lines += [f"*{table}", *chains, *rules, "COMMIT"]
    return "\n".join(lines) + "\n"


IPSETS = """create hits hash:ip
add hits 10.42.1.10
add hits 10.42.1.13
add hits 198.51.100.1
create ports hash:ip,port
add ports 10.42.1.10,tcp:443
add ports 198.51.100.1,udp:53
add ports 198.51.100.1,icmp:8/0
create nets hash:net
add nets 10.42.1.0/28
add nets 10.42.1.12/31 nomatch
add nets 203.0.113.0/24
create all list:set
add all hits
add all nets
"""
