"""The records of a watch that are not decided by rules: header, changes, summary. Next stage: ``loop``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

from hitless import __version__
from hitless.kernel import machine
from hitless.model.events import Change, Header, Summary
from hitless.model.families import Backend, Family
from hitless.watch.feeds import ChangedTable, Step
from hitless.watch.heartbeat import TOOL, Totals
from hitless.watch.networks import Networks
from hitless.watch.options import WatchOptions

__all__ = ["changes", "header", "summary"]


def header(
    now: int, options: WatchOptions, networks: Networks, *, families: Sequence[Family], backends: Sequence[Backend],
    legacy: bool, named: bool,
) -> Header:  # fmt: skip
    """What is watched, by which program, on which machine. ``legacy``: iptables-legacy has tables; ``named``: the
    networks come from the options or the profile."""
    config = {
        "profile": options.profile.name,
        "families": [family.value for family in families],
        "backends": sorted(backend.value for backend in backends),
        "legacy_tables": legacy,
        "networks": [str(watched.network) for watched in networks],
        "networks_from": ("option" if options.networks else "profile") if named else "rules",
        "namespace": options.namespace.name,
        "witnesses": {str(each.network): each.judge.witnesses.texts for each in networks},
        "interfaces": {str(each.network): each.judge.witnesses.interfaces for each in networks},
        "pods": {str(each.network): len(each.judge.witnesses.pods) for each in networks},
    }
    return Header(t=now, tool=TOOL, version=__version__, pid=os.getpid(), config=config, machine=machine.kernel())


def changes(step: Step, change: ChangedTable, families: Sequence[Family], *, relevant: bool) -> Iterator[Change]:
    """One table's part of a commit, for each family that it concerns."""
    concerned = families if change.family == "inet" else (Family.IPV4 if change.family == "ip" else Family.IPV6,)
    for family in concerned:
        yield Change(
            t=step.t,
            family=family.value,
            backend=change.backend.value,
            table=change.table,
            writer=step.writer,
            generation=step.generation,
            added=change.added,
            removed=change.removed,
            summary=change.summary,
            relevant=relevant,
        )


def summary(now: int, networks: Networks, totals: Totals) -> Summary:
    """The end of the stream: what was counted."""
    trackers = [watched.tracker for watched in networks]
    return Summary(
        t=now,
        tool=TOOL,
        totals={
            "commits": totals.commits,
            "changes": totals.changes,
            "relevant": totals.relevant,
            "evaluations": totals.evaluations,
            "gaps": sum(tracker.gaps for tracker in trackers),
            "gap_ns": sum(tracker.gap_ns for tracker in trackers),
            "longest_gap_ns": max((tracker.longest_ns for tracker in trackers), default=0),
            "lost_events": totals.lost_events,
            "resyncs": totals.resyncs,
            "verified": totals.verified,
            "max_lag_ns": totals.max_lag_ns,
            "cpu_ns": time.process_time_ns(),
        },
    )
