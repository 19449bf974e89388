"""The codec of netlink messages refuses what it cannot encode."""

from __future__ import annotations

import pytest

from hitless.errors import KernelError
from hitless.kernel import netlink


def test_an_attribute_that_is_too_long_is_refused_and_not_cut() -> None:
    longest = bytes(0xFFFF - 4)
    assert netlink.attributes(netlink.attribute(1, longest)) == {1: longest}
    for write in (netlink.attribute, netlink.nested):
        with pytest.raises(KernelError, match="65,536 bytes"):
            write(1, longest + b"\0")
    with pytest.raises(KernelError):
        netlink.text(1, "x" * 70_000)
