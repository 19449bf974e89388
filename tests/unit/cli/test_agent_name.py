"""An agent can be given a name that a table can show, instead of its program's."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from hitless.cli.drill import command
from hitless.drill.nodes import RestartMethod
from hitless.errors import InputError
from hitless.lab import agents


@pytest.mark.parametrize("name", ["flanneld 0.28.9", "x", "n" * 64])
def test_a_name_is_taken(name: str) -> None:
    assert agents.called(f" {name} ") == name
    assert agents.of_command("/bin/true", name=name).name == name


@pytest.mark.parametrize("name", ["", "  ", "n" * 65, "a,b", "two\nlines", "x\x1b[31m", "mine+guard"])
def test_a_name_that_no_table_could_show_is_refused_with_what_is_expected(name: str) -> None:
    with pytest.raises(InputError, match=r"--agent-name.*expected 1 to 64 characters"):
        agents.called(name)


def test_it_is_for_an_agent_of_ones_own() -> None:
    done = CliRunner().invoke(command, ["--agent-name", "x"])
    assert isinstance(done.exception, InputError) and "--agent-command" in str(done.exception)


def test_a_name_is_given_once() -> None:
    words = ["--agents", "flannel-0.28", "--agent-command", "/bin/true", "--agent-name", "flannel-0.28"]
    done = CliRunner().invoke(command, words)
    assert isinstance(done.exception, InputError) and "twice" in str(done.exception)


def test_on_a_node_too() -> None:
    assert RestartMethod(command="/bin/true", name="flanneld 0.28.9").title == "flanneld 0.28.9"
