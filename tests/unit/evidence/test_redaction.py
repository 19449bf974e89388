"""No secret gets into a record; no name of a machine where --anonymous was said, wherever it hides."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.unit.drill.fake_targets import FakeSubject, FakeTarget, VirtualClock
from tests.unit.evidence.drill_logs import Drill, outage_drill
from tests.unit.lab.virtual_time import run as virtually

from hitless.cli.report import command
from hitless.drill import DrillPlan, SubjectRecorder, run
from hitless.drill.origins import Origin
from hitless.evidence import LogWriter, read
from hitless.evidence.redaction import Mask, names_in
from hitless.evidence.reports import render
from hitless.kernel import machine
from hitless.model import events as e

SECRET = "hunter22-Xyz"
TEXTS = [
    f"--etcd-password={SECRET}",
    f"--etcd-password {SECRET} --rounds 3",
    f"--token '{SECRET}'",
    f'--token "{SECRET}"',
    f"-etcd-password={SECRET}",
    f"'--api-key' '{SECRET}'",
    f"ETCD_PASSWORD={SECRET} flanneld",
    f"K3S_TOKEN={SECRET}",
    f"https://user:{SECRET}@example.org/x",
    f"https://{SECRET}@example.org/",
    f"http://example.org/?access_token={SECRET}&x=1",
    f"https://example.org/?x=1&X-Amz-Signature={SECRET}",
    f"curl -H 'Authorization: Bearer {SECRET}' x",
    f"curl -H 'Authorization: Basic {SECRET}' x",
    f"curl -u admin:{SECRET} x",
    f"--proxy-user admin:{SECRET}",
    f'{{"password": "{SECRET}"}}',
    f'{{"bot_token":"{SECRET}"}}',
    f"sh -c 'flanneld --etcd-password={SECRET}'",
    f"client_secret: {SECRET}",
]


@pytest.mark.parametrize("text", TEXTS)
def test_secrets_are_taken_out_of_texts(text: str) -> None:
    found = Mask().text(text)
    assert SECRET not in found and "***" in found


@pytest.mark.parametrize(
    "text",
    [
        "hitless drill --rounds 3 --out /tmp/x",
        "--etcd-keyfile /etc/etcd/key.pem",
        "--token-file=/run/secrets/token",
        "iptables-nft -t nat -A FLANNEL-POSTRTG -m comment --comment flanneld masq -j RETURN",
        "https://example.org:6443/a@b",
        "farend://10.0.0.1",
        "lost 3 of 12,000 attempts",
        "ssh user@host uptime",
        "--enable-bootstrap-token-auth=true --rounds 3",
        "K3S_TOKEN= k3s server",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Mask().text(text) == text


def test_a_secret_of_the_command_is_removed_from_other_texts_too() -> None:
    mask = Mask()
    head = e.Header(t=1, tool="drill", version="1", command=f"hitless drill --agent-command 'x --token={SECRET}'")
    assert SECRET not in e.encode(mask.event(head)).decode()
    said = e.Restart(t=2, step="exited", node="n", detail=f"cannot use {SECRET}: refused")
    assert e.encode(mask.event(said)).decode().count("***") == 1


@pytest.mark.parametrize("text", TEXTS)
def test_no_field_of_any_event_keeps_one(text: str) -> None:
    writer = e.Writer(pid=1, comm="sh", argv=text)
    events: list[e.Event] = [
        e.Header(
            t=1, tool="probe", version="1", config={"to": [text], "method": text, "deep": {"er": text}}, command=text
        ),
        e.Change(t=1, family="ipv4", backend="nft", table="nat", writer=writer, summary=text),
        e.Gap(
            t=1, family="ipv4", network="10.42.0.0/16", begin=1, end=2, reason=text, opened_by=writer, closed_by=writer
        ),
        e.Note(t=1, level="info", text=text),
        e.Restart(t=1, step="failed", method=text, detail=text),
        e.Summary(t=1, tool="probe", detail=text),
    ]
    mask = Mask()
    for event in events:
        found = mask.event(event)
        assert type(found) is type(event)
        assert SECRET not in e.encode(found).decode()


@pytest.mark.parametrize("text", ["cannot read the token: permission denied", "--password=abc", "token: Unauthorized"])
def test_ordinary_words_are_not_removed_from_other_texts(text: str) -> None:
    mask = Mask()
    mask.text(text)
    plain = "permission denied: Unauthorized, abc"
    assert mask.text(plain) == plain


def test_a_field_that_is_called_a_secret_is_one() -> None:
    found = Mask().event(e.Header(t=1, tool="x", version="1", config={"token": "abc", "rate": 5}))
    assert isinstance(found, e.Header) and found.config == {"token": "***", "rate": 5}


def test_events_without_anything_to_hide_are_the_same_object() -> None:
    mask = Mask(names_in(host="worker-7", nodes=["worker-7"]))
    event = e.Attempts(t=1, interval_ns=1, kind="tcp", family="ipv4", sent=1, ok=1)
    assert mask.event(event) is event


HOST, NODE, OTHER = "build-box.corp.example", "worker-12.corp.example", "worker-1"


def names() -> dict[str, str]:
    return names_in(
        host=HOST, nodes=[NODE, OTHER], urls=["https://api.prod.example:6443", "farend://edge.example"],
        images=["registry.corp.example:5000/rancher/flannel:v1"], keep=["rke2-canal"],
    )  # fmt: skip


def test_names_have_the_same_placeholder_everywhere_and_parts_of_words_are_not_replaced() -> None:
    mask = Mask(names())
    assert mask.text(f"{NODE}, {OTHER}, worker-12, WORKER-1 and worker-11 of {HOST}") == (
        "node-1, node-2, node-1, node-2 and worker-11 of host"
    )
    assert (
        mask.text("https://api.prod.example:6443/x farend://edge.example")
        == "https://address-1:6443/x farend://address-2"
    )
    assert mask.text("kube-proxy-worker-1") == "kube-proxy-node-2"
    assert mask.text("image registry.corp.example:5000/rancher/flannel:v1") == "image registry:5000/rancher/flannel:v1"
    assert mask.text("/home/alice/drill/events.jsonl") == "~/drill/events.jsonl"
    assert mask.text("x --kubeconfig /etc/prod.yaml --context prod-eu y") == "x --kubeconfig *** --context *** y"
    assert mask.text("10.0.0.1 and 2001:db8::1") == "10.0.0.1 and 2001:db8::1"


@dataclass
class NamedTarget(FakeTarget):
    """A cluster whose nodes have names of their own."""

    @property
    def config(self) -> dict[str, Any]:
        return {
            "target": "cluster", "far_end": False, "server": "https://api.prod.example:6443", "nodes": [NODE],
            "helpers": [OTHER], "to": [f"https://user:{SECRET}@edge.example/"],
            "image": "registry.corp.example/flannel:v1",
        }  # fmt: skip

    def subjects(self) -> Any:
        one = super().subjects()[0]
        return [type(one)(one.agent, NODE)]


def drilled(tmp_path: Path, *, anonymous: bool) -> Path:
    """A drill of a cluster whose events name everything somewhere."""

    def subject(recorder: SubjectRecorder) -> FakeSubject:
        recorder.note("info", f"{OTHER} answers for {NODE} at edge.example, from {HOST}; token={SECRET}")
        recorder.write(e.Restart(t=recorder.now, step="started", round=0, detail=f"pod canal-x on {NODE}"))
        return FakeSubject(recorder, gap=0.05, lost=3)

    origin = Origin(
        f"hitless drill --cluster --node {NODE} --to https://user:{SECRET}@edge.example/ --out /home/alice/{HOST}",
        e.Machine(host=HOST, kernel="6.1.0", arch="x86_64", cpus=4, iptables="1.8.9 (nf_tables)", nft="1.0.6"),
        anonymous,
    )
    log = tmp_path / "events.jsonl"
    target = NamedTarget({"rke2-canal": subject})
    seen: list[e.Event] = []

    async def main() -> None:
        plan = DrillPlan(rounds=1, baseline=1.0, settle=0.5, recovery=3.0, patience=5.0)
        told, verdict = await run(
            plan, target, log, judged="rke2-canal", clock=VirtualClock(), origin=origin, observer=seen.append
        )
        for form in ("terminal", "html", "json", "junit", "prometheus", "svg"):
            (tmp_path / f"report.{form}").write_text(render(form, told, verdict))

    virtually(main())
    (tmp_path / "seen").write_bytes(b"\n".join(e.encode(one) for one in seen))
    return log


HIDDEN = (HOST, NODE, OTHER, "build-box", "worker-12", "edge.example", "api.prod", "registry.corp", "alice")


def test_an_anonymous_drill_names_no_machine_in_log_reports_and_live_events(tmp_path: Path) -> None:
    log = drilled(tmp_path, anonymous=True)
    for path in tmp_path.iterdir():
        text = path.read_text()
        assert [name for name in (*HIDDEN, SECRET) if name in text] == [], path
    assert json.loads((tmp_path / "report.json").read_text())["events"] == log.name
    assert 'hostname="anonymous"' in (tmp_path / "report.junit").read_text()
    assert "node-1" in (tmp_path / "report.terminal").read_text()


def test_a_log_with_names_is_reported_without_them_where_that_is_asked(tmp_path: Path) -> None:
    log = drilled(tmp_path, anonymous=False)
    assert NODE in log.read_text() and SECRET not in log.read_text()
    for form in ("terminal", "html", "json", "junit", "prometheus", "svg"):
        done = CliRunner().invoke(command, [str(log), "--format", form, "--anonymous"], standalone_mode=False)
        assert [name for name in HIDDEN if name in done.output] == [], form
        shown = CliRunner().invoke(command, [str(log), "--format", form], standalone_mode=False)
        assert form == "svg" or NODE in shown.output or HOST in shown.output


def test_the_log_of_a_real_command_names_this_host_unless_anonymous() -> None:
    assert machine.whole().host == socket.gethostname()
    assert machine.kernel().host == ""
    assert machine.kernel().cpus >= 1 and machine.kernel().kernel


def test_a_log_of_the_lab_keeps_the_labs_own_names(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "events.jsonl") as writer:
        writer.write(*Drill(agent="hitless", node="node0").log())
    done = CliRunner().invoke(command, [str(tmp_path), "--format", "json", "--anonymous"], standalone_mode=False)
    assert json.loads(done.output)["agents"][0]["nodes"] == ["node0"]


def test_the_checksum_is_the_files_own(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with LogWriter(path) as writer:
        writer.write(*outage_drill().log())
    said = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]
    assert read(path).sha256 == said
    shown = subprocess.run(
        [sys.executable, "-m", "hitless", "report", str(path)], capture_output=True, text=True, check=False
    )
    assert f"log sha256 {said}" in " ".join(shown.stdout.split())
