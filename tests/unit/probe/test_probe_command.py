"""The commands refuse what they cannot do before anything is sent; users see the same results as programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from rich.console import Console

import hitless.probe
from hitless.cli import probe_view
from hitless.cli.tools import run_tools
from hitless.model import events as e
from hitless.probe import farend

SECOND = 1_000_000_000
ENDPOINTS = ["http 198.51.100.1", "tcp 198.51.100.1", "tcp 2001:db8::1"]
FLOW: dict[str, Any] = {"src": "10.42.0.2", "sport": 20000, "dst": "198.51.100.1", "dport": 7801}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["probe"], "--to"),
        (["probe", "--to", "far.example"], "--to: 'far.example' is not a URL"),
        (["probe", "--to", "https://user:secret@far.example/"], "--to: a URL with a user's name in it is not probed"),
        (["probe", "--to", "icmp://127.0.0.1", "--control", "icmp://"], "--control: "),
        (["probe", "--to", "icmp://127.0.0.1", "--rate", "0"], "--rate"),
        (["probe", "--to", "icmp://127.0.0.1", "--rate", "nan"], "--rate"),
        (["probe", "--to", "icmp://127.0.0.1", "--duration", "inf"], "--duration"),
        (["probe", "--to", "farend://127.0.0.1", "--mix", "tcp"], "--mix: 'tcp' is not a weight"),
        (["probe", "--to", "farend://127.0.0.1", "--mix", "tcp=1,tcp=2"], "--mix: 'tcp=2' is not a weight"),
        (["probe", "--to", "farend://127.0.0.1", "--mix", "tcp=1001"], "--mix: 'tcp=1001' is not a weight"),
        (["probe", "--to", "farend://127.0.0.1", "--mix", "tcp=0"], "--mix: 'tcp=0' asks for nothing"),
        (["probe", "--to", "icmp://127.0.0.1", "--streams", "1"], "--streams: only a far end has streams"),
        (["probe", "--to", "icmp://127.0.0.1", "--source", "here"], "--source: 'here' is not an address"),
        (["probe", "--to", "icmp://127.0.0.1", "--source", "192.0.2.77"], "--source: cannot send from 192.0.2.77"),
        (["probe", "--to", "icmp://127.0.0.1", "--source", "::1", "--family", "ipv4"], "--source: ::1 is ipv6"),
        (["probe", "--to", "icmp://127.0.0.1", "--interface", "none9"], "--interface: there is no interface 'none9'"),
        (["probe", "--to", "icmp://127.0.0.1", "--namespace", "/run/netns/none"], "--namespace: there is no namespace"),
        (["farend", "--bind", "localhost"], "--bind: 'localhost' is not an address"),
        (["farend", "--bind", "192.0.2.77"], "--bind: cannot listen at 192.0.2.77"),
        (["farend", "--port", "65500"], "--port: 65500 is out of range"),
        (["farend", "--leaks", "10.42.0.1/16"], "--leaks: '10.42.0.1/16' has host bits set"),
        (["farend", "--namespace", "999999999"], "--namespace: there is no namespace"),
    ],
)
def test_wrong_input_is_refused_with_its_flag(
    words: Sequence[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    # "normal": the test process itself must not become a real-time process
    assert run_tools([*words, "--scheduling", "normal"]) == 3
    out, err = capfd.readouterr()
    assert said in err
    assert out == ""


def test_the_help_has_the_exit_codes_and_the_defaults(capfd: pytest.CaptureFixture[str]) -> None:
    for command in ("probe", "farend"):
        assert run_tools([command, "--help"]) == 0
        text = " ".join(capfd.readouterr().out.split())
        assert "Exit codes: 0 pass, 1 fail, 2 inconclusive" in text
        assert "default: " in text


def shown(events: Sequence[e.Event], capfd: pytest.CaptureFixture[str]) -> str:
    view = probe_view.probe_view()
    assert type(view) is probe_view.ProbeView  # no terminal here
    for event in events:
        view.emit(event)
    view.close()
    return capfd.readouterr().out


def test_users_see_losses_as_they_happen_and_a_table_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    loss = e.Loss(t=SECOND, kind="tcp", family="ipv4", planned=SECOND, end=2 * SECOND, cause="timeout", **FLOW)
    losses = [msgspec.structs.replace(loss, sport=20000 + number) for number in range(8)]
    text = shown(
        [
            e.Header(t=0, tool="probe", version="1", config={"endpoints": ENDPOINTS, "rate": 1000.0}),
            e.Attempts(t=0, interval_ns=SECOND // 10, kind="tcp", family="ipv4", sent=10, ok=2, lost=8),
            e.Attempts(
                t=0, interval_ns=SECOND // 10, kind="tcp", family="ipv4", sent=3, ok=0, lost=3, stream="control"
            ),
            *losses,
            msgspec.structs.replace(loss, sport=9, stream="control"),
            e.Heartbeat(t=SECOND, tool="probe", interval_ns=SECOND, cpu_ns=SECOND // 10, detail="0 open"),
            e.Recovery(t=SECOND, kind="udp", family="ipv4", begin=0, duration_ns=SECOND, recovered=True, **FLOW),
            e.Summary(
                t=SECOND,
                tool="probe",
                totals={"tcp_sent": 1210, "tcp_ok": 1202, "tcp_lost": 8, "cause_timeout": 8, "skipped_late": 7},
            ),
        ],
        capfd,
    )
    assert text.startswith("probing 198.51.100.1 (tcp, http); 2001:db8::1 (tcp) at 1,000 new flows a second; Ctrl-C")
    assert text.count("LOST    tcp 10.42.0.2 port") == 5
    assert "10 ended, 8 lost" in text
    assert "3 more not shown" in text
    assert "3 lost by control" in text
    assert "port 9 " not in text
    assert "HEALED  udp 10.42.0.2 port 20000 to 198.51.100.1 port 7801: worked again after 1.00 s" in text
    assert [line.split() for line in text.splitlines() if line.startswith("tcp ")] == [
        ["tcp", "1,210", "1,202", "8", "0", "0"]
    ]
    assert "lost because: timeout 8" in text
    assert "not attempted: 7 (the prober was late)" in text


def test_the_public_names_are_pinned() -> None:
    assert sorted(hitless.probe.__all__) == sorted(
        {"BASE_PORT", "DEFAULT_MIX", "DEFAULT_RATE", "KINDS", "POLITE_RATE", "ProbeEndpoint", "FarEnd"}
        | {
            "FarEndOptions",
            "FarEndPorts",
            "ProbeOptions",
            "ProbeVerdict",
            "Prober",
            "Target",
            "parse",
            "ports",
            "resolve",
            "verdict",
        }
    )
    assert all(hasattr(hitless.probe, name) for name in hitless.probe.__all__)


def test_a_far_end_prints_its_counters(capfd: pytest.CaptureFixture[str]) -> None:
    totals = {"tcp": 2724, "udp": 1394, "echo": 2, "leaks": 44, "leaks_tcp": 32, "leaks_icmp": 12, "udp_unanswered": 7}
    assert farend._counted(totals) == "tcp 2,724, udp 1,394, echo 2; leaks 44 (tcp 32, icmp 12); udp unanswered 7"
    assert farend._counted({}) == ""


@pytest.mark.parametrize(
    ("columns", "head"),
    [
        (100, ["kind", "family", "sent", "ok", "lost", "delayed", "leaked", "p50", "worst", "p99"]),
        (60, ["kind", "family", "sent", "ok", "lost", "worst", "p99"]),
    ],
)
def test_the_live_table_fits_the_terminal(
    columns: int, head: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    view = probe_view.LiveView()
    view.emit(e.Header(t=0, tool="probe", version="1", config={"endpoints": ENDPOINTS, "rate": 1000.0}))
    sent = e.Attempts(t=0, interval_ns=SECOND // 10, kind="stream", family="ipv4", sent=123456, ok=123450, lost=6)
    view.emit(msgspec.structs.replace(sent, latency_p50_ns=999_900_000, latency_p99_ns=999_900_000))
    console = Console(width=columns, no_color=True)
    with console.capture() as capture:
        console.print(view._table("what the last second was like"))
    view.close()
    lines = capture.get().splitlines()
    assert next(line for line in lines if "kind" in line).split() == head
    assert next(line for line in lines if "stream" in line).split()[-2:] == ["999.9", "ms"], "a row is one line"
    assert "…" not in capture.get()
    told = capfd.readouterr().out.partition("Ctrl-C ends")[0].splitlines()
    assert max(map(len, told)) <= columns
