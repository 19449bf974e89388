"""Traffic as a stream: attempts, losses, streams; and the far end that answers them.

parse, resolve       URLs into endpoints
Options, Prober      open-loop probing of endpoints
FarEndOptions, FarEnd    the other side
verdict              what a run says by itself
wire.ports           the ports of a far end
"""

from hitless.probe.causes import ProbeVerdict, verdict
from hitless.probe.farend import FarEnd, FarEndOptions
from hitless.probe.kinds import DEFAULT_MIX, KINDS
from hitless.probe.options import DEFAULT_RATE, POLITE_RATE, ProbeOptions
from hitless.probe.prober import Prober
from hitless.probe.targets import ProbeEndpoint, Target, parse, resolve
from hitless.probe.wire import BASE_PORT, FarEndPorts, ports

__all__ = [
    "BASE_PORT",
    "DEFAULT_MIX",
    "DEFAULT_RATE",
    "KINDS",
    "POLITE_RATE",
    "FarEnd",
    "FarEndOptions",
    "FarEndPorts",
    "ProbeEndpoint",
    "ProbeOptions",
    "ProbeVerdict",
    "Prober",
    "Target",
    "parse",
    "ports",
    "resolve",
    "verdict",
]
