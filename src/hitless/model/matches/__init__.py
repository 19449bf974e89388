"""Conditions of rules: what must hold of a packet for a rule to match.

The other half of ``rules``, which re-exports everything here. A condition that a decoder does not understand is
``Opaque``. Each kind is a class with everything about it (``base``): its evaluation, its notation for users, its native
form, and the fields by which it distinguishes flows and pods.
"""

from __future__ import annotations

from hitless.model.matches.addresses import AddrType, Destination, ReversePath, Source
from hitless.model.matches.base import Distinctions, Inexact, Match, Members
from hitless.model.matches.interfaces import InInterface, OutInterface
from hitless.model.matches.marks import ConnMark, Mark
from hitless.model.matches.properties import Property
from hitless.model.matches.sets import AnyOf, Element, SetMember
from hitless.model.matches.texts import Comment, Opaque
from hitless.model.matches.tracking import CtState
from hitless.model.matches.transport import DestinationPort, IcmpType, Ports, Protocol, SourcePort, TcpFlags

__all__ = [
    "AddrType",
    "AnyOf",
    "Comment",
    "ConnMark",
    "CtState",
    "Destination",
    "DestinationPort",
    "Distinctions",
    "Element",
    "IcmpType",
    "InInterface",
    "Inexact",
    "Mark",
    "Match",
    "Members",
    "Opaque",
    "OutInterface",
    "Ports",
    "Property",
    "Protocol",
    "ReversePath",
    "SetMember",
    "Source",
    "SourcePort",
    "TcpFlags",
]
