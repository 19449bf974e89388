"""Whose verdict a drill's exit code is."""

from __future__ import annotations

import pytest

from hitless.cli.drill import judged_agents
from hitless.errors import InputError

STANDARD = ["flannel-0.26", "flannel-0.28", "hitless"]


@pytest.mark.parametrize(
    ("asked", "names", "own_agent", "chosen"),
    [
        (None, STANDARD, "", ("hitless",)),
        (None, ["flannel-0.28", "adopter"], "", ("adopter",)),
        (None, ["flannel-0.28", "flannel-0.28+guard"], "", ("flannel-0.28+guard",)),
        (None, ["a", "a+guard", "b", "b+guard", "hitless"], "", ("hitless", "a+guard", "b+guard")),
        # hitless beside it, even in front of it, does not answer for what the user brought
        (None, [*STANDARD, "flanneld"], "flanneld", ("flanneld",)),
        (None, ["hitless", "flanneld", "flanneld+guard"], "flanneld", ("flanneld+guard",)),
        ("flannel-0.28, hitless", STANDARD, "", ("flannel-0.28", "hitless")),
        ("hitless", [*STANDARD, "flanneld"], "flanneld", ("hitless",)),
    ],
)
def test_what_the_user_brought_is_judged(
    asked: str | None, names: list[str], own_agent: str, chosen: tuple[str, ...]
) -> None:
    assert judged_agents(asked, names, own_agent=own_agent) == chosen


@pytest.mark.parametrize("asked", ["cilium", "hitless,cilium", "", ","])
def test_somebody_who_is_not_drilled_is_refused(asked: str) -> None:
    with pytest.raises(InputError, match="--judge"):
        judged_agents(asked, STANDARD, own_agent="")
