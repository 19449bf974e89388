"""What a drill was to do, from the header of its log.

Promise: fields of another type than expected are left out, and logs of earlier versions are read too; nothing is
guessed. Next stage: ``records`` groups the events, ``criteria`` compares them with the settings.
"""

from __future__ import annotations

from dataclasses import dataclass

from hitless.model import events as e

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the drill was to do, from its header; empty where the log is a single tool's stream."""

    tool: str = ""
    version: str = ""
    target: str = ""
    agents: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    """The nodes on which each agent was to be restarted, where the header lists them."""
    judged: tuple[str, ...] = ()
    rounds: int = 0
    restart: str = ""
    families: tuple[str, ...] = ()
    rate: int = 0
    far_end: bool = False
    by_traffic: bool = False
    """This agent's rules are not known to hitless: only its traffic is judged."""
    stand_ins: tuple[tuple[str, str], ...] | None = None
    """Agents that replay another program's commands, and what each replays; ``None``: not in the header."""
    evidence: bool = False
    """Whether the steps of restarts have evidence; logs of earlier versions have none."""
    pod_to_pod: bool = False
    """Whether connections between pods of different nodes were to be attempted."""
    mixed: tuple[tuple[str, str], ...] = ()
    """Nodes that ran another agent than the drilled one, and which."""
    texts: tuple[tuple[str, str], ...] = ()
    """All fields of the header's ``config`` as text."""

    @classmethod
    def of(cls, header: e.Header) -> Settings:
        """The settings of a header; what is not of its type is left out rather than guessed."""
        config = header.config

        def text(key: str) -> str:
            value = config.get(key, "")
            return value if isinstance(value, str) else ""

        def number(key: str) -> int:
            value = config.get(key, 0)
            return value if isinstance(value, int) else 0

        def texts(key: str) -> tuple[str, ...]:
            value = config.get(key, ())
            return tuple(str(one) for one in value) if isinstance(value, list | tuple) else ()

        listed = config.get("stand_ins")
        stand_ins = tuple((str(key), str(text)) for key, text in listed.items()) if isinstance(listed, dict) else None
        others = config.get("agents_on")
        mixed = tuple((str(key), str(name)) for key, name in others.items()) if isinstance(others, dict) else ()
        given = {key: value for key, value in sorted(config.items()) if value not in ("", None, [], ())}
        return cls(
            tool=header.tool,
            version=header.version,
            target=text("target"),
            agents=texts("agents"),
            nodes=texts("nodes"),
            # earlier versions wrote "judge" only
            judged=texts("judged") or tuple(filter(None, (text("judge"),))),
            rounds=number("rounds"),
            restart=text("restart"),
            families=texts("families"),
            rate=number("rate"),
            far_end=bool(config.get("far_end", False)),
            evidence=config.get("restart_evidence") is True,
            by_traffic=config.get("judged_by") == "traffic",
            stand_ins=stand_ins,
            pod_to_pod=config.get("pod_to_pod") is True,
            mixed=mixed,
            texts=tuple((key, _as_text(value)) for key, value in given.items()),
        )


def _as_text(value: object) -> str:
    return ", ".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)
