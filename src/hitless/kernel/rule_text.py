"""The last door before iptables-restore and nft: only a text that a printer of ours could have made passes.

Problem: both programs read a language in which a line break, a ``COMMIT`` or a ``;`` begins the next command; a value
that slipped through unchecked would be rules of somebody else's choice, written as root. Promise: ``check`` reads the
whole text by a grammar of its own, written from what ``hitless.plan`` has to say and from nothing else: one table,
flannel's chains, networks that print as themselves, known matches and targets, balanced quotes, printable ASCII.
Anything else is a ``KernelError`` that names the line, and no program is started. Never: mending a text.
"""

from __future__ import annotations

import re
from functools import cache

from hitless.errors import KernelError
from hitless.model import reading
from hitless.model.families import Backend, Family, family_of
from hitless.model.notation.limits import TARGET
from hitless.model.state import Place, Purpose

__all__ = ["check"]

_LINES = 10_000  # lines of one text; a node's whole rules are some twenty
_NUMBER = r"[1-9][0-9]{0,18}"
_NETWORK = r"(?:[0-9a-f:.]+/[0-9]+)"
_MARK = r"0x[0-9a-f]{1,8}"
_QUOTED = r'"(?:[ !#-\[\]-~]|\\[\\"])*"'
_MATCH = rf"(?:(?:! )?-[sd] {_NETWORK}|-m mark (?:! )?--mark {_MARK}/{_MARK}|-m comment --comment {_QUOTED})"
_ENDING = rf"(?:-j MASQUERADE --random-fully|-j {TARGET.pattern})"
_RULE = rf"(?:{_MATCH}(?: {_MATCH})*(?: {_ENDING})?|{_ENDING})"
_NATIVE_MATCH = rf"(?:ip6? [sd]addr (?:!= )?{_NETWORK}|meta mark (?:& {_MARK} )?[!=]= {_MARK})"
_NATIVE_RULE = rf"(?:{_NATIVE_MATCH} )*(?:masquerade(?: fully-random)?|accept|return)"


def check(program: str, text: str) -> None:
    """Refuse a text for ``program`` (``nft``, ``ip6tables-nft-restore``, …) that no plan contains, with
    ``KernelError``."""
    lines = text.split("\n")
    if lines.pop() != "" or not lines:
        raise _refused(program, len(lines) + 1, "the text does not end with a whole line")
    if len(lines) > _LINES:
        raise _refused(program, _LINES, "the text is longer than any of ours")
    for number, line in enumerate(lines, 1):
        if not line.isascii() or not line.isprintable():
            raise _refused(program, number, f"{reading.shown(line)} has characters that no line of ours has")
    if program == "nft":
        wrong = _native(lines)
    else:
        family = Family.IPV6 if program.startswith("ip6tables-") else Family.IPV4
        wrong = _restore(lines, family)
    if wrong is not None:
        raise _refused(program, wrong[0], f"{reading.shown(wrong[1])} is not one of our lines")


def _refused(program: str, number: int, why: str) -> KernelError:
    return KernelError("write", f"rules with {program}", reason=f"line {number}: {why}; nothing was written")


def _restore(lines: list[str], family: Family) -> tuple[int, str] | None:
    """The first line of a text for iptables-restore that is not ours, with its number."""
    known = {f"*{place.names.table}": place.names for place in _places(False, family)}
    names = known.get(lines[0])
    if names is None:
        return 1, lines[0]
    form = _restore_line(names.base, names.chain)
    for number, line in enumerate(lines[1:-1], 2):
        if not form.fullmatch(line) or not _networks_are_plain(line, family):
            return number, line
    return None if len(lines) > 1 and lines[-1] == "COMMIT" else (len(lines), lines[-1])


@cache
def _restore_line(base: str, own: str) -> re.Pattern[str]:
    either = f"(?:{base}|{own})"
    return re.compile(
        rf":{own} - \[0:0\]|-[FX] {own}|-D {either} {_NUMBER}|-[AD] {either} {_RULE}|-I {either} {_NUMBER} {_RULE}"
    )


def _native(lines: list[str]) -> tuple[int, str] | None:
    """The same for nft."""
    forms = [(_native_line(place), place.family) for family in Family for place in _places(True, family)]
    for number, line in enumerate(lines, 1):
        if not any(form.fullmatch(line) and _networks_are_plain(line, family) for form, family in forms):
            return number, line
    return None


@cache
def _native_line(place: Place) -> re.Pattern[str]:
    names, hook = place.names, place.names.hook
    assert hook is not None
    table = f"{place.family.nft} {names.table}"
    chain = f"{table} {names.chain}"
    at = f"{{ type {hook.type} hook {hook.hook} priority {hook.priority} ; policy {hook.policy} ; }}"
    return re.compile(
        rf"(?:add|delete) table {table}|(?:flush|delete) chain {chain}|add chain {chain} {re.escape(at)}"
        rf"|delete rule {chain} handle {_NUMBER}|add rule {chain} (?:handle {_NUMBER} )?{_NATIVE_RULE}"
        rf"|insert rule {chain} {_NATIVE_RULE}"
    )


def _places(native: bool, family: Family) -> list[Place]:
    return [Place(each, family, purpose) for each in Backend if each.native is native for purpose in Purpose]


def _networks_are_plain(line: str, family: Family) -> bool:
    """Whether every network in a line is of the family and written as we write it."""
    tokens = re.sub(_QUOTED, '""', line).split(" ")
    found = {token: reading.network_of(token) for token in tokens if "/" in token and not token.startswith("0x")}
    return all(
        network is not None and str(network) == token and family_of(network) is family
        for token, network in found.items()
    ) and all(token == family.nft for token in tokens if token in ("ip", "ip6"))
