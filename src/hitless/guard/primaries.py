"""Which rules are the primary's: the agents that the guard knows, and profiles that users write.

Problem: a nat table holds the rules of many; only those that translate the sources of pods' outgoing packets are the
primary's decision. Promise: a ``Primary`` names the chains (and nft tables) that hold the decision, and where the
agent states its intention; it is read from the plugin's profile (``hitless.profiles``), ours or of users. Next stage:
``standby_rules``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hitless import profiles
from hitless.errors import InputError
from hitless.kernel import files
from hitless.model import reading
from hitless.model.families import Network

__all__ = ["Primary", "load", "names"]

_LONGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class Primary:
    """An agent whose masquerading is backed. ``chains`` are (table, chain) pairs."""

    name: str
    chains: tuple[tuple[str, str], ...]
    networks: tuple[Network, ...] = ()
    processes: tuple[str, ...] = ()
    subnet_files: tuple[str, ...] = ()
    forward: tuple[str, ...] = ()  # texts in a forward drop's rule by which reports attribute it to the agent


def names() -> tuple[str, ...]:
    """The built-in ones."""
    return profiles.names()


def load(name: str) -> Primary:
    """A built-in primary by its name or that of one of its modes, or the profile file of that path. Raises
    ``InputError``."""
    for plugin in profiles.names():
        if name == plugin or name in {mode.name for mode in profiles.shipped(plugin).modes}:
            return _primary(profiles.shipped(plugin), plugin)  # its chains are those of all of its modes
    path = Path(name)
    if "/" not in name and path.suffix != ".toml":
        expected = f"{', '.join(profiles.names())} or a file"
        raise InputError(f"there is no profile {name}", where="--profile", expected=expected)
    try:
        text = files.read_text(path, most=_LONGEST)
    except OSError as error:
        raise InputError(error.strerror or str(error), where=name, expected="a profile that can be read") from error
    except ValueError as error:  # no text
        raise InputError(str(error), where=name, expected="a TOML file") from error
    return _primary(profiles.parse(text, name), name)


def _primary(file: profiles.File, where: str) -> Primary:
    if not file.chains:
        raise InputError("no chain is named", where=f"{where}: chains", expected='e.g. ["nat/MY-MASQ"]')
    return Primary(
        file.name or Path(where).stem,
        tuple(_chain(text, where) for text in file.chains),
        tuple(reading.network(text, where=f"{where}: networks") for text in file.networks),
        file.processes,
        file.subnet_files,
        file.forward,
    )


def _chain(text: str, where: str) -> tuple[str, str]:
    table, slash, chain = text.partition("/")
    if not (table and slash and chain):
        raise InputError(f"{text!r} names no chain", where=f"{where}: chains", expected="TABLE/CHAIN")
    return table, chain
