"""What the node is like, as far as the question "do pods get out?" needs it, and whom the question is about.

Problem: a rule may choose by a pod's address, by its interface, or by the way out; asked about a made-up pod and a
made-up interface, the answer is wrong in both directions. Promise: ``nodes`` reads the node's facts and assumes none,
``pods`` finds the pods that are there, ``uplinks`` the way out, ``panels`` decides what several pods' answers come to.
The watch, the guard and the agent all ask here. Next stages: ``agent``, ``guard``, ``watch``.
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
