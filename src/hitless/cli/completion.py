"""Shell completion for ``hitless guard`` and ``hitless agent``, whose arguments click never parses."""

from __future__ import annotations

import click

__all__ = ["daemon"]


def daemon(name: str) -> click.Command:
    """A command with the daemon's verbs and options, that does nothing."""
    if name == "guard":
        from hitless.cli import guard

        verbs, options, switches = guard.completions()
    else:
        from hitless.sources.flags import FLAGS

        verbs = ["plan", "cleanup"]
        options = [f"--{flag.name}" for flag in FLAGS if flag.kind != "switch"]
        switches = [f"--{flag.name}" for flag in FLAGS if flag.kind == "switch"]
    parameters: list[click.Parameter] = [click.Argument(["verb"], type=click.Choice(verbs), required=False)]
    parameters += [click.Option([one, one.lstrip("-").replace("-", "_")], multiple=True) for one in options]
    parameters += [click.Option([one, one.lstrip("-").replace("-", "_")], is_flag=True) for one in switches]
    return click.Command(name, params=parameters, add_help_option=False)
