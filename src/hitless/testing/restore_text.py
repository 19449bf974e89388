"""Reads the texts that iptables-restore and nft read, as far as hitless writes them.

For the fake kernel: a transaction's text is executed by an independent parser, so that a rendering mistake is found
without a kernel. Unknown text is refused, never skipped.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from hitless.model import reading
from hitless.model.families import Family
from hitless.model.rules import (
    Accept,
    Comment,
    CtState,
    Destination,
    DestinationPort,
    Drop,
    Hook,
    InInterface,
    Jump,
    Mark,
    Masquerade,
    OutInterface,
    Protocol,
    Reject,
    Return,
    Rule,
    Source,
    Step,
)

__all__ = ["Refused", "TextRefused", "hook_of", "native_rule", "restore_lines", "rule_of"]

_VERDICTS: dict[str, Step] = {"ACCEPT": Accept(), "DROP": Drop(), "RETURN": Return(), "REJECT": Reject()}
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58}


class TextRefused(Exception):
    """The text is not understood, or what it requests is not possible."""


Refused = TextRefused  # its name in earlier releases


def restore_lines(text: str) -> Iterator[tuple[str, list[str]]]:
    """Table and tokens of each line; the text must begin with ``*table`` and end with ``COMMIT``."""
    table = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("*"):
            if table:
                raise TextRefused(f"{line}: the table {table} has no COMMIT")
            table = line[1:].strip()
        elif line.strip() == "COMMIT":
            if not table:
                raise TextRefused("COMMIT without a table")
            table = ""
        elif not table:
            raise TextRefused(f"{line}: outside of a table")
        else:
            yield table, shlex.split(line)
    if table:
        raise TextRefused(f"the table {table} has no COMMIT")


def rule_of(tokens: list[str], family: Family) -> Rule:
    """A rule specification."""
    steps: list[Step] = []
    left = list(tokens)
    while left:
        negated = left[0] == "!"
        if negated:
            left.pop(0)
        token = left.pop(0)
        if token in ("-s", "-d"):
            network = reading.network(left.pop(0), where="the rule")
            if (network.version == 4) is not (family is Family.IPV4):
                raise TextRefused(f"{network} in a table of {family.value}")
            steps.append(Source(network, negated) if token == "-s" else Destination(network, negated))
        elif token in ("-i", "-o"):
            name = left.pop(0)
            steps.append(InInterface(name, negated) if token == "-i" else OutInterface(name, negated))
        elif token == "-p":
            steps.append(Protocol(_PROTOCOLS[left.pop(0)], negated))
        elif token == "-m":
            left.pop(0)  # the options that follow say which match it is
        elif token == "--mark":
            value, _, mask = left.pop(0).partition("/")
            steps.append(Mark(int(value, 0), int(mask, 0) if mask else 0xFFFFFFFF, negated))
        elif token == "--comment":
            steps.append(Comment(left.pop(0)))
        elif token == "--ctstate":
            steps.append(CtState(frozenset(left.pop(0).split(",")), negated))
        elif token == "--dport":
            port = int(left.pop(0))
            steps.append(DestinationPort(port, port, negated))
        elif token == "-j":
            steps.append(_target(left))
        else:
            raise TextRefused(f"unknown option {token!r}")
    return Rule(tuple(steps))


def _target(left: list[str]) -> Step:
    name = left.pop(0)
    if name == "MASQUERADE":
        random_fully = left[:1] == ["--random-fully"]
        if random_fully:
            left.pop(0)
        return Masquerade(random_fully=random_fully)
    return _VERDICTS.get(name) or Jump(name)


def native_rule(tokens: list[str], family: Family) -> Rule:
    """An nft rule."""
    steps: list[Step] = []
    left = list(tokens)
    while left:
        token = left.pop(0)
        if token == family.nft:
            field = left.pop(0)
            negated = left[0] == "!="
            if negated:
                left.pop(0)
            network = reading.network(left.pop(0), where="the rule")
            steps.append(Source(network, negated) if field == "saddr" else Destination(network, negated))
        elif token == "meta" and left[0] == "mark":
            left.pop(0)
            mask = 0xFFFFFFFF
            if left[0] == "&":
                mask = int(left[1], 0)
                del left[:2]
            negated = left.pop(0) == "!="
            steps.append(Mark(int(left.pop(0), 0), mask, negated))
        elif token == "masquerade":
            random_fully = left[:1] == ["fully-random"]
            if random_fully:
                left.pop(0)
            steps.append(Masquerade(random_fully=random_fully))
        elif token in ("return", "accept", "drop"):
            steps.append(_VERDICTS[token.upper()])
        else:
            raise TextRefused(f"unknown token {token!r}")
    return Rule(tuple(steps))


def hook_of(tokens: list[str]) -> Hook:
    """``{ type nat hook postrouting priority 100 ; policy accept ; }``."""
    plain = [token for token in tokens if token not in ("{", "}", ";")]
    pairs = dict(zip(plain[::2], plain[1::2], strict=True))
    return Hook(pairs["type"], pairs["hook"], int(pairs["priority"]), pairs.get("policy", "accept"))
