"""nf_tables expressions to model rules.

Problem: a rule in the kernel is a small program over registers, with native expressions (nft) or with xtables
extensions (iptables-nft). Promise: ``decode`` follows the program and expresses it in the model; a verdict map becomes
one model rule per element; what the model cannot express, or is not known, becomes ``Opaque`` or ``OpaqueAction`` with
a description, so that the evaluator answers "cannot tell" and never guesses. Counters and logs are not steps. The
semantics of each expression are those of the kernel's net/netfilter/nft_*.c; attribute numbers those of nf_tables.h.
Next stage: ``state`` calls this for the chains that are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby

from hitless.errors import KernelError
from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.branches import Attributes, Branch, value_of
from hitless.kernel.nftables.effects import immediate, masquerade, nat, object_reference, redirect, reject
from hitless.kernel.nftables.fields import masked, within
from hitless.kernel.nftables.limits import CONDITIONS, limited
from hitless.kernel.nftables.load_expressions import LOADS
from hitless.kernel.nftables.lookups import HeaderReader, SetLookup, add, lookup
from hitless.kernel.nftables.register_values import Constant, Context, Field, UnknownValue
from hitless.kernel.xtables.extensions import decode_match, decode_target
from hitless.model.families import Family
from hitless.model.rules import (
    Comment,
    DestinationPort,
    Match,
    NoTrack,
    OneOf,
    Opaque,
    OpaqueAction,
    Property,
    Rule,
    Silent,
    SourcePort,
    Step,
)

__all__ = ["decode"]

_EQ, _NEQ, _LT, _LTE, _GT, _GTE = range(6)
_OPERATORS = ("==", "!=", "<", "<=", ">", ">=")
_COUNTS = frozenset({"counter", "last"})
_COMMENT = 0  # NFTNL_UDATA_RULE_COMMENT: type and length are one byte each


def decode(
    payload: bytes, family: str, sets: SetLookup, handle: int | None = None, header: HeaderReader | None = None
) -> tuple[Rule, ...]:
    """The model rules (one, except where a map stands for several) of a rule message of a table of ``family``.

    ``header``: of the elements of a lookup, only those relevant for packets with that header.
    """
    try:
        attributes = netlink.attributes(payload, 4)
        steps: list[Step] = [Comment(text) for text in _comments(attributes.get(wire.RULE_USERDATA, b""))]
        table = family, netlink.to_text(attributes.get(wire.RULE_TABLE, b""))
        branches = [Branch(Context({"ip": 4, "ip6": 6}.get(family, 0)), steps, table=table)]
        for _, raw in netlink.attribute_list(attributes.get(wire.RULE_EXPRESSIONS, b"")):
            expression = netlink.attributes(raw)
            name = netlink.to_text(expression.get(wire.EXPRESSION_NAME, b""))
            data = netlink.attributes(expression.get(wire.EXPRESSION_DATA, b""))
            branches = _apply(name, data, branches, family, sets, header)
        return tuple(Rule(steps, handle) for steps in _rules(branches))
    except (KernelError, IndexError, ValueError, OverflowError) as error:
        return (Rule((Opaque(f"a rule that does not decode ({error})"), OpaqueAction("not decoded")), handle),)


def _comments(userdata: bytes) -> Iterable[str]:
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == _COMMENT:
            yield netlink.to_text(userdata[offset + 2 : offset + 2 + length])
        offset += 2 + length


def _rules(branches: list[Branch]) -> Iterable[tuple[Step, ...]]:
    """The branches' steps; the alternatives of one choice become one rule."""
    for choice, group in groupby(branches, key=lambda branch: branch.choice):
        if choice is None:
            yield from (_merged(branch.steps) for branch in group)
            continue
        alternatives = list(group)
        before = _merged(alternatives[0].steps[: choice.at])
        # equal alternatives are merged
        tails = dict.fromkeys(tuple(branch.steps[choice.at :]) for branch in alternatives)
        yield (*before, OneOf(tuple(tails), choice.exhaustive, choice.text))


def _merged(steps: list[Step]) -> tuple[Step, ...]:
    """Without repeated conditions, and with two bounds of a port (two compares) as one range."""
    found: list[Step] = []
    changed = False
    for step in steps:
        changed = changed or not isinstance(step, Match)
        if not changed and step in found:
            continue
        last = found[-1] if found else None
        if (
            isinstance(step, SourcePort | DestinationPort)
            and isinstance(last, type(step))
            and not (step.negated or last.negated)
        ):
            low, high = max(step.first, last.first), min(step.last, last.last)
            if low <= high:
                found[-1] = type(step)(low, high)
                continue
        found.append(step)
    return tuple(found)


def _apply(
    name: str, data: Attributes, branches: list[Branch], family: str, sets: SetLookup, header: HeaderReader | None
) -> list[Branch]:
    if name in _COUNTS:
        return branches
    if name == "lookup":
        return [after for branch in branches for after in lookup(data, branch, sets, header)]
    for branch in branches:
        handler = _HANDLERS.get(name) or LOADS.get(name)
        if handler is not None:
            handler(data, branch)
        elif name == "dynset":
            add(data, branch, sets)
        elif name == "objref":
            object_reference(data, branch, sets)
        elif name in CONDITIONS:
            limited(name, data, branch)
        elif name in ("match", "target"):
            _compat(name, data, branch, family)
        elif name == "log":
            branch.steps.append(Silent(_log(data)))
        elif name == "flow_offload":
            # it ends the rule for every packet that is not put into the flow table (nft_flow_offload_eval)
            text = f"flow add @{netlink.to_text(data.get(1, b''))}"
            branch.require((Property("offloaded", ((1, 1),), text=text),), text)
        elif name in _EFFECTS:
            branch.steps.append(OpaqueAction(name))
        else:
            # an unknown expression may be a condition, and may have loaded any register
            branch.steps.append(Opaque(name))
            branch.registers.clear()
    return branches


_EFFECTS = frozenset({"queue", "tproxy", "synproxy", "fwd"})


def _log(data: Attributes) -> str:
    """LOG: GROUP 1, PREFIX 2."""
    prefix = netlink.to_text(data.get(2, b""))
    return "log" + (f' prefix "{prefix}"' if prefix else "")


# --- conditions --------------------------------------------------------------------------------------------------


def _text(loaded: object, branch: Branch) -> str:
    if isinstance(loaded, Field):
        return loaded.nft(branch.context)
    return loaded.text if isinstance(loaded, UnknownValue) else "a constant"


def _cmp(data: Attributes, branch: Branch) -> None:
    loaded, operation, value = branch.value(data.get(1)), wire.number(data.get(2, b"")), value_of(data.get(3))
    operator = _OPERATORS[operation]
    if isinstance(loaded, Constant):
        branch.steps.append(Opaque("a comparison of constants"))
        return
    if not isinstance(loaded, Field):
        branch.steps.append(Opaque(f"{loaded.text} {operator} 0x{value.hex()}"))
        return
    text = f"{_text(loaded, branch)} {operator} {loaded.shown(value, branch.context)}"
    if operation in (_EQ, _NEQ):
        branch.require(masked(loaded, value, operation == _NEQ, branch.context), text)
        return
    number, width = int.from_bytes(value, "big"), len(value)
    low, high = 0, (1 << 8 * width) - 1
    if operation in (_LT, _LTE):
        high = number - (operation == _LT)
    else:
        low = number + (operation == _GT)
    if not 0 <= low <= high < 1 << 8 * width:
        branch.steps.append(Opaque(text))
        return
    matches = within(loaded, low.to_bytes(width, "big"), high.to_bytes(width, "big"), False, branch.context)
    if matches is not None:
        matches = tuple(replace(each, text=text) if isinstance(each, Property) else each for each in matches)
    branch.require(matches, text)


def _range(data: Attributes, branch: Branch) -> None:
    loaded, low, high = branch.value(data.get(1)), value_of(data.get(3)), value_of(data.get(4))
    if isinstance(loaded, Field):
        negated = wire.number(data.get(2, b"")) == 1
        context = branch.context
        shown = f"{loaded.shown(low, context)}-{loaded.shown(high, context)}"
        text = f"{loaded.nft(context)} {'!= ' if negated else ''}{shown}"
        branch.require(within(loaded, low, high, negated, context), text)
    else:
        branch.steps.append(Opaque(f"{_text(loaded, branch)} in 0x{low.hex()}-0x{high.hex()}"))


def _compat(name: str, data: Attributes, branch: Branch, family: str) -> None:
    extension, revision = netlink.to_text(data.get(1, b"")), wire.number(data.get(2, b""))
    version = branch.context.version
    if family == "inet" and not version:
        branch.steps.append(Opaque(f"xtables {name} {extension} in an inet table"))
        return
    which = Family.IPV4 if version == 4 else Family.IPV6
    blob = data.get(3, b"")
    if name == "match":
        branch.require(decode_match(extension, revision, blob, which), extension)
    else:
        branch.steps.extend(decode_target(extension, revision, blob, which))


_HANDLERS: dict[str, Callable[[Attributes, Branch], None]] = {
    "cmp": _cmp,
    "range": _range,
    "immediate": immediate,
    "masq": masquerade,
    "nat": nat,
    "redir": redirect,
    "reject": reject,
    "notrack": lambda data, branch: branch.steps.append(NoTrack()),
}
