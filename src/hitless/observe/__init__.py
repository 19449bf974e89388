"""Whether the node's rules carry pods' packets out, evaluated for the pods and interfaces that the node has.

Problem: a rule may match a pod's address, its interface, or the uplink; evaluated for an invented pod and an invented
interface, the result is wrong in both directions. Promise: ``nodes`` reads the node's facts and assumes none, ``pods``
finds the pods that are there, ``uplinks`` the uplink, ``panels`` combines the results of several pods. The watch, the
guard and the agent all use it. Next stages: ``agent``, ``guard``, ``watch``.
"""

from hitless.observe.judging import Judge
from hitless.observe.live import LiveNode
from hitless.observe.nodes import NodeView, Viewer
from hitless.observe.panels import Ask, Fate, How, Panel, Poll
from hitless.observe.pods import LocalPod, pods, unused
from hitless.observe.uplinks import Uplink, uplink
from hitless.observe.witnesses import Asking, Witnesses, checked_interface, find, looking_up, matching

__all__ = [
    "Ask",
    "Asking",
    "Fate",
    "How",
    "Judge",
    "LiveNode",
    "LocalPod",
    "NodeView",
    "Panel",
    "Poll",
    "Uplink",
    "Viewer",
    "Witnesses",
    "checked_interface",
    "find",
    "looking_up",
    "matching",
    "pods",
    "unused",
    "uplink",
]
