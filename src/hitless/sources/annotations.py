"""flannel's annotations of a Node object: reading those of peers, and computing this node's own.

Problem: one invalid family makes flannel ignore the whole node; it misses a change in one family. Promise: ``lease_of``
reads both families independently and names what is wrong; ``wanted`` computes what flannel would have written, byte for
byte (its pkg/subnet/kube/kube.go, AcquireLease), with its rules for public-ip-overwrite and for nodes without IPv4.
Pure. Next stage: ``nodes``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hitless.errors import InputError
from hitless.model import reading
from hitless.model.documents import from_json
from hitless.model.families import Address, Family, Network, family_of
from hitless.model.leases import BackendType, Lease
from hitless.sources.attributes import MOST, backend_data, backend_type, endpoints
from hitless.sources.lease_source import Offer

__all__ = ["PREFIX", "AnnotationNames", "addresses_of", "lease_of", "pod_networks", "wanted"]

PREFIX = "flannel.alpha.coreos.com/"
_MOST_SUBNETS = 16  # Kubernetes allows one for each family


@dataclass(frozen=True, slots=True)
class AnnotationNames:
    """The annotations' names under a prefix (which ends in ``/`` or ``-``)."""

    prefix: str = PREFIX

    @property
    def managed(self) -> str:
        return f"{self.prefix}kube-subnet-manager"

    @property
    def type(self) -> str:
        return f"{self.prefix}backend-type"

    def data(self, family: Family) -> str:
        return f"{self.prefix}backend-{'v6-' if family is Family.IPV6 else ''}data"

    def public(self, family: Family) -> str:
        return f"{self.prefix}public-ip{'v6' if family is Family.IPV6 else ''}"

    def overwrite(self, family: Family) -> str:
        return f"{self.public(family)}-overwrite"

    def chosen(self, family: Family) -> str:
        """An address configured for the node, which overrides --public-ip."""
        return f"{self.prefix}node-public-ip{'v6' if family is Family.IPV6 else ''}"


def pod_networks(cidrs: Sequence[str] | None, cidr: str | None) -> tuple[dict[Family, Network], str]:
    """A node's subnets, the first of each family, and what is wrong with them."""
    found: dict[Family, Network] = {}
    try:
        for text in (cidrs or ([cidr] if cidr else []))[:_MOST_SUBNETS]:
            # as flannel reads them: the address may be any of the subnet's
            network = reading.network(text, where="spec.podCIDRs", host_bits=True)
            found.setdefault(family_of(network), network)
    except InputError as error:
        return {}, str(error)
    return found, "" if found else "no podCIDR yet (kube-controller-manager --allocate-node-cidrs)"


def lease_of(
    node: str,
    annotations: Mapping[str, str],
    subnets: Mapping[Family, Network],
    names: AnnotationNames,
    families: Collection[Family],
) -> tuple[Lease | None, str]:
    """A node's lease, and what is wrong with it; neither for a node that flannel does not manage."""
    if annotations.get(names.managed) != "true":
        return None, ""
    try:
        backend = backend_type(annotations.get(names.type, ""), names.type)
    except InputError as error:
        return None, str(error)
    public = {family: annotations.get(names.public(family), "") for family in Family}
    data: dict[Family, object] = {}
    wrong: list[str] = []
    served = {family: subnet for family, subnet in subnets.items() if family in families}
    for family in list(served):
        if backend in (BackendType.VXLAN, BackendType.WIREGUARD):
            text = annotations.get(names.data(family), "")
            try:
                data[family] = from_json(text, most=MOST)
            except ValueError as error:
                del served[family]
                why = f"no JSON ({error})" if text else "is not there"
                wrong.append(f"{family.value}: {names.data(family)}: {why}")
    found, why_not = endpoints(backend, served, public, data)
    wrong += why_not
    wrong += [f"{family.value}: no podCIDR" for family in families if family not in subnets]
    return (Lease(node, backend, found) if found else None), "; ".join(wrong)


def addresses_of(
    annotations: Mapping[str, str], names: AnnotationNames
) -> tuple[dict[Family, Address], tuple[str, ...]]:
    """node-public-ip and node-public-ipv6, and what is wrong with them."""
    found: dict[Family, Address] = {}
    wrong: list[str] = []
    for family in Family:
        if text := annotations.get(names.chosen(family), ""):
            try:
                found[family] = reading.address(text, where=names.chosen(family), family=family)
            except InputError as error:
                wrong.append(str(error))
    return found, tuple(wrong)


def wanted(
    offer: Offer, annotations: Mapping[str, str], names: AnnotationNames
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The annotations of this node that must change, with their values, and what is wrong with overwrites.

    A backend other than vxlan always writes the IPv4 pair (``null`` and 0.0.0.0 on a node without IPv4); the IPv6 pair
    needs an IPv6 address.
    """
    values = {names.type: offer.backend.value, names.managed: "true"}
    wrong: list[str] = []
    for family in Family:
        reach = offer.reach.get(family)
        text = backend_data(offer.backend, reach)
        public = reach.public_ip if reach is not None and family_of(reach.public_ip) is family else None
        if family is Family.IPV4 and text == "null" and offer.backend is BackendType.VXLAN:
            continue
        if family is Family.IPV6 and (public is None or offer.backend is BackendType.ALLOC):
            continue
        values[names.data(family)] = text
        address = "0.0.0.0" if public is None else str(public)
        if overwrite := annotations.get(names.overwrite(family), ""):
            try:
                reading.address(overwrite, where=names.overwrite(family), family=family)
                address = overwrite
            except InputError as error:
                wrong.append(str(error))
        values[names.public(family)] = address
    return {name: text for name, text in values.items() if annotations.get(name) != text}, tuple(wrong)
