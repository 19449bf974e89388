"""Conditions of rules: what must hold of a packet for a rule to go on.

Problem and promise are those of ``rules``, whose other half this is; everybody imports them from there. A condition
that a reader does not understand is ``Opaque``. Each kind is a class that says everything about itself (``base``): how
it is evaluated, written for people, copied into the kernel, and by what it tells flows and pods apart.
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
