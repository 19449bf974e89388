"""A mapping of leases: like a dictionary, and what was handed out never changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hitless.model.leases import BackendType, Lease
from hitless.sources.lease_map import LeaseMap

LEASES = st.builds(Lease, st.text(max_size=2), st.sampled_from(BackendType), st.just({}))
CHANGES = st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.none() | LEASES, max_size=4), max_size=8)


@given(CHANGES)
def test_it_is_the_dictionary_of_all_changes_and_earlier_copies_stay(changes: list[dict[str, Lease | None]]) -> None:
    mapped, model = LeaseMap(), dict[str, Lease]()
    history = [(mapped, dict(model))]
    for change in changes:
        mapped = mapped.changed(change)
        model |= {node: lease for node, lease in change.items() if lease is not None}
        for node in change.keys() - {node for node, lease in change.items() if lease is not None}:
            model.pop(node, None)
        history.append((mapped, dict(model)))
    for copy, expected in history:
        assert copy == expected and dict(copy) == expected and len(copy) == len(expected)
