"""The plan is empty for equal states; applied, it makes the desired state of any state; each change has a reason."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.contract.adoption import carried, foreign_rules, is_right
from tests.contract.start_states import NETWORKS, our_text, snapshot

from hitless.desired import desired_state
from hitless.model.families import Backend, Family
from hitless.model.rules import (
    Accept,
    Comment,
    CtState,
    Destination,
    Drop,
    Jump,
    Masquerade,
    OutInterface,
    Protocol,
    Return,
    Rule,
    Source,
    Step,
)
from hitless.model.state import Holding, NodeState, Place, Purpose
from hitless.plan import canonical, cleanup, iptables_rule, nft_rule, plan
from hitless.plan.shadowing import takes_all
from hitless.testing.fake_kernel import FakeKernel
from hitless.testing.restore_text import native_rule, rule_of

FAMILIES = (Family.IPV4, Family.IPV6)
POD, NET = NETWORKS[Family.IPV4].subnet, NETWORKS[Family.IPV4].network


@pytest.mark.parametrize("backend", list(Backend))
def test_equal_states_need_nothing(backend: Backend) -> None:
    desired = desired_state(snapshot(*FAMILIES), backend)
    assert plan(desired, desired).transactions == ()
    assert desired.own() == desired


@pytest.mark.parametrize("backend", list(Backend))
def test_an_empty_node_needs_one_transaction_for_each_table(backend: Backend) -> None:
    made = plan(desired_state(snapshot(*FAMILIES), backend), NodeState())
    tables = [(one.family, one.table) for one in made.transactions]
    assert len(tables) == len(set(tables)) == (2 if backend.native else 4)
    assert all(change.reason for change in made.changes)


def test_the_text_is_exactly_what_iptables_restore_reads() -> None:
    (nat, _) = plan(desired_state(snapshot(Family.IPV4), Backend.NFT), NodeState()).transactions
    assert nat.program == "iptables-nft-restore"
    assert nat.text.splitlines() == [
        "*nat",
        ":FLANNEL-POSTRTG - [0:0]",
        '-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN',
        '-A FLANNEL-POSTRTG -s 10.42.1.0/24 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j RETURN',
        '-A FLANNEL-POSTRTG -s 10.42.0.0/16 -d 10.42.1.0/24 -m comment --comment "flanneld masq" -j RETURN',
        '-A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.1.0/24 -m comment --comment "flanneld masq" -j RETURN',
        '-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" '
        "-j MASQUERADE --random-fully",
        '-A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.0.0/16 -m comment --comment "flanneld masq" '
        "-j MASQUERADE --random-fully",
        '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG',
        "COMMIT",
    ]


def test_what_is_switched_off_is_left_and_noted() -> None:
    kernel = FakeKernel()
    for text in our_text(Backend.NFT, Family.IPV4):
        kernel.write(Backend.NFT, Family.IPV4, text)
    off = desired_state(type(snapshot())(snapshot(Family.IPV4).networks, masquerade=False, forward=True), Backend.NFT)
    made = plan(off, kernel.observe((Family.IPV4,)))
    assert made.transactions == ()
    assert any("cleanup removes it" in note.text for note in made.notes)


def test_an_existing_jump_stays_after_a_foreign_drop_and_a_missing_jump_is_inserted_where_it_works() -> None:
    kernel = FakeKernel()
    for text in our_text(Backend.NFT, Family.IPV4):
        kernel.write(Backend.NFT, Family.IPV4, text)
    kernel.write(Backend.NFT, Family.IPV4, "*filter\n-I FORWARD 1 -j DROP\nCOMMIT\n")
    desired = desired_state(snapshot(Family.IPV4), Backend.NFT)
    assert plan(desired, kernel.observe((Family.IPV4,))).transactions == ()
    # firewalld's reload: everything flushed, its REJECT at the end of FORWARD
    kernel.write(
        Backend.NFT, Family.IPV4, "*filter\n-F FORWARD\n-A FORWARD -i lo -j ACCEPT\n-A FORWARD -j REJECT\nCOMMIT\n"
    )
    (one,) = plan(desired, kernel.observe((Family.IPV4,))).transactions
    assert '-I FORWARD 2 -m comment --comment "flanneld forward" -j FLANNEL-FWD' in one.text


@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        ("", "the chain is empty"),
        ("-A FLANNEL-POSTRTG -d 192.0.2.0/24 -j RETURN\n", "only foreign rules are in the chain"),
    ],
)
def test_a_chain_without_our_rules_is_called_empty_only_when_it_is(inside: str, reason: str) -> None:
    kernel = FakeKernel()
    kernel.write(Backend.NFT, Family.IPV4, f"*nat\n:FLANNEL-POSTRTG - [0:0]\n{inside}COMMIT\n")
    made = plan(desired_state(snapshot(Family.IPV4), Backend.NFT), kernel.observe((Family.IPV4,)))
    assert [change.reason for change in made.changes if change.what == "FLANNEL-POSTRTG: 6 rules"] == [reason]


def test_cleanup_removes_everything_of_ours_and_nothing_else() -> None:
    kernel = FakeKernel()
    for backend in Backend:
        for text in our_text(backend, Family.IPV4):
            kernel.write(backend, Family.IPV4, text)
    kernel.write(
        Backend.NFT,
        Family.IPV4,
        "*nat\n-A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\n-A FLANNEL-POSTRTG -d 192.0.2.0/24 -j RETURN\nCOMMIT\n",
    )
    kernel.write(
        Backend.NFTABLES,
        Family.IPV4,
        "add chain ip flannel-ipv4 mine { type filter hook forward priority 5 ; policy accept ; }\n",
    )
    before = foreign_rules(kernel.observe((Family.IPV4,)))
    for transaction in cleanup(kernel.observe((Family.IPV4,))).transactions:
        kernel.apply(transaction)
    after = kernel.observe((Family.IPV4,))
    assert foreign_rules(after) == before and len(before) == 2
    assert not [rule for held in after.own().places.values() for rule in (*held.entry, *(held.chain or ()))]
    assert cleanup(after).transactions == ()
    assert any(table.name == "flannel-ipv4" and set(table.chains) == {"mine"} for table in kernel.ruleset().tables)


MASQUERADED = '*nat\n-A POSTROUTING -m comment --comment "flanneld masq" -j MASQUERADE --random-fully\nCOMMIT\n'


def sheltered(action: str, refusal: str) -> str:
    """A forward rule of ours, and a foreign rule for everything else."""
    return f'*filter\n-A FORWARD -m comment --comment "flanneld forward" -j {action}\n{refusal}\nCOMMIT\n'


@pytest.mark.parametrize("refusal", ["-A FORWARD -j REJECT", ":FORWARD DROP"])
def test_our_accept_stays_in_the_old_backend_as_long_as_a_foreign_rule_refuses_there(
    refusal: str,
) -> None:
    kernel = FakeKernel()
    for text in our_text(Backend.LEGACY, Family.IPV4):
        kernel.write(Backend.LEGACY, Family.IPV4, text)
    kernel.write(Backend.LEGACY, Family.IPV4, f"*filter\n{refusal}\nCOMMIT\n")
    desired = desired_state(snapshot(Family.IPV4), Backend.NFT)
    found = plan(desired, kernel.observe((Family.IPV4,)))
    assert [one.table for one in found.transactions if one.removes] == ["nat"]
    (note,) = found.notes
    assert "kept beside nft" in note.text and "FORWARD refuses" in note.text
    for transaction in found.transactions:
        kernel.apply(transaction)
        assert carried(kernel.ruleset(), Family.IPV4)[0] == "carried"
    undo = ":FORWARD ACCEPT" if refusal.startswith(":") else refusal.replace("-A", "-D")
    kernel.write(Backend.LEGACY, Family.IPV4, f"*filter\n{undo}\nCOMMIT\n")
    (last,) = plan(desired, kernel.observe((Family.IPV4,))).transactions
    assert last.removes and last.table == "filter"


# --- random states -----------------------------------------------------------------------------------------------

OTHER = ip_network("192.168.0.0/16")
conditions = st.lists(
    st.sampled_from(
        [
            Source(POD),
            Source(NET),
            Source(NET, True),
            Destination(POD),
            Destination(NET),
            Destination(OTHER),
            Source(OTHER),
        ]
    ),
    max_size=2,
    unique=True,
)


def ours_like(comment: str, chain: str) -> st.SearchStrategy[Rule]:
    """Rules with our comment, right and wrong ones."""
    actions: list[Step] = [Return(), Accept(), Masquerade(random_fully=True), Masquerade(), Jump(chain)]
    return st.builds(
        lambda steps, action: Rule((*steps, Comment(comment), action)), conditions, st.sampled_from(actions)
    )


def foreign(purpose: Purpose) -> st.SearchStrategy[Rule]:
    """Rules of the neighbours; the nat table takes no DROP."""
    filtering: list[Step] = [Return(), Accept(), Drop()]
    translating: list[Step] = [Return(), Accept(), Masquerade()]
    actions = filtering if purpose is Purpose.FORWARD else translating
    return st.builds(lambda steps, action: Rule((*steps, action)), conditions, st.sampled_from(actions))


def texts_of(rules: list[Rule], chain: str) -> list[str]:
    return [f"-A {chain} {iptables_rule(rule)}" for rule in rules]


@st.composite
def messes(draw: st.DrawFn) -> list[tuple[Backend, str]]:
    """Random contents of all our places in both iptables backends."""
    found: list[tuple[Backend, str]] = []
    for backend in (Backend.NFT, Backend.LEGACY):
        for purpose in Purpose:
            if not draw(st.booleans()):
                continue
            names = Place(backend, Family.IPV4, purpose).names
            inside = draw(st.lists(ours_like(names.comment, names.chain) | foreign(purpose), max_size=7))
            inside = [rule for rule in inside if not isinstance(rule.steps[-1], Jump)]
            base = draw(st.lists(ours_like(names.comment, names.chain) | foreign(purpose), max_size=4))
            lines = [f"*{names.table}", f":{names.chain} - [0:0]", *texts_of(inside, names.chain)]
            found.append((backend, "\n".join([*lines, *texts_of(base, names.base), "COMMIT"]) + "\n"))
    return found


@pytest.mark.slow
@given(messes(), st.sampled_from(list(Backend)))
@example([(Backend.NFT, MASQUERADED), (Backend.LEGACY, sheltered("RETURN", "-A FORWARD -j DROP"))], Backend.NFT)
@example([(Backend.NFT, MASQUERADED), (Backend.LEGACY, sheltered("ACCEPT", "-A FORWARD -j DROP"))], Backend.NFT)
@example([(Backend.NFT, MASQUERADED), (Backend.LEGACY, sheltered("ACCEPT", ":FORWARD DROP"))], Backend.NFTABLES)
@settings(max_examples=60, deadline=None)
def test_applying_the_plan_gives_the_desired_state_from_any_state(
    mess: list[tuple[Backend, str]], backend: Backend
) -> None:
    kernel = FakeKernel()
    for where, text in mess:
        kernel.write(where, Family.IPV4, text)
    wanted = snapshot(Family.IPV4)
    observed = kernel.observe((Family.IPV4,))
    start = kernel.commits
    was = carried(kernel.ruleset(), Family.IPV4)[0]
    for transaction in plan(desired_state(wanted, backend), observed).transactions:
        kernel.apply(transaction)
    after = kernel.observe((Family.IPV4,))
    is_right(after, wanted, backend)
    assert foreign_rules(after) == foreign_rules(observed)
    assert plan(desired_state(wanted, backend), after).transactions == ()
    # a foreign rule may refuse on purpose, and then stays; but what was carried is carried in every generation
    if was == "carried":
        assert {carried(rules, Family.IPV4)[0] for rules in kernel.history[start:]} == {"carried"}


@given(
    st.builds(
        lambda steps, action: Rule((*steps, action)),
        conditions,
        st.sampled_from([Return(), Accept(), Masquerade(random_fully=True)]),
    )
)
def test_what_is_written_is_read_back_as_the_same_rule(rule: Rule) -> None:
    text, native = iptables_rule(rule), nft_rule(rule, Family.IPV4)
    assert text is not None and native is not None
    assert canonical(rule_of(text.split(), Family.IPV4)) == canonical(rule)
    assert canonical(native_rule(native.split(), Family.IPV4)) == canonical(rule)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((), True),
        ((Source(POD),), True),
        ((Source(NET),), True),
        ((Protocol(6),), True),
        ((CtState(frozenset({"NEW", "INVALID"})),), True),
        ((Destination(NET, negated=True),), True),
        ((OutInterface("docker0", negated=True),), True),
        ((Source(ip_network("10.42.1.7/32")),), False),
        ((Destination(OTHER),), False),
        ((Source(OTHER),), False),
        ((CtState(frozenset({"ESTABLISHED"})),), False),
        ((OutInterface("docker0"),), False),
        ((Protocol(1),), False),
    ],
)
def test_only_a_rule_for_all_pods_to_everywhere_counts(steps: tuple[Step, ...], expected: bool) -> None:
    assert takes_all(Rule((*steps, Return())), (POD,)) is expected


def test_holdings_are_compared_by_their_rules_only() -> None:
    assert Holding((), (), None, 7) == Holding((), ())
