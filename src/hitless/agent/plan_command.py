"""``hitless agent plan`` shows the exact text that a start would write; ``cleanup`` removes what is ours."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hitless.agent.daemon import first_snapshot, snapshot_of
from hitless.agent.judge import NodeJudge
from hitless.agent.node import AgentNode, AllRules
from hitless.agent.overlay.source import has_leases, network_configuration, remembered
from hitless.agent.runtime import SYSTEM
from hitless.agent.worker import RulesWorker
from hitless.cleaning import clean
from hitless.errors import InputError
from hitless.model.families import Backend, Family, Network
from hitless.model.links import LinkChange
from hitless.model.state import Place, Purpose
from hitless.plan import Plan, PlanNote, cleanup
from hitless.sources import Options, SourceSnapshot, read_netconf

__all__ = ["cleanup_text", "plan_text", "render"]


@dataclass(frozen=True, slots=True)
class OverlayPart:
    """Changes of devices, routes and files between nodes."""

    changes: tuple[LinkChange, ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def plan_text(options: Options, *, as_json: bool) -> str:
    """What a start with these options would change now; changes nothing."""
    notes: list[str] = []
    state = remembered(options, notes.append)
    netconf, _ = network_configuration(options, state, notes.append)
    overlay: OverlayPart | None = None
    subnets: tuple[Network, ...] = ()
    if has_leases(options):
        from hitless.agent.overlay.preview import overlay_preview

        preview = overlay_preview(options, netconf, state)
        if preview is not None:
            overlay = OverlayPart(preview.changes, notes=(*notes, *preview.notes))
            subnets = preview.subnets
    snapshot = first_snapshot(options, netconf) if not subnets else snapshot_of(options, netconf, subnets, "leases")
    if snapshot is None:
        snapshot = _ask_kubernetes(options)
    worker = RulesWorker(AgentNode(), options.backend, SYSTEM)
    try:
        backend = worker.backend(native=netconf.nftables)
        made = worker.plan(snapshot, backend)
        if not made.transactions:
            made = replace(made, notes=(*made.notes, *_cut_off(snapshot, backend, made)))
        return render(made, backend, as_json=as_json, unused=netconf.unused, overlay=overlay)
    finally:
        worker.close()


def _cut_off(snapshot: SourceSnapshot, backend: Backend, made: Plan) -> list[PlanNote]:
    """Why pods have no egress although all our rules are in place, where the plan's own notes do not report it."""
    with contextlib.closing(NodeJudge(AllRules(), SYSTEM)) as judging:
        found = judging.judge(snapshot) or {}
    noted = {note.place.family for note in made.notes if note.refusal}
    return [
        PlanNote(Place(backend, family, Purpose.FORWARD), answer.why, refusal=True)
        for family, answer in found.items()
        if answer.state == "not_carried" and family not in noted
    ]


def cleanup_text(options: Options, *, as_json: bool) -> str:
    """Remove everything of ours, in every backend and family, and between nodes; foreign rules stay. Returns a text
    that lists it."""
    node = AgentNode(lock_wait=options.lock_wait)
    try:
        removal = cleanup(node.observe(tuple(Family)))
        for transaction in removal.transactions:
            node.apply(transaction)
    finally:
        node.close()
    overlay = None
    if options.overlay:
        from hitless.agent.overlay.removal import remove_overlay

        gone = remove_overlay(options)
        overlay = OverlayPart(gone.changes, gone.files, gone.notes)
    return render(removal, None, as_json=as_json, overlay=overlay)


def render(
    plan: Plan, backend: Backend | None, *, as_json: bool, unused: Sequence[str] = (),
    overlay: OverlayPart | None = None,
) -> str:  # fmt: skip
    """A plan as text, or as one JSON object (``schema`` 1). ``unused``: fields of net-conf.json without effect."""
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
                "overlay": _overlay_json(overlay),
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
    done = bool(plan.transactions)
    if overlay is not None:
        done = done or bool(overlay.changes or overlay.files)
        lines += ["# overlay"] if overlay.changes or overlay.files else []
        lines += [clean(str(one)) for one in overlay.changes]
        lines += [f"remove {clean(one)}" for one in overlay.files]
        lines += [f"# overlay: {clean(one)}" for one in overlay.notes]
    return "\n".join(lines if done else ["nothing to do", *lines])


def _overlay_json(overlay: OverlayPart | None) -> dict[str, object] | None:
    """``None``: no source of leases is named."""
    if overlay is None:
        return None
    return {
        "changes": [
            {"verb": one.verb.value, "kind": str(one.object.key[0]), "what": str(one.object), "reason": one.reason}
            for one in overlay.changes
        ],
        "files": list(overlay.files),
        "notes": list(overlay.notes),
    }


def _ask_kubernetes(options: Options) -> SourceSnapshot:
    from hitless.sources.kubernetes import NodeSource

    source = NodeSource.from_options(options)
    subnets = source.subnets()
    if not subnets:
        raise InputError("has no subnet", where=str(source), expected="spec.podCIDRs")
    return snapshot_of(options, read_netconf(Path(options.netconf), options.netconf_text), subnets, str(source))
