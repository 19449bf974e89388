"""docs/watch.md: its profile is one, and its table names every field."""

from __future__ import annotations

import re
from pathlib import Path

from hitless.model.families import Backend
from hitless.profiles import File, TableOfInterest
from hitless.semantics import witnesses
from hitless.watch import parse, shipped

TEXT = (Path(__file__).parents[3] / "docs/watch.md").read_text()


def test_the_profile_of_the_document_is_one_and_its_witnesses_go_where_it_says() -> None:
    [text] = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    profile = parse(text, "my-cni.toml")
    assert profile.backends == {Backend.NFT, Backend.NFTABLES}
    packets = witnesses(profile.networks[0], inside=profile.inside, far_ends=profile.far_ends, destinations=1)
    assert {str(packet.dst) for packet in packets} == {"198.51.100.77", "8.8.8.8"}
    assert [
        str(packet.dst) for packet in witnesses(profile.networks[1], far_ends=profile.far_ends, protocols=(6,))
    ] == ["2001:4860:4860::8888"]


def test_every_field_and_every_shipped_profile_is_told() -> None:
    named = set(re.findall(r"`(\w[\w-]*)`", TEXT))
    assert {*File.__struct_fields__, *TableOfInterest.__struct_fields__, *shipped()} <= named
