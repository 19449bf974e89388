"""An ordinary user is told at once, before anybody is asked and before anything is changed."""

from __future__ import annotations

import pytest

from hitless.cli.probe_view import _remarks
from hitless.cli.tools import run_tools


def test_a_node_drill_of_an_ordinary_user_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hitless.cli.node_drill.net_admin", lambda: False)
    words = ["node-drill", "--restart-command", "true", "--to", "icmp://127.0.0.1", "--yes"]
    assert run_tools(words) == 3
    told = capsys.readouterr().err
    assert "has no CAP_NET_ADMIN; nothing was changed; run it as root: sudo hitless node-drill" in told


def test_a_refused_probe_is_explained() -> None:
    assert _remarks({"cause_refused": 3}, {"refused": "Connection refused"})[1].startswith("refused is an answer")
    assert len(_remarks({"cause_timeout": 3}, {})) == len(_remarks({"cause_timeout": 3, "cause_error": 1}, {}))
