from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import InputError
from hitless.lab.agents import AGENTS, Readiness, named, of_command
from hitless.lab.plans import LabPlan
from hitless.lab.standins.__main__ import NAMES


def test_every_stand_in_can_be_started_by_its_name() -> None:
    assert set(NAMES) <= set(AGENTS)


def test_an_unknown_agent_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match=r"'weave' is not an agent \(expected .*flannel-0\.28.*hitless"):
        named("weave")


def test_a_command_is_split_as_a_shell_would_and_run_without_one() -> None:
    agent = of_command("/opt/bin/flanneld --ip-masq '--iface=eth 0' $HOME;")
    assert agent.name == "flanneld"
    assert agent.command(LabPlan(), None) == (  # type: ignore[arg-type]  # a user's command asks nothing of the node
        "/opt/bin/flanneld",
        "--ip-masq",
        "--iface=eth 0",
        "$HOME;",
    )


@pytest.mark.parametrize("text", ["", "   ", "a 'b"])
def test_a_command_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--agent-command"):
        of_command(text)


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        ("started", "started", ""),
        ("file:/run/x", "file", "/run/x"),
        ("http://127.0.0.1:8080/readyz", "http", "http://127.0.0.1:8080/readyz"),
        ("exec:test -e /run/x", "exec", "test -e /run/x"),
    ],
)
def test_a_readiness_probe_says_what_it_asks(text: str, kind: str, what: str) -> None:
    assert (Readiness.parse(text).kind, Readiness.parse(text).what) == (kind, what)


@pytest.mark.parametrize(
    "text", ["", "file:x", "http:x", "exec:", "exec:'", "started:x", "https://x/", "http://", "http://[", "http://a:b/"]
)
def test_a_probe_that_is_none_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(InputError, match="--ready"):
        Readiness.parse(text)


@given(st.text())
def test_nothing_but_our_error_escapes_from_a_strange_probe(text: str) -> None:
    try:
        assert Readiness.parse(text).kind in {"file", "http", "exec", "started"}
    except InputError as error:
        assert error.where == "--ready"
