"""A group of commands that takes options before and after the verb: ``lab --name X up``, ``lab up --name X``."""

from __future__ import annotations

import click

__all__ = ["Group"]


class Group(click.Group):
    """Moves options in front of the verb behind it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest, front = list(args), list[str]()
        while rest and rest[0].startswith("-") and rest[0] not in ("-h", "--help", "--"):
            token = rest.pop(0)
            front.append(token)
            if "=" not in token and rest and self._takes_value(token):
                front.append(rest.pop(0))
        if front and not rest and all(self._known(token) for token in front if token.startswith("-")):
            ctx.fail(f"names no command (expected {', '.join(self.commands)})")
        return super().parse_args(ctx, [rest[0], *front, *rest[1:]] if rest else front)

    def _known(self, token: str) -> bool:
        name = token.partition("=")[0]
        return any(name in (*one.opts, *one.secondary_opts) for each in self.commands.values() for one in each.params)

    def _takes_value(self, token: str) -> bool:
        options = [one for each in self.commands.values() for one in each.params if isinstance(one, click.Option)]
        return any(token in one.opts and not one.is_flag and not one.count for one in options)
