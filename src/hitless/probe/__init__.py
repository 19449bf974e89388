"""Traffic as a stream: attempts, losses, streams; and the far end that answers them.

parse, resolve           URLs to endpoints
ProbeOptions, Prober     open-loop probing of endpoints
FarEndOptions, FarEnd    the other side
verdict                  the verdict on a run
ports                    the ports of a far end

Each name is imported when it is first used, so that a prober loads no far end, and the far end no prober.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hitless.first_use import on_first_use

if TYPE_CHECKING:
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

__getattr__ = on_first_use(
    __name__,
    {
        "causes": ("ProbeVerdict", "verdict"),
        "farend": ("FarEnd", "FarEndOptions"),
        "kinds": ("DEFAULT_MIX", "KINDS"),
        "options": ("DEFAULT_RATE", "POLITE_RATE", "ProbeOptions"),
        "prober": ("Prober",),
        "targets": ("ProbeEndpoint", "Target", "parse", "resolve"),
        "wire": ("BASE_PORT", "FarEndPorts", "ports"),
    },
)
