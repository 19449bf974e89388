"""Which rules are the primary's: the agents that the guard knows, and profiles that people write.

Problem: a nat table holds the rules of many; only those that translate pods' sources on their way out are the
primary's decision. Promise: a ``Primary`` names the chains (and nft tables) in which the decision stands, and where the
agent states its intention; built-in ones for flannel, Canal, Cilium, ip-masq-agent, kindnet and Calico, and TOML files:

    name = "my-cni"
    chains = ["nat/MY-MASQ"]          # TABLE/CHAIN, both backends of iptables and nft tables alike
    networks = ["10.42.0.0/16"]       # optional: where the rules do not name the pods' networks as sources
    processes = ["my-agentd"]         # optional: whose command line may say that masquerading is off
    subnet_files = ["/run/flannel/subnet.env"]

Next stage: ``learning``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hitless.errors import InputError
from hitless.kernel import files
from hitless.model import reading
from hitless.model.documents import decoded
from hitless.model.families import Network

__all__ = ["PRIMARIES", "Primary", "load"]


@dataclass(frozen=True, slots=True)
class Primary:
    """An agent whose masquerading is backed. ``chains`` are (table, chain) pairs."""

    name: str
    chains: tuple[tuple[str, str], ...]
    networks: tuple[Network, ...] = ()
    processes: tuple[str, ...] = ()
    subnet_files: tuple[str, ...] = ()
    forward: tuple[str, ...] = ()  # words by which a drop in forward is laid to the agent, for reports


_FLANNEL = Primary(
    "flannel",
    (
        ("nat", "FLANNEL-POSTRTG"),
        ("flannel-ipv4", "postrtg"),
        ("flannel-ipv6", "postrtg"),
    ),
    processes=("flanneld",),
    subnet_files=("/run/flannel/subnet.env",),
    forward=("FLANNEL-FWD",),
)

PRIMARIES: Mapping[str, Primary] = {
    each.name: each
    for each in (
        _FLANNEL,
        replace(_FLANNEL, name="canal"),
        Primary("cilium", (("nat", "CILIUM_POST_nat"),)),
        Primary("ip-masq-agent", (("nat", "IP-MASQ-AGENT"), ("nat", "IP-MASQ"))),
        Primary("kindnet", (("nat", "KIND-MASQ-AGENT"), ("kindnet-ipmasq", "postrouting"))),
        Primary("calico", (("nat", "cali-nat-outgoing"), ("calico", "nat-cali-nat-outgoing"))),
    )
}
"""Built-in profiles by name."""

_LONGEST = 1 << 20
_FIELDS = {"name", "chains", "networks", "processes", "subnet_files"}


def load(name: str) -> Primary:
    """A built-in primary by its name, or the profile file of that path. Raises ``InputError``."""
    if name in PRIMARIES:
        return PRIMARIES[name]
    path = Path(name)
    if "/" not in name and path.suffix != ".toml":
        raise InputError(f"there is no profile {name}", where="--profile", expected=f"{', '.join(PRIMARIES)} or a file")
    try:
        raw = decoded(lambda: tomllib.loads(files.read_text(path, most=_LONGEST)))
    except OSError as error:
        raise InputError(error.strerror or str(error), where=name, expected="a profile that can be read") from error
    except ValueError as error:  # TOML's errors, those of text, and what nests too deep
        raise InputError(str(error), where=name, expected="a TOML file") from error
    if unknown := raw.keys() - _FIELDS:
        raise InputError(f"unknown field {min(unknown)}", where=name, expected=", ".join(sorted(_FIELDS)))
    texts = {field: _texts(raw, field, name) for field in _FIELDS - {"name"}}
    if not texts["chains"]:
        raise InputError("no chain is named", where=f"{name}: chains", expected='e.g. ["nat/MY-MASQ"]')
    title = raw.get("name", path.stem)
    if not isinstance(title, str):
        raise InputError("not a text", where=f"{name}: name", expected="a text")
    return Primary(
        title,
        tuple(_chain(text, name) for text in texts["chains"]),
        tuple(reading.network(text, where=f"{name}: networks") for text in texts["networks"]),
        texts["processes"],
        texts["subnet_files"],
    )


def _texts(raw: Mapping[str, object], field: str, where: str) -> tuple[str, ...]:
    value = raw.get(field, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InputError("not a list of texts", where=f"{where}: {field}", expected="a list of texts")
    return tuple(value)


def _chain(text: str, where: str) -> tuple[str, str]:
    table, slash, chain = text.partition("/")
    if not (table and slash and chain):
        raise InputError(f"{text!r} names no chain", where=f"{where}: chains", expected="TABLE/CHAIN")
    return table, chain
