"""What is asked of a drill in a lab of several nodes, and what is refused."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from hitless.cli import drill_lab
from hitless.cli.drill import command
from hitless.drill import Method
from hitless.errors import InputError
from hitless.lab.plans import LeaseStore


def asked(*commands: str, names: str | None = None, name: str | None = None) -> drill_lab.Rows:
    return drill_lab.agents(names, commands, name, None, None, 30.0, None)


def test_an_agent_of_ones_own_is_the_row_and_one_for_a_node_is_beside_all() -> None:
    found = asked("/bin/sleep 1", "node1=/bin/cat")
    assert ([one.name for one in found.rows], found.own_agent) == (["sleep"], "sleep")
    assert {node: one.name for node, one in found.others.items()} == {"node1": "cat"}
    assert [one.name for one in asked("node1=/bin/cat", names="hitless").rows] == ["hitless"]
    assert [one.name for one in asked("node1=/bin/cat").rows] == drill_lab.DEFAULT_AGENTS.split(",")


def test_patience_and_grace_are_for_every_agent() -> None:
    found = drill_lab.agents("hitless", ["node1=/bin/cat"], None, None, None, 7.0, 3.0)
    assert {(one.readiness.patience, one.grace) for one in (*found.rows, *found.others.values())} == {(7.0, 3.0)}


def test_an_overlay_brings_a_second_node_and_etcd_only_where_a_command_asks_for_it() -> None:
    assert drill_lab.place(None, "vxlan", "l2", []).nodes == 2
    assert drill_lab.place(None, None, "l2", []).nodes == 1
    assert drill_lab.place(3, "vxlan", "routed", ["a {etcd}"]).leases is LeaseStore.ETCD


def test_the_successor_is_ours_unless_another_is_named() -> None:
    plan = drill_lab.place(2, "vxlan", "l2", [])
    found = drill_lab.variation(asked("/bin/sleep 1"), plan, Method.REPLACE, None, 1, 30.0, None)
    assert found.by is not None
    assert found.by.name == "hitless"
    assert drill_lab.variation(asked("/bin/sleep 1"), plan, Method.SIGTERM, None, 1, 30.0, None).by is None


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--overlay", "vxlan", "--nodes", "1"], "--overlay: cannot be used with one node"),
        (["--underlay", "routed"], "--underlay: cannot be used with one node"),
        (["--nodes", "2", "--overlay", "host-gw", "--underlay", "routed"], "without a router"),
        (["--nodes", "200"], "--nodes: 200 is out of range"),
        (["--nodes", "2", "--agent-command", "node2=/bin/cat"], "there is no node2"),
        (["--agent-command", "/bin/cat {etcd}"], "{etcd} is for labs with an overlay"),
        (["--agent-command", "/bin/cat", "--agent-command", "/bin/echo"], "twice for all nodes"),
        (["--agent-name", "x", "--agent-command", "node0=/bin/cat"], "names the agent of all nodes"),
        (["--replace-by", "adopter"], "cannot be used with --restart sigterm"),
        (["--restart", "replace", "--agents", "hitless"], "would replace itself"),
        (["--restart", "replace", "--replace-by", "nobody"], "--replace-by"),
        (["--cluster", "--overlay", "vxlan"], "does not go with --cluster"),
        (["--forward-policy", "drop", "--backend", "nftables"], "no agent can become ready"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_built(words: list[str], problem: str) -> None:
    result = CliRunner().invoke(command, words, standalone_mode=False)
    assert isinstance(result.exception, InputError), result
    assert problem in str(result.exception)
