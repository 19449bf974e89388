"""A group of commands that takes options before and after the verb: ``lab --name X up``, ``lab up --name X``."""

from __future__ import annotations

import click

__all__ = ["Group"]


class Group(click.Group):
    """Moves options in front of the verb behind it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words, front = list(args), list[str]()
        while words and words[0].startswith("-") and words[0] not in ("-h", "--help", "--"):
            word = words.pop(0)
            front.append(word)
            if "=" not in word and words and self._takes_value(word):
                front.append(words.pop(0))
        if front and not words and all(self._known(word) for word in front if word.startswith("-")):
            ctx.fail(f"names no command (expected {', '.join(self.commands)})")
        return super().parse_args(ctx, [words[0], *front, *words[1:]] if words else front)

    def _known(self, word: str) -> bool:
        name = word.partition("=")[0]
        return any(name in (*one.opts, *one.secondary_opts) for each in self.commands.values() for one in each.params)

    def _takes_value(self, word: str) -> bool:
        options = [one for each in self.commands.values() for one in each.params if isinstance(one, click.Option)]
        return any(word in one.opts and not one.is_flag and not one.count for one in options)
