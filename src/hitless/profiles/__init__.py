"""Network plugins as data: a plugin is one file, and everything that differs between them is in it.

Problem: every plugin names its chains, images and processes differently; written where each tool uses them, a new
plugin was six to eight files in two dialects. Promise: a profile is a TOML file, ours or of users (docs/watch.md,
docs/guard.md); one that does not parse is refused whole, with the file, the line or field and what was expected. It
names what to read and never decides what is right: the evaluator does. Next stages: ``hitless.watch.profiles``,
``hitless.guard.primaries``, ``hitless.survey``, ``hitless.advice``.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from hitless.errors import InputError
from hitless.kernel import files
from hitless.model.documents import DocumentTooLarge, decoded

__all__ = [
    "Cluster",
    "File",
    "Installed",
    "Mode",
    "TableOfInterest",
    "clusters",
    "expected",
    "names",
    "parse",
    "place",
    "shipped",
]

_FOLDER = Path(__file__).parent


class TableOfInterest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table and the chains in it whose every change is reported; ``networks_from``: chains whose masquerade rules
    name the pod networks."""

    name: str
    chains: tuple[str, ...] = ()
    networks_from: tuple[str, ...] = ()


class Mode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another form in which the same plugin writes its rules; the watch has a name for it."""

    name: str
    description: str
    backends: tuple[Literal["nft", "legacy", "nftables"], ...]
    pod_interfaces: tuple[str, ...]
    tables: tuple[TableOfInterest, ...]


class Installed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the project's own manifest installs, for advice where there is no cluster to read."""

    namespace: str
    daemon_set: str
    config_map: str = ""
    keeps_run_flannel: bool = False
    grace: int | None = None


class Cluster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the plugin is known in a cluster and on a node.

    ``title`` is its name for users. ``images`` and ``commands``: texts in the image or the command line of its
    container; the lower ``precedence`` counts where a cluster has several. ``of``, ``beside``: it is the plugin ``of``
    in a DaemonSet that has a container of the plugin ``beside`` too. ``net_conf``: a ConfigMap of it holds flannel's
    net-conf.json. ``programs``: its processes. ``nftables``: the mode that it is in where net-conf.json says
    EnableNFTables. ``translates_between_nodes``: flows of pods to other nodes' addresses are masqueraded.
    """

    title: str
    images: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    precedence: int = 100
    of: str = ""
    beside: str = ""
    net_conf: bool = False
    nftables: str = ""
    programs: tuple[str, ...] = ()
    translates_between_nodes: bool = True
    installed: Installed | None = None

    @property
    def seen_as_container(self) -> bool:
        """Whether a container by itself tells it."""
        return bool(self.images or self.commands)


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A profile file, field by field; what is checked beside the types is where a field is read."""

    name: str = ""
    tables: tuple[TableOfInterest, ...] = ()
    description: str = ""
    backends: tuple[Literal["nft", "legacy", "nftables"], ...] = ("nft", "legacy", "nftables")
    families: tuple[Literal["ipv4", "ipv6"], ...] = ("ipv4", "ipv6")
    networks: tuple[str, ...] = ()
    cluster_networks: tuple[str, ...] = ()
    protocols: tuple[Literal["tcp", "udp", "icmp"], ...] = ("tcp", "udp", "icmp")
    destinations: int = 2
    far_ends: tuple[str, ...] = ()
    pod_interfaces: tuple[str, ...] = ()
    uplink: str = ""
    marks: tuple[int, ...] = (0,)
    chains: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    subnet_files: tuple[str, ...] = ()
    forward: tuple[str, ...] = ()
    modes: tuple[Mode, ...] = ()
    cluster: Cluster | None = None


@cache
def names() -> tuple[str, ...]:
    """The plugins that are known."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


@cache
def clusters() -> dict[str, Cluster]:
    """What runs in clusters, by the plugins' names, the most telling first."""
    found = {name: file.cluster for name in names() if (file := shipped(name)).cluster is not None}
    return dict(sorted(found.items(), key=lambda one: one[1].precedence))


@cache
def shipped(name: str) -> File:
    """The profile of a plugin that is known."""
    return parse(files.read_text(_FOLDER / f"{name}.toml"), f"{name}.toml")


def parse(text: str, origin: str) -> File:
    """A profile from its text; raises ``InputError`` that names ``origin``, line and field."""
    try:
        data = decoded(lambda: tomllib.loads(text))
    except DocumentTooLarge as error:
        raise InputError(str(error), where=origin, expected="a TOML file (docs/watch.md)") from error
    except tomllib.TOMLDecodeError as error:
        message, _, at = str(error).partition(" (at ")
        where = f"{origin}: {at.rstrip(')')}" if at else origin
        raise InputError(message, where=where, expected="a TOML file (docs/watch.md)") from error
    try:
        return msgspec.convert(data, File)
    except msgspec.ValidationError as error:
        raise _refused(str(error), text, origin) from error


_KINDS = {
    "str": "a text",
    "int": "a number",
    "float": "a fraction",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


def _refused(message: str, text: str, origin: str) -> InputError:
    """The parser's error as ours: file, line, field, what is wrong and what was expected."""
    problem, _, path = message.partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    named = re.search(r"field `(\w+)`", problem)
    where = place(text, origin, ".".join(part for part in (field, named[1] if named else "") if part))
    if named and "unknown" in problem:
        shape = TableOfInterest if field.startswith("tables") else File
        known = ", ".join(shape.__struct_fields__)
        return InputError(f"there is no field {named[1]}", where=where, expected=f"one of {known}")
    if named:
        return InputError("it is missing", where=where, expected=expected(named[1]) or "a text")
    got = re.search(r"got `(\w+)`", problem)
    if got:
        return InputError(f"this is {_KINDS.get(got[1], got[1])}", where=where, expected=expected(field) or "a text")
    value = re.search(r"value ('.*')", problem)
    problem = f"{value[1]} is not known" if value else problem[:1].lower() + problem[1:]
    return InputError(problem, where=where, expected=expected(field))


def place(text: str, origin: str, field: str) -> str:
    """File, line and field; the line is that of the field's first mention, when it has one."""
    key = re.sub(r"\[.*?\]", "", field).rsplit(".", 1)[-1]
    if key:
        pattern = re.compile(rf"^\s*(\[+\s*)?{re.escape(key)}\b")
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.match(line):
                return f"{origin}: line {number}: {field}"
    return f"{origin}: {field}" if field else origin


def expected(field: str) -> str | None:
    """What would be right in a field, for users."""
    key = re.sub(r"\[.*?\]", "", field).rsplit(".", 1)[-1]
    return {
        "backends": 'a list of "nft", "legacy", "nftables"',
        "families": 'a list of "ipv4", "ipv6"',
        "protocols": 'a list of "tcp", "udp", "icmp"',
        "networks": 'a list of networks, such as ["10.42.0.0/16"]',
        "cluster_networks": 'a list of networks, such as ["10.43.0.0/16"]',
        "pod_interfaces": 'a list of names, such as ["veth+"]',
        "marks": "a list of numbers from 0 to 0xffffffff",
        "destinations": "1, 2 or 3",
        "far_ends": 'a list of addresses outside of the cluster, such as ["8.8.8.8"]',
        "chains": 'a list of texts, such as ["POSTROUTING"] in a table, or ["nat/MY-MASQ"] outside',
        "processes": 'a list of program names, such as ["my-agentd"]',
        "subnet_files": 'a list of paths, such as ["/run/flannel/subnet.env"]',
        "networks_from": 'a list of chain names, such as ["FLANNEL-POSTRTG"]',
        "tables": 'tables of interest: [[tables]] with name = "nat" and chains = ["POSTROUTING"]',
    }.get(key)
