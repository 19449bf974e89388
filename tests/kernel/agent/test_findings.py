"""What cuts the pods off is said in every channel, and what fails for good is not tried at full speed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from tests.kernel.agent.nodes import HANG, Logged
from tests.kernel.agent.test_command import GOOD, HITLESS, run
from tests.kernel.nftables.nodes import Node

from hitless.kernel import processes
from hitless.kernel.namespaces import inside
from hitless.kernel.nftables.owned import OWNER, OwnedTables
from hitless.model.families import Family

pytestmark = pytest.mark.kernel

PORT = 10991


class Talk(Logged):
    """An agent in a node without pods: what it logs."""

    def __init__(self, place: Node, *words: str) -> None:
        command = [*HITLESS, *GOOD, f"--healthz-port={PORT}", "--healthz-ip=127.0.0.1", *words]
        self._place = place
        super().__init__(processes.start(command, namespace=place.namespace, stderr=subprocess.PIPE))

    def reasons(self) -> str:
        return self.page("readyz")

    def page(self, path: str) -> str:
        def ask() -> str:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/{path}", timeout=HANG) as answer:
                    return str(answer.read().decode())
            except urllib.error.HTTPError as refused:
                with refused:
                    return refused.read().decode()

        return inside(self._place.namespace, ask)


@contextlib.contextmanager
def talk(place: Node, *words: str) -> Iterator[Talk]:
    made = Talk(place, *words)
    try:
        yield made
    finally:
        made.end()


def plan_of(place: Node, *words: str) -> tuple[str, list[dict[str, Any]]]:
    code, text, _ = run(place, "plan", *GOOD, *words)
    assert code == 0
    code, told, _ = run(place, "plan", "--json", *GOOD, *words)
    assert code == 0
    return text, json.loads(told)["notes"]


def write_plan(place: Node, *words: str) -> None:
    for one in json.loads(run(place, "plan", "--json", *GOOD, *words)[1])["transactions"]:
        options = ["-f", "-"] if one["program"] == "nft" else ["--noflush"]
        place.run(one["program"], *options, stdin=one["text"])


@pytest.mark.parametrize(
    ("rule", "more", "words"),
    [
        (("-I", "FORWARD", "-j", "REJECT", "--reject-with", "icmp-host-prohibited"), (), "REJECT"),
        (("-P", "FORWARD", "DROP"), ("--iptables-forward-rules=false",), "policy"),
        (("-t", "nat", "-I", "FLANNEL-POSTRTG", "-s", "10.42.0.0/16", "-j", "ACCEPT"), ("--ip-masq=false",), ""),
    ],
)
def test_a_plan_without_changes_reports_what_cuts_the_pods_off(
    place: Node, rule: tuple[str, ...], more: tuple[str, ...], words: str
) -> None:
    first = more if words else ()
    write_plan(place, *first)
    assert plan_of(place, *first)[0].strip() == "nothing to do"
    place.iptables(*rule)
    text, notes = plan_of(place, *more)
    told = [note for note in notes if note["refusal"]]
    assert text.startswith("nothing to do")
    if not words:  # without masquerading nothing of ours is missing
        assert not told
        return
    assert len(told) == 1 and words in told[0]["text"] and told[0]["text"] in text
    assert "# cut off: " in text


def test_what_cuts_the_pods_off_is_in_the_log_once_and_on_readyz_with_its_kind(place: Node) -> None:
    place.iptables("-A", "FORWARD", "-s", "10.99.0.0/16", "-j", "ACCEPT")
    with talk(place, "--iptables-resync=1", "--v=1") as agent:
        agent.wait(lambda: agent.events("ready"), "ready")
        place.iptables("-I", "FORWARD", "-j", "REJECT")
        agent.wait(lambda: agent.events("not carried"), "the finding")
        seen = len(agent.events("as desired"))
        agent.wait(lambda: len(agent.events("as desired")) > seen + 1, "two more comparisons")
        assert len(agent.events("not carried")) == 1 and len(agent.events("foreign rules kept")) == 0
        assert "connections are rejected: FORWARD rule 1" in agent.events("not carried")[0]["reason"]
        assert "connections are rejected: FORWARD rule 1" in agent.reasons()
        assert "not translated" not in agent.reasons()
        place.iptables("-D", "FORWARD", "1")
        agent.wait(lambda: agent.events("carried again"), "the end of it")
        assert "true" in agent.reasons()


def test_a_lasting_failure_is_retried_and_logged_seldom_whatever_else_happens(place: Node) -> None:
    """Somebody owns a table of flannel's name (the kernel refuses everybody else), and changes rules all the time."""
    owned = OwnedTables("flannel-ipv4", place.namespace, flags=OWNER)
    try:
        owned.replace({Family.IPV4: ()})
        with talk(place, "--backend=nftables", "--iptables-resync=1") as agent:
            agent.wait(lambda: agent.events("not applied"), "the failure")
            begin, turn = time.monotonic(), 0
            while time.monotonic() - begin < 4.0 or turn < 11:
                turn += 1
                place.iptables("-A", "FORWARD", "-s", "10.99.0.0/16", "-j", "ACCEPT")
            errors = next(line for line in agent.page("metrics").splitlines() if "errors_total{" in line)
            assert turn > 10
            assert 1 <= float(errors.split()[1]) <= 9, errors
            assert len([line for line in agent.said if line["event"] == "not applied"]) <= 3
            assert len(agent.said) < 40
    finally:
        owned.close()
