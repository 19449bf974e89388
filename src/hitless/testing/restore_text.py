"""Reads the texts that iptables-restore and nft read, as far as hitless writes them.

For the fake kernel: a transaction's text is executed here by an independent reader, so that a rendering mistake shows
without a kernel. What it does not know it refuses; it never skips.
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
    """Table and words of each line; the text must begin with ``*table`` and end with ``COMMIT``."""
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


def rule_of(words: list[str], family: Family) -> Rule:
    """A rule specification."""
    steps: list[Step] = []
    left = list(words)
    while left:
        negated = left[0] == "!"
        if negated:
            left.pop(0)
        word = left.pop(0)
        if word in ("-s", "-d"):
            network = reading.network(left.pop(0), where="the rule")
            if (network.version == 4) is not (family is Family.IPV4):
                raise TextRefused(f"{network} in a table of {family.value}")
            steps.append(Source(network, negated) if word == "-s" else Destination(network, negated))
        elif word in ("-i", "-o"):
            name = left.pop(0)
            steps.append(InInterface(name, negated) if word == "-i" else OutInterface(name, negated))
        elif word == "-p":
            steps.append(Protocol(_PROTOCOLS[left.pop(0)], negated))
        elif word == "-m":
            left.pop(0)  # the options that follow say which match it is
        elif word == "--mark":
            value, _, mask = left.pop(0).partition("/")
            steps.append(Mark(int(value, 0), int(mask, 0) if mask else 0xFFFFFFFF, negated))
        elif word == "--comment":
            steps.append(Comment(left.pop(0)))
        elif word == "--ctstate":
            steps.append(CtState(frozenset(left.pop(0).split(",")), negated))
        elif word == "--dport":
            port = int(left.pop(0))
            steps.append(DestinationPort(port, port, negated))
        elif word == "-j":
            steps.append(_target(left))
        else:
            raise TextRefused(f"unknown option {word!r}")
    return Rule(tuple(steps))


def _target(left: list[str]) -> Step:
    name = left.pop(0)
    if name == "MASQUERADE":
        random_fully = left[:1] == ["--random-fully"]
        if random_fully:
            left.pop(0)
        return Masquerade(random_fully=random_fully)
    return _VERDICTS.get(name) or Jump(name)


def native_rule(words: list[str], family: Family) -> Rule:
    """An nft rule."""
    steps: list[Step] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == family.nft:
            field = left.pop(0)
            negated = left[0] == "!="
            if negated:
                left.pop(0)
            network = reading.network(left.pop(0), where="the rule")
            steps.append(Source(network, negated) if field == "saddr" else Destination(network, negated))
        elif word == "meta" and left[0] == "mark":
            left.pop(0)
            mask = 0xFFFFFFFF
            if left[0] == "&":
                mask = int(left[1], 0)
                del left[:2]
            negated = left.pop(0) == "!="
            steps.append(Mark(int(left.pop(0), 0), mask, negated))
        elif word == "masquerade":
            random_fully = left[:1] == ["fully-random"]
            if random_fully:
                left.pop(0)
            steps.append(Masquerade(random_fully=random_fully))
        elif word in ("return", "accept", "drop"):
            steps.append(_VERDICTS[word.upper()])
        else:
            raise TextRefused(f"unknown word {word!r}")
    return Rule(tuple(steps))


def hook_of(words: list[str]) -> Hook:
    """``{ type nat hook postrouting priority 100 ; policy accept ; }``."""
    plain = [word for word in words if word not in ("{", "}", ";")]
    pairs = dict(zip(plain[::2], plain[1::2], strict=True))
    return Hook(pairs["type"], pairs["hook"], int(pairs["priority"]), pairs.get("policy", "accept"))
