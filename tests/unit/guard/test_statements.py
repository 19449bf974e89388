"""What the agent says about masquerading, and what is no statement."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hitless.guard import statements


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_IPMASQ=true\n", True),
        ("FLANNEL_IPMASQ=false\n", False),
        ("FLANNEL_IPMASQ=maybe\n", None),
        ("FLANNEL_IPMASQ\n", None),
        ("FLANNEL_IPMASQ=FALSE\n", False),
        ("FLANNEL_IPMASQ=fAlSe\n", None),  # no word of Go's
        ("FLANNEL_IPMASQ=false\nFLANNEL_IPMASQ=true\n", True),  # the last counts
        ("FLANNEL_IPMASQ=false\nFLANNEL_IPMASQ=\n", None),
        ("", None),
    ],
)
def test_a_subnet_file_says_it_in_one_variable(text: str, said: bool | None) -> None:
    found = statements.of_subnet_file(text, "subnet.env")
    assert (found.masquerade if found is not None else None) is said


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["flanneld", "--ip-masq", "--kube-subnet-mgr"], [], True),
        (["flanneld", "-ip-masq=true"], [], True),
        (["flanneld", "--ip-masq=false"], ["FLANNELD_IP_MASQ=true"], False),
        (["flanneld"], ["FLANNELD_IP_MASQ=true"], True),
        (["flanneld"], ["FLANNELD_IP_MASQ=false"], False),
        (["flanneld", "--ip-masq-fully-random-disable"], [], False),  # flanneld's default is off
        (["flanneld"], ["FLANNELD_IP_MASQ="], False),  # an empty variable is none
        (["flanneld"], ["FLANNELD_IP_MASQ=maybe"], None),
        (["flanneld", "--ip-masq="], [], None),  # flanneld would not start
        (["flanneld", "--ip-masq", "--ip-masq=false"], [], False),  # the last counts
        (["flanneld", "--version"], [], None),  # no daemon
        (["flanneld", "-help"], [], None),
        (["my-agentd"], [], None),  # its default is not known
        (["my-agentd", "--ip-masq=false"], [], False),
        (["flanneld"], None, None),  # an environment that may not be read may say anything
    ],
)
def test_a_command_line_says_it_by_flag_or_variable(
    arguments: list[str], environment: list[str] | None, said: bool | None
) -> None:
    found = statements.of_arguments(arguments, environment, "flanneld")
    assert (found.masquerade if found is not None else None) is said


def test_a_file_from_before_the_standby_was_learned_is_no_statement(tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"
    path.write_text("FLANNEL_IPMASQ=false\n")
    written = path.stat().st_mtime
    assert statements.read([str(path)], [], written + 1) is None
    found = statements.read([str(path)], [], written - 1)
    assert found is not None
    assert not found.masquerade


def test_a_file_that_others_may_have_written_is_no_statement(tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"
    path.write_text("FLANNEL_IPMASQ=false\n")
    assert statements.read([str(path)], [], 0) is not None
    path.chmod(0o666)
    assert statements.read([str(path)], [], 0) is None


def test_a_file_of_another_clock_a_fifo_and_a_long_one_are_no_statements(tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"
    path.write_text("FLANNEL_IPMASQ=false\n")
    os.utime(path, (time.time() + 3600,) * 2)
    assert statements.read([str(path)], [], 0) is None
    path.write_text("FLANNEL_IPMASQ=false\n" + "#" * (1 << 17))
    assert statements.read([str(path)], [], 0) is None
    path.write_bytes(b"FLANNEL_IPMASQ=false\n\xff")
    assert statements.read([str(path)], [], 0) is None
    path.unlink()
    os.mkfifo(path)
    assert statements.read([str(path)], [], 0) is None


def test_files_and_processes_that_are_not_there_say_nothing(tmp_path: Path) -> None:
    assert statements.read([str(tmp_path / "none")], ["no-such-agentd"], 0) is None
