"""Views of a state: what is decoded, for whom, how often, and what two chains have in common."""

from __future__ import annotations

import pytest
from tests.unit.nftables.test_prefilter import header
from tests.unit.nftables.wire_kernel import IP, WireControl, WireKernel, ends, looks_up, source

from hitless.kernel.nftables import dump, lookups, prefilter, state
from hitless.kernel.nftables.interest import Interest, ObjectRef
from hitless.kernel.nftables.state import ChainState, State
from hitless.model.rules import MOST_MET, TOO_MANY, UNREAD, Accept, Drop, Jump, Ruleset, Table

LONG_CHAIN = 2 * prefilter.LONG_CHAIN + 20
DROP, ACCEPT, JUMP = 0, 1, -3


def address(number: int) -> bytes:
    return bytes([10, 0, number >> 8, number & 255])


def read(kernel: WireKernel, interest: Interest | None = None) -> State:
    control = WireControl(kernel)
    return dump.read_state(control, (IP,), None, interest or Interest())  # type: ignore[arg-type]


@pytest.fixture
def kernel() -> WireKernel:
    """A short chain, a long one, one that asks a large set, and one that nothing is known of."""
    made = WireKernel()
    made.table("t").chain("t", "base", "forward").chain("t", "long").chain("t", "asks").chain("t", "strange")
    made.set("t", "large")
    for number in range(LONG_CHAIN):
        made.rule("t", "long", source(address(number)), ends(DROP))
        made.element("t", "large", address(number))
    made.rule("t", "long", ends(JUMP, "asks"))
    made.rule("t", "asks", looks_up("large"), ends(DROP))
    made.rule("t", "asks", ends(ACCEPT))
    made.rule("t", "base", ends(JUMP, "long"))
    made.rule("t", "base", ends(JUMP, "long"))
    made.rule("t", "strange", ends(DROP))
    made.commit()
    return made


def table(found: State) -> Table:
    [only] = found.ruleset().tables
    return only


def test_of_a_long_chain_a_packets_rules_are_decoded_and_no_others(kernel: WireKernel) -> None:
    found = read(kernel)
    chains = table(found)
    met = chains.rules_for("long", header("10.0.0.7"))
    assert [number for number, _ in met] == [8, LONG_CHAIN + 1]
    assert [rule.steps[-1] for _, rule in met] == [Drop(), Jump("asks")]
    long = found.tables[IP, "t"].chains["long"]
    assert len(long._plain) == 2
    assert chains.rules_for("long", header("10.0.0.7")) == met
    assert chains.specific_rules("long", header("10.0.0.7")) == (kernel_handle(kernel, "long", 7),)
    assert chains.specific_rules("long", header("10.9.9.9")) == ()
    assert chains.specific_rules("base", header("10.0.0.7")) == ()  # a short chain is decoded whole
    assert chains.size("long") == LONG_CHAIN + 1 and chains.size("base") == 2
    assert set(chains.calls("long")) == {"asks"}
    assert tuple(chains.calls("base")) == ("long",)
    assert chains.reachable("base") == {"base", "long", "asks"}


def kernel_handle(kernel: WireKernel, chain: str, number: int) -> int:
    return list(kernel.tables["t"].rules[chain])[number]


def test_a_rule_that_asks_a_large_set_is_decoded_for_each_kind_of_packet(kernel: WireKernel) -> None:
    kernel.set("t", "ways", 8)
    for number in range(lookups.INLINE_LIMIT + 1):
        kernel.element("t", "ways", address(number), "strange")
    kernel.rule("t", "asks", looks_up("ways", gives_verdict=True))
    kernel.commit()
    found = read(kernel)
    chains = table(found)
    first = chains.rules_for("asks", header("10.0.0.7"))
    other = chains.rules_for("asks", header("10.9.9.9"))
    assert first != other and chains.rules_for("asks", header("10.0.0.7")) == first
    assert chains.header_parts_used("asks") == {"source"}
    assert set(chains.calls("asks")) == {"strange"}
    held = found.tables[IP, "t"].chains["asks"]
    assert held._decode_cache is not None
    kept = len(held._decode_cache.by_parts)  # the one that needs nothing of the packet, and the map for two of them
    assert kept == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "_CACHED_LOOKUPS", kept)
        chains.rules_for("asks", header("10.9.9.10"))
    assert len(held._decode_cache.by_parts) == 1
    assert held.sets_used == {"large", "ways"}


def test_a_chain_of_which_a_packet_may_meet_too_much_is_open(kernel: WireKernel) -> None:
    kernel.chain("t", "endless")
    for _ in range(LONG_CHAIN):
        kernel.rule("t", "endless", ends(ACCEPT))
    kernel.commit()
    found = table(read(kernel))
    assert len(found.rules_for("endless", header("10.0.0.7"))) == LONG_CHAIN
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "MOST_MET", LONG_CHAIN - 1)
        assert found.rules_for("endless", header("10.0.0.7")) is TOO_MANY
    assert MOST_MET > LONG_CHAIN


def test_chains_of_one_version_do_the_same(kernel: WireKernel) -> None:
    before, again = read(kernel), read(kernel)
    one, other = table(before), table(again)
    assert one.version("base") == other.version("base")  # short: they are compared as decoded
    copied = before.tables[IP, "t"].copy()
    copied.chains["long"] = copied.chains["long"].copy()
    copied.chains["asks"] = copied.chains["asks"].copy()
    third = table(State(2, {(IP, "t"): copied}))
    assert third.version("long") == one.version("long") and third.version("asks") == one.version("asks")
    copied.chains["long"].rules.remove(copied.chains["long"].rules.first)
    copied.sets["large"] = copied.sets["large"].copy()
    assert third.version("long") != one.version("long")
    assert third.version("asks") != one.version("asks")


def test_of_what_was_not_kept_nothing_is_told(kernel: WireKernel) -> None:
    found = read(kernel, Interest(frozenset({"forward"})))
    chains = table(found)
    assert chains.rules_for("strange", header("10.0.0.7")) == ((1, UNREAD[0]),)
    assert chains.chains["strange"].rules == UNREAD
    assert chains.size("strange") == 1 and chains.version("strange") == chains.chains["strange"]
    assert not chains.calls("strange")
    assert "strange" in chains.chains and "nowhere" not in chains.chains
    assert len(chains.chains) == 4 and list(chains.chains) == ["base", "long", "asks", "strange"]
    held = found.tables[IP, "t"]
    assert set(held.heads_only()) == {ObjectRef(False, "strange")}
    assert held.find(ObjectRef(True, "large")) is held.sets["large"] and held.find(ObjectRef(False, "none")) is None
    assert chains.chains.sets_used("nowhere") == frozenset()  # type: ignore[attr-defined]


def test_a_copy_shares_what_was_decoded_and_forgets_what_went(kernel: WireKernel) -> None:
    chain = read(kernel).tables[IP, "t"].chains["long"]
    owner = read(kernel).tables[IP, "t"]
    chain.decoded(owner)
    assert len(chain._plain) == LONG_CHAIN + 1
    copied = chain.copy()
    assert copied._plain is chain._plain
    for handle in list(copied.rules)[: LONG_CHAIN - 3]:
        copied.rules.remove(handle)
    assert len(copied.rules) == 4 and copied.copy()._plain.keys() == set(copied.rules)
    chain.drop_content()
    assert not chain.kept and len(chain.rules) == 0 and chain.decoded(owner).rules == UNREAD


def test_what_a_chain_leads_to_is_noted_in_little_room() -> None:
    made = WireKernel()
    made.table("t").chain("t", "base", "forward")
    for number in range(12):
        made.chain("t", f"c{number}")
    for number in range(12):
        made.rule("t", "base", ends(JUMP, f"c{number}"))
        made.rule("t", "base", ends(JUMP, f"c{number}"))
    made.commit()
    base = read(made).tables[IP, "t"].chains["base"]
    assert set(base.leads) == {ObjectRef(False, f"c{number}") for number in range(12)}
    few = ChainState("few")
    message = list(made.tables["t"].rules["base"].values())
    assert few.add_references(message[0]) == few.add_references(message[1]) == {ObjectRef(False, "c0")}
    assert few.leads == (ObjectRef(False, "c0"),)


def test_views_of_tables_that_did_not_change_are_kept(kernel: WireKernel) -> None:
    kernel.table("u").commit()
    found = read(kernel)
    first = found.view()
    tables = {**found.tables, (IP, "u"): found.tables[IP, "u"].copy()}
    second = State(2, tables).view(first)
    assert second[IP, "t"] is first[IP, "t"] and second[IP, "u"] is not first[IP, "u"]
    assert isinstance(Ruleset(tuple(second.values())), Ruleset)
    [base] = first[IP, "t"].base_chains()
    assert base.name == "base" and base.rules[0].steps == (Jump("long"),)
    assert first[IP, "t"].chains["asks"].rules[-1].steps == (Accept(),)
