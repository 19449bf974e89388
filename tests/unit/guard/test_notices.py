"""What the guard says beside its records, as JSON and, on a terminal, in words."""

from __future__ import annotations

import io
import json

from tests.unit.guard.around import Node
from tests.unit.guard.flannels import HOOK, nat

from hitless.cli.terminal_log import TerminalLog
from hitless.daemon.logs import Log
from hitless.guard import primaries, serving
from hitless.guard.journal import Journal
from hitless.guard.notices import Notices, stays
from hitless.guard.reporting import Reporter
from hitless.guard.side import Side
from hitless.kernel.clock import Clock
from hitless.model.families import Family
from hitless.model.rules import Chain, Jump, Masquerade, Rule, Ruleset, SetMember, Table
from hitless.observe.rules import Observation

V4 = Family.IPV4
UNCLEAR = Ruleset(
    (
        Table(
            "ip",
            "nat",
            {
                "POSTROUTING": Chain("POSTROUTING", (Rule((Jump("cali-nat-outgoing"),)),), HOOK),
                "cali-nat-outgoing": Chain(
                    "cali-nat-outgoing", (Rule((SetMember("pools", "src", None), Masquerade())),)
                ),
            },
        ),
    )
)


def sides(name: str, ruleset: Ruleset) -> dict[Family, Side]:
    side = Side.of(V4, primaries.load(name), (), Node(), None)
    side.see(Observation(1, 1, ruleset), 0, lambda: None)
    return {V4: side}


def heard(name: str, ruleset: Ruleset, *, observing: bool = False, times: int = 3) -> list[dict[str, str]]:
    stream = io.StringIO()
    sayings = Notices(Log(stream))
    for _ in range(times):
        sayings.hear(sides(name, ruleset), observing=observing)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_who_only_observes_says_once_that_the_guard_would_refuse_and_why() -> None:
    (line,) = heard("calico", UNCLEAR, observing=True)
    assert (line["level"], line["event"], line["family"]) == ("warning", "the guard would refuse", "ipv4")
    assert "nat cali-nat-outgoing rule 1" in line["reason"]
    assert "pools" in line["reason"]
    (line,) = heard("calico", UNCLEAR)
    assert line["event"] == "no standby"


def test_a_guard_without_rules_says_what_it_waits_for() -> None:
    (line,) = heard("flannel", Ruleset())
    assert (line["level"], line["event"]) == ("info", "waiting")
    assert "no rules of flannel to learn from" in line["reason"]
    assert "nat FLANNEL-POSTRTG" in line["reason"]
    assert heard("flannel", nat()) == []


def test_who_only_observes_says_once_that_the_guard_could_protect_and_what() -> None:
    (line,) = heard("flannel", nat(), observing=True)
    assert (line["level"], line["event"], line["family"]) == ("info", "the guard could protect this node", "ipv4")
    assert "for 10.42.0.0/16; nothing was written. To protect them: hitless guard" in line["reason"]
    assert heard("flannel", Ruleset(), observing=True)[0]["event"] == "waiting"


def test_what_stays_is_said_at_the_end() -> None:
    networks = sides("flannel", nat())[V4].installed
    assert networks is not None
    assert "stays in the kernel and works on" in stays(networks.networks, guarding=True)
    assert "hitless guard remove" in stays(networks.networks, guarding=True)
    assert stays([], guarding=True) == "there is no standby"
    assert "nothing was changed" in stays(networks.networks, guarding=False)


def test_a_terminal_gets_words_and_no_escape_sequence() -> None:
    stream = io.StringIO()
    log = Log(TerminalLog(stream))
    log.info("waiting", reason="there are no rules")
    log.warning(
        "withdrawn", family="ipv4", why="it is \x1b]52;c;x\x07off", networks=["10.42.0.0/16"], writer={"comm": "a\nb"}
    )
    first, second = stream.getvalue().splitlines()
    assert first.endswith("Z waiting: there are no rules")
    assert second.partition("Z ")[2] == (
        "warning: withdrawn: it is ?]52;c;x?off (family ipv4, networks 10.42.0.0/16, writer a?b)"
    )
    TerminalLog(stream).write("no JSON\x1b[2J\n")
    assert stream.getvalue().splitlines()[-1] == "no JSON?[2J"


def test_ready_is_what_status_calls_protected() -> None:
    reporter = Reporter(Log(io.StringIO()), Journal(None), Clock())
    assert not serving._ready(reporter)
    whole = {"ipv4": {"state": "standing by", "networks": ["10.42.0.0/16"]}}
    for families, mode, ready in (
        (whole, "guard", True),
        ({"ipv4": {"state": "withdrawn", "networks": []}}, "guard", False),
        ({"ipv4": {"state": "waiting for rules to learn from", "networks": []}}, "guard", False),
        ({**whole, "ipv6": {"state": "withdrawn", "networks": []}}, "guard", False),
        ({"ipv4": {"state": "gap", "networks": ["10.42.0.0/16"]}}, "observe", True),
    ):
        reporter.status = {"mode": mode, "families": families}
        assert serving._ready(reporter) is ready, families
    reporter.status, reporter.problem = {"mode": "guard", "families": whole}, "cannot write the standby"
    assert not serving._ready(reporter)
