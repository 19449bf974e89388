"""An iptables that is too old is told from none at all, and refused with what is needed; by fake programs on PATH."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hitless.agent.node import AgentNode
from hitless.cli.tools import run_tools
from hitless.errors import MissingError
from hitless.kernel import iptables, processes
from hitless.model.families import Backend, Family
from hitless.plan import PlannedTransaction

Install = Callable[..., None]

OLD = "#!/bin/sh\necho iptables v{version}\n"
NO_WAIT = """#!/bin/sh
case "$*" in *--wait*) echo "iptables-restore: unrecognized option '--wait'" >&2; exit 1;; esac
echo iptables v{version}
"""
NEEDED = "install iptables 1.8 or newer"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Fake programs, and no others."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(processes, "_SEARCH", str(tmp_path))

    def install(*names: str, version: str, text: str = OLD) -> None:
        for name in names:
            (tmp_path / name).write_text(text.format(version=version))
            (tmp_path / name).chmod(0o755)

    return install


def test_an_iptables_without_the_names_of_its_backends_is_too_old(install: Install) -> None:
    install("iptables", "iptables-restore", version="1.6.1")
    told = f"iptables 1.6.1 is too old: it has no program iptables-nft-restore; {NEEDED}"
    with pytest.raises(MissingError, match=re.escape(told)):
        iptables.restore("iptables-nft-restore", "*nat\nCOMMIT\n")


def test_no_iptables_at_all_is_said_as_such(install: Install) -> None:
    told = "the program ip6tables-legacy-restore is not installed; install it: apt-get install iptables"
    with pytest.raises(MissingError, match=told):
        iptables.restore("ip6tables-legacy-restore", "*nat\nCOMMIT\n")


def test_a_new_iptables_that_lacks_one_program_is_not_called_old(install: Install) -> None:
    install("iptables", version="1.8.9")
    with pytest.raises(MissingError, match="the program iptables-legacy is not installed"):
        iptables.program("iptables-legacy")


def test_a_restore_that_cannot_wait_for_the_lock_is_refused_and_not_used_without(install: Install) -> None:
    install("iptables-legacy-restore", version="1.6.1", text=NO_WAIT)
    told = f"iptables-legacy-restore 1.6.1 is too old: it knows no --wait (since 1.6.2); {NEEDED}"
    with pytest.raises(MissingError, match=re.escape(told)):
        iptables.restore("iptables-legacy-restore", "*nat\nCOMMIT\n")


def test_the_agent_s_node_says_it_too(install: Install) -> None:
    install("iptables", version="1.4.21")
    transaction = PlannedTransaction(Backend.NFT, Family.IPV4, "nat", "*nat\nCOMMIT\n", (), False)
    with AgentNode() as node, pytest.raises(MissingError, match=r"iptables 1\.4\.21 is too old"):
        node.apply(transaction)


def test_a_lab_is_not_begun_with_it(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("ip", "nsenter", "iptables", "ip6tables", version="1.6.1")
    assert run_tools(["lab", "up"]) == 3
    assert capsys.readouterr().err.startswith(
        f"hitless: iptables 1.6.1 is too old: it has no program iptables-nft; {NEEDED}"
    )
