"""What the answers of several pods come to."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from hitless.model.events import State
from hitless.model.rules import (
    Accept,
    Chain,
    Drop,
    Hook,
    InInterface,
    Jump,
    Mark,
    OneOf,
    Opaque,
    Rule,
    Ruleset,
    Source,
    Step,
    Table,
)
from hitless.observe import Fate, LocalPod, Panel, Poll
from hitless.observe.likeness import Likeness

PODS = tuple(LocalPod(ip_address(f"10.42.0.{number}"), f"cali{number}") for number in range(2, 9))
NOBODY = (LocalPod(ip_address("10.42.0.200"), "cni0"), LocalPod(ip_address("10.42.0.201"), "cni0"))
FAR = ip_address("198.51.100.77")
CHAIN = ("ip", "filter", "FORWARD")


def forward(*rules: tuple[Step, ...]) -> Ruleset:
    chain = Chain("FORWARD", tuple(map(Rule, rules)), Hook("filter", "forward", 0))
    return Ruleset((Table("ip", "filter", {"FORWARD": chain}),))


def one_each() -> Ruleset:
    """Rules that distinguish each pod from all others."""
    return forward(*((Source(ip_network(pod.address)), Jump("x")) for pod in (*PODS, *NOBODY)))


def polled(states: dict[LocalPod, State], pods: tuple[LocalPod, ...] = PODS, *, whole: bool = True) -> Poll:
    """The fates of ``states``; all others are carried."""

    def ask(pod: LocalPod, explain: bool) -> Fate:
        state = states.get(pod, "carried")
        by = f"KUBE-POD-FW-{pod.address}" if state == "not_carried" else ""
        return Fate(state, f"{by or 'rule'} of {pod.address}", frozenset({CHAIN}), by=by, how="dropped" if by else "")

    return Panel().poll(one_each(), ask, pods, NOBODY, (FAR,), whole=whole)


def test_some_isolated_pods_are_counted_and_are_not_a_gap() -> None:
    poll = polled(dict.fromkeys(PODS[:3], "not_carried"))
    assert (poll.state, poll.pods, poll.kept, poll.unknown) == ("carried", 7, 3, 0)
    assert poll.partly.startswith("3 of 7 pods are kept in by KUBE-POD-FW-10.42.0.2, KUBE-POD-FW-10.42.0.3 and 1 more")
    assert poll.addresses == ("10.42.0.2", "10.42.0.3", "10.42.0.4")
    assert "1 of 7 pods is kept in by KUBE-POD-FW-10.42.0.2 (10.42.0.2: " in polled({PODS[0]: "not_carried"}).partly


def test_without_any_carried_pod_there_is_a_gap_although_an_unused_address_would_be_carried() -> None:
    poll = polled(dict.fromkeys(PODS, "not_carried"))
    assert (poll.state, poll.kept) == ("not_carried", 7)
    assert "all 7 pods here; a pod without such a rule would be carried" in poll.reason
    both = polled(dict.fromkeys((*PODS, *NOBODY), "not_carried"))
    assert (both.state, "would be carried" in both.reason) == ("not_carried", False)


def test_an_unused_address_decides_for_the_next_pod_only() -> None:
    poll = polled(dict.fromkeys(NOBODY, "not_carried"))
    assert (poll.state, poll.kept) == ("carried", 0)
    assert "a pod that comes next (10.42.0.200) would not be carried" in poll.partly
    assert polled({NOBODY[0]: "not_carried"}).partly == ""  # a rule for just this address


def test_without_pods_the_unused_addresses_decide() -> None:
    assert polled({}, ()).state == "carried"
    assert polled({NOBODY[0]: "not_carried"}, ()).state == "carried"
    assert polled(dict.fromkeys(NOBODY, "not_carried"), ()).state == "not_carried"
    assert polled({NOBODY[0]: "not_carried", NOBODY[1]: "cannot_tell"}, ()).state == "cannot_tell"
    assert polled({}, ()).pods == 0


def test_a_pod_whose_state_is_not_known_is_reported_as_such() -> None:
    assert "of 1 of 7 pods the answer is not known" in polled({PODS[1]: "cannot_tell"}).partly
    doubt = {**dict.fromkeys(PODS, "not_carried"), PODS[1]: "cannot_tell"}
    assert polled(doubt).state == "cannot_tell"  # type: ignore[arg-type]  # a dict of literals


def test_once_the_state_is_known_no_more_pods_are_evaluated() -> None:
    asked: list[LocalPod] = []

    def ask(pod: LocalPod, explain: bool) -> Fate:
        asked.append(pod)
        return Fate("carried" if pod == PODS[2] else "not_carried", "x", frozenset({CHAIN}))

    panel = Panel()
    poll = panel.poll(one_each(), ask, PODS, NOBODY, (FAR,), whole=False)
    assert (poll.state, poll.whole, asked) == ("carried", False, list(PODS[:3]))
    asked.clear()
    panel.poll(one_each(), ask, PODS, NOBODY, (FAR,), whole=False)
    assert asked == [PODS[2]]  # the one that was carried last is evaluated first


def test_pods_that_no_rule_distinguishes_are_evaluated_once() -> None:
    asked: list[LocalPod] = []

    def ask(pod: LocalPod, explain: bool) -> Fate:
        asked.append(pod)
        return Fate("carried", "x", frozenset({CHAIN}))

    ruleset = forward((InInterface("eth+"), Drop()), (Mark(1, 1), Drop()), (Source(ip_network("10.42.0.4")), Drop()))
    assert Panel().poll(ruleset, ask, PODS, (), (FAR,)).pods == 7
    assert asked == [PODS[0], PODS[2]]
    asked.clear()
    Panel().poll(forward((Opaque("what is this"), Drop())), ask, PODS, (), (FAR,))
    assert asked == [PODS[0]]  # it is open for each of them


def test_a_condition_in_one_of_several_branches_distinguishes_pods() -> None:
    ways = OneOf(((Source(ip_network("10.42.0.4")), Drop()), (Accept(),)), exhaustive=True)
    likeness = Likeness(forward((ways,)), (FAR,))
    assert likeness.key(PODS[0]) == likeness.key(PODS[2])
    assert likeness.learn(PODS[0], {CHAIN}, ())
    assert likeness.key(PODS[0]) != likeness.key(PODS[2])


@given(st.lists(st.sampled_from([*PODS]), min_size=2, max_size=2), st.data())
def test_pods_with_one_key_get_one_answer_from_every_condition(pair: list[LocalPod], data: st.DataObject) -> None:
    networks = st.builds(
        lambda last, length: Source(ip_network(f"10.42.0.{last}/{length}", strict=False)),
        st.integers(0, 15),
        st.integers(24, 32),
    )
    names = st.sampled_from(["cali2", "cali+", "cali3", "c+", "eth0"]).map(InInterface)
    steps = data.draw(st.lists(st.one_of(networks, names), max_size=4))
    likeness = Likeness(forward(*((step,) for step in steps)), (FAR,))
    likeness.learn(pair[0], {CHAIN}, ())
    if likeness.key(pair[0]) == likeness.key(pair[1]):
        for step in steps:
            if isinstance(step, Source):
                assert len({pod.address in step.network for pod in pair}) == 1
            else:
                stem = step.name.removesuffix("+")
                match = {
                    pod.interface.startswith(stem) if step.name.endswith("+") else pod.interface == step.name
                    for pod in pair
                }
                assert len(match) == 1
