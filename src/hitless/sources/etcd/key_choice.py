"""Which key a node takes in etcd: its own, an earlier one, or a free one.

Problem: two nodes with one subnet take each other's traffic, and the pods of a node that comes back with another subnet
cannot be reached. Promise: first the key whose value has this node's address, then the subnets of --node-subnet, then
those of subnet.env, then a random one of the first hundred that are free, so that nodes that start together seldom
choose the same. Pure; the random choice is passed in. Next stage: ``source``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from hitless.errors import InputError
from hitless.model.documents import from_json
from hitless.model.families import Address, Family, Network, family_of
from hitless.sources.attributes import MOST
from hitless.sources.cuts import Cut
from hitless.sources.etcd.keys import key_of, subnets_of

__all__ = ["HeldKey", "choose", "held_by", "mine", "overlap"]

_CANDIDATES = 100  # flannel's number


@dataclass(frozen=True, slots=True)
class HeldKey:
    """What is kept of each key: the addresses in its value, a hash of the value, and etcd's lease and revisions."""

    public: tuple[str, str]
    mark: int
    lease: int
    created: int
    modified: int


def held_by(value: bytes, lease: int, created: int, modified: int) -> HeldKey:
    """What is kept of a key; an invalid value has no address."""
    try:
        fields = from_json(value, most=MOST)
        lower = {str(key).lower(): one for key, one in fields.items()} if isinstance(fields, Mapping) else {}
    except ValueError:
        lower = {}
    four, six = (text if isinstance(text := lower.get(name), str) else "" for name in ("publicip", "publicipv6"))
    return HeldKey((four, six), hash(value), lease, created, modified)


def mine(held: Mapping[str, HeldKey], address: Address) -> list[str]:
    """Keys whose value has this address, the oldest first."""
    at, text = 0 if address.version == 4 else 1, str(address)
    return sorted((key for key, one in held.items() if one.public[at] == text), key=lambda key: held[key].created)


def choose(
    held: Iterable[str],
    cuts: Mapping[Family, Cut],
    given: Sequence[Network],
    previous: Sequence[Network],
    lost: Iterable[str],
    pick: Callable[[Sequence[Network]], Network],
) -> str:
    """A key that is free. Raises ``InputError`` where there is none. ``lost``: keys that other nodes took meanwhile."""
    taken: dict[Family, list[Network]] = {family: [] for family in Family}
    for key in (*held, *lost):
        for family, subnet in subnets_of(key).items():
            taken[family].append(subnet)
    chosen: dict[Family, Network] = {}
    for family, cut in cuts.items():
        wanted = next((one for one in given if family_of(one) is family), None)
        if wanted is not None:
            if any(overlap(wanted, other) for other in taken[family]):
                raise InputError(f"{wanted} is held by another node", where="--node-subnet", expected="a free subnet")
            chosen[family] = wanted
            continue
        before = next((one for one in previous if family_of(one) is family and cut.fits(one)), None)
        if before is not None and not any(overlap(before, other) for other in taken[family]):
            chosen[family] = before
            continue
        free = list(islice(cut.free(taken[family]), _CANDIDATES))
        if not free:
            message = f"no subnet of {cut.network} is free"
            raise InputError(message, where="etcd", expected="a larger network, or fewer nodes")
        chosen[family] = pick(free)
    return key_of(chosen)


def overlap(one: Network, other: Network) -> bool:
    """Whether two networks of one family have an address in common."""
    return int(one.network_address) <= int(other.broadcast_address) and int(other.network_address) <= int(
        one.broadcast_address
    )
