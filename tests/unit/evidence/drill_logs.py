"""Hand-made logs: a healthy drill to begin with, and what can go wrong in one, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from hitless.model import events as e

T0 = 1_700_000_000_000_000_000
MS = 1_000_000
S = 1000 * MS
NODE = "node-1"
FAR = "198.51.100.1"
IPTABLES = e.Writer(pid=4711, comm="iptables", argv="iptables -t nat -F FLANNEL-POSTRTG")


def at(seconds: float) -> int:
    """A time, in seconds after the beginning of the log."""
    return T0 + round(seconds * S)


@dataclass
class Drill:
    """One agent on one node: baseline from 0 s, rounds from 2 s, each of 2 s, recovery for 3 s."""

    agent: str = "flannel-0.28"
    rounds: int = 2
    families: tuple[str, ...] = ("ipv4",)
    rate: int = 1000
    node: str = NODE
    far_end: bool = True
    unseen: tuple[int, ...] = ()
    extra: list[e.Event] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def recovery(self) -> float:
        return 2.0 + 2.0 * self.rounds

    @property
    def end(self) -> float:
        return self.recovery + 3.0

    def header(self) -> e.Header:
        config = {
            "target": "lab",
            "agents": [self.agent],
            "judge": self.agent,
            "rounds": self.rounds,
            "restart": "sigterm",
            "families": list(self.families),
            "rate": self.rate,
            "far_end": self.far_end,
            "restart_evidence": True,
            **self.config,
        }
        return e.Header(t=T0 - S, tool="drill", version="0.1.0", config=config)

    def where(self, stream: str = "") -> dict[str, Any]:
        return {"agent": self.agent, "node": self.node, "stream": stream}

    def calendar(self) -> Iterable[e.Event]:
        here = self.where("drill")
        yield e.Phase(t=at(0), phase="baseline", **here)
        for number in range(1, self.rounds + 1):
            begin = 2.0 * number
            yield e.Phase(t=at(begin), phase="round", round=number, **here)
            yield e.Restart(t=at(begin + 0.01), step="stop", round=number, pid=100, method="sigterm", **here)
            yield e.Restart(t=at(begin + 0.10), step="exited", round=number, pid=100, method="sigterm", **here)
            evidence = f"process {100 + number} runs" if number not in self.unseen else ""
            yield e.Restart(t=at(begin + 0.20), step="started", round=number, pid=101, evidence=evidence, **here)
            yield e.Restart(t=at(begin + 0.50), step="ready", round=number, pid=101, **here)
        yield e.Phase(t=at(self.recovery), phase="recovery", **here)
        yield e.Phase(t=at(self.end), phase="end", **here)

    def tools(self) -> Iterable[e.Event]:
        for tool in ("watch", "probe", *(["farend"] if self.far_end else [])):
            here = self.where(tool)
            yield e.Header(t=at(-0.5), tool=tool, version="0.1.0", **here)
            for second in range(int(self.end) + 1):
                yield e.Heartbeat(t=at(second), tool=tool, interval_ns=S, max_lag_ns=MS, **here)
            yield e.Summary(t=at(self.end + 0.1), tool=tool, **here)

    def rules(self) -> Iterable[e.Event]:
        for family in self.families:
            network = "10.42.0.0/16" if family == "ipv4" else "fd42::/48"
            yield e.RuleState(t=at(-0.4), family=family, network=network, state="carried", **self.where("watch"))  # type: ignore[arg-type]

    def traffic(self) -> Iterable[e.Event]:
        for family in self.families:
            for tenth in range(round(self.end * 10)):
                n = self.rate // 10
                yield e.Attempts(
                    t=at(tenth / 10), interval_ns=S // 10, kind="tcp", family=family, sent=n, ok=n,  # type: ignore[arg-type]
                    latency_p50_ns=200_000, latency_p99_ns=900_000, latency_max_ns=2 * MS, **self.where("probe"),
                )  # fmt: skip

    def events(self) -> list[e.Event]:
        """The agent's own events, without the drill's header and summary."""
        return [*self.tools(), *self.rules(), *self.calendar(), *self.traffic(), *self.extra]

    def log(self) -> list[e.Event]:
        return [self.header(), *self.events(), e.Summary(t=at(self.end + 1), tool="drill")]

    # --- what can go wrong ---------------------------------------------------------------------------------------

    def gap(self, begin: float, length: float, *, family: str = "ipv4", writer: e.Writer | None = IPTABLES) -> Drill:
        """A gap of the rules, without losses."""
        network = "10.42.0.0/16" if family == "ipv4" else "fd42::/48"
        here = self.where("watch")
        why = "chain FLANNEL-POSTRTG has no rule"
        end = begin + length
        self.extra += [
            e.Change(
                t=at(begin), family=family, backend="nft", table="nat", writer=writer, removed=6,  # type: ignore[arg-type]
                summary="flush chain FLANNEL-POSTRTG", **here,
            ),
            e.RuleState(
                t=at(begin), family=family, network=network, state="not_carried", reason=why, writer=writer, **here  # type: ignore[arg-type]
            ),
            e.RuleState(t=at(end), family=family, network=network, state="carried", writer=writer, **here),  # type: ignore[arg-type]
            e.Gap(
                t=at(end), family=family, network=network, begin=at(begin), end=at(end), reason=why,  # type: ignore[arg-type]
                opened_by=writer, closed_by=writer, **here,
            ),
        ]  # fmt: skip
        return self

    def lose(
        self, t: float, sport: int = 40000, *, cause: e.Cause = "timeout", family: str = "ipv4", stream: str = "probe"
    ) -> Drill:
        """A failed attempt that its interval counts."""
        src = "10.42.1.10" if family == "ipv4" else "fd42:0:0:1::10"
        dst = FAR if family == "ipv4" else "2001:db8:ffff::1"
        self.extra += [
            e.Loss(
                t=at(t), kind="tcp", family=family, src=src, sport=sport, dst=dst, dport=7, planned=at(t),  # type: ignore[arg-type]
                end=at(t + 1), cause=cause, tries=2, **self.where(stream),
            ),
            e.Attempts(
                t=at(t), interval_ns=S // 10, kind="tcp", family=family, sent=1, ok=0, lost=1,  # type: ignore[arg-type]
                **self.where(stream),
            ),
        ]  # fmt: skip
        return self

    def leak(self, t: float, sport: int = 40000) -> Drill:
        """A packet at the far end with the pod's address."""
        self.extra.append(
            e.Leak(
                t=at(t), kind="tcp", family="ipv4", src="10.42.1.10", sport=sport, dst=FAR, dport=7,
                **self.where("farend"),
            )
        )  # fmt: skip
        return self

    def knock(self, t: float, seconds: float, sport: int = 40000, *, recovered: bool = True) -> Drill:
        """What became of a flow that was lost at ``t``."""
        self.extra.append(
            e.Recovery(
                t=at(t + seconds), kind="tcp", family="ipv4", src="10.42.1.10", sport=sport, dst=FAR, dport=7,
                begin=at(t), duration_ns=round(seconds * S), recovered=recovered, **self.where("probe"),
            )
        )  # fmt: skip
        return self

    def without(self, unwanted: Callable[[e.Event], bool]) -> list[e.Event]:
        """The log, but for some events."""
        return [event for event in self.log() if not unwanted(event)]


def outage_drill(agent: str = "flannel-0.28") -> Drill:
    """What flannel 0.28 does: a gap of 55 ms a restart, 40 connections poisoned and 10 lost in each."""
    drill = Drill(agent=agent)
    for number in (1, 2):
        begin = 2.0 * number + 0.25
        drill.gap(begin, 0.055)
        for index in range(50):
            t, sport = begin + 0.001 * index, 40000 + 1000 * number + index
            drill.lose(t, sport).leak(t + 0.0001, sport)
            if index < 40:
                drill.leak(t + 1.02, sport).knock(t, 3.0, sport, recovered=index % 2 == 0)
    return drill


def table_of(*drills: Drill, judge: str = "") -> list[e.Event]:
    """One log of several agents."""
    names = [drill.agent for drill in drills]
    first = drills[0]
    first.config = {**first.config, "agents": names, "judge": judge or names[-1]}
    events = [event for drill in drills for event in drill.events()]
    return [first.header(), *events, e.Summary(t=at(30), tool="drill")]
