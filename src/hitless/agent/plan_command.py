"""``hitless agent plan`` and ``cleanup``: the exact text that would be sent, and the agent's only removal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hitless.agent.judging import Judging
from hitless.agent.node import AllRules, Node
from hitless.agent.running import first_snapshot
from hitless.agent.runtime import SYSTEM
from hitless.agent.worker import Worker
from hitless.errors import InputError
from hitless.model.families import Backend, Family
from hitless.model.state import Place, Purpose
from hitless.plan import Note, Plan, cleanup
from hitless.sources import Options, Snapshot, read_netconf

__all__ = ["cleanup_text", "plan_text", "render"]


def plan_text(options: Options, *, as_json: bool) -> str:
    """What a start with these options would change now; changes nothing."""
    netconf = read_netconf(Path(options.netconf), options.netconf_text)
    snapshot = first_snapshot(options, netconf)
    if snapshot is None:
        snapshot = _ask_kubernetes(options)
    worker = Worker(Node(), options.backend, SYSTEM)
    try:
        backend = worker.backend(native=netconf.nftables)
        made = worker.plan(snapshot, backend)
        if not made.transactions:
            made = replace(made, notes=(*made.notes, *_cut_off(snapshot, backend, made)))
        return render(made, backend, as_json=as_json, unused=netconf.unused)
    finally:
        worker.close()


def _cut_off(snapshot: Snapshot, backend: Backend, made: Plan) -> list[Note]:
    """What keeps the pods from the outside although every rule of ours stands, as far as the plan does not say it."""
    with contextlib.closing(Judging(AllRules(), SYSTEM)) as judging:
        found = judging.judge(snapshot) or {}
    said = {note.place.family for note in made.notes if note.refusal}
    return [
        Note(Place(backend, family, Purpose.FORWARD), answer.why, refusal=True)
        for family, answer in found.items()
        if answer.state == "not_carried" and family not in said
    ]


def cleanup_text(options: Options, *, as_json: bool) -> str:
    """Remove everything of ours, in every backend and family; foreign rules stay. Returns what was done."""
    node = Node(lock_wait=options.lock_wait)
    try:
        removal = cleanup(node.observe(tuple(Family)))
        for transaction in removal.transactions:
            node.apply(transaction)
        return render(removal, None, as_json=as_json)
    finally:
        node.close()


def render(plan: Plan, backend: Backend | None, *, as_json: bool, unused: Sequence[str] = ()) -> str:
    """A plan for people, or as one JSON object (``schema`` 1). ``unused``: fields of net-conf.json without effect."""
    if as_json:
        return json.dumps(
            {
                "schema": 1,
                "backend": backend.value if backend else None,
                "transactions": [
                    {
                        "program": transaction.program,
                        "table": transaction.table,
                        "family": transaction.family.value,
                        "removes": transaction.removes,
                        "changes": [
                            {"place": str(change.place), "what": change.what, "reason": change.reason}
                            for change in transaction.changes
                        ],
                        "text": transaction.text,
                    }
                    for transaction in plan.transactions
                ],
                "notes": [
                    {"place": str(note.place), "text": note.text, "refusal": note.refusal} for note in plan.notes
                ],
                "unused": list(unused),
            },
            indent=2,
        )
    lines: list[str] = []
    for transaction in plan.transactions:
        lines.append(f"# {transaction.program}")
        lines += [f"#   {change.place}: {change.what}: {change.reason}" for change in transaction.changes]
        lines += [transaction.text]
    lines += [f"# {'cut off' if note.refusal else 'kept'}: {note.place}: {note.text}" for note in plan.notes]
    lines += [f"# no effect: {field}" for field in unused]
    return "\n".join(lines if plan.transactions else ["nothing to do", *lines])


def _ask_kubernetes(options: Options) -> Snapshot:
    from hitless.sources.kubernetes import NodeSource
    from hitless.sources.snapshot import snapshot_from

    source = NodeSource.from_options(options)
    subnets = source.subnets()
    if not subnets:
        raise InputError("has no subnet", where=str(source), expected="spec.podCIDRs")
    return snapshot_from(
        read_netconf(Path(options.netconf), options.netconf_text),
        subnets,
        masquerade=options.masquerade,
        random_fully=options.random_fully,
        forward=options.forward,
        origin=str(source),
    )
