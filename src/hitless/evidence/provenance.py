"""Where, when and with which versions a result was measured, and one line to cite it.

Problem: "0 lost" without host, kernel, versions and the log's checksum can be neither repeated nor checked. Promise:
``provenance`` collects the facts from the headers of a log, each once; facts that a log does not have (of an earlier
version, or anonymous) are left out. ``cite`` is one line with each agent's figures. Next stage: ``reports``.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from hitless.evidence.doubts import not_sent
from hitless.evidence.phrases import duration, plural
from hitless.evidence.records import RecordedDrill
from hitless.evidence.verdict import AgentVerdict, Verdict
from hitless.model import events as e

__all__ = ["NodeSystem", "Provenance", "cite", "facts", "provenance", "utc"]


class NodeSystem(msgspec.Struct, frozen=True):
    """A node's kernel and processors, as reported by the tools that ran on it."""

    node: str
    kernel: str
    arch: str
    cpus: int


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where, when and with which versions; ``tools``: the versions of hitless of watch, probe and far end."""

    drill: str = ""
    started: str = ""
    ended: str = ""
    host: str = ""
    anonymous: bool = False
    kernel: str = ""
    arch: str = ""
    cpus: int = 0
    cpu: str = ""
    os: str = ""
    iptables: str = ""
    nft: str = ""
    version: str = ""
    tools: tuple[str, ...] = ()
    nodes: tuple[NodeSystem, ...] = ()
    target: str = ""
    command: str = ""
    log_sha256: str = ""


def utc(t: int) -> str:
    """A time in ISO 8601, in UTC, to the second."""
    return datetime.fromtimestamp(t // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")


def provenance(recorded: RecordedDrill) -> Provenance:
    """The facts of a log."""
    header = recorded.header
    machine = header.machine if header and header.machine else e.Machine()
    ends = [record.last for record in recorded.records if record.last]
    headers = [one for record in recorded.records for one in record.headers]
    cluster = recorded.settings.target == "cluster"
    places: dict[str, NodeSystem] = {}
    for record in recorded.records:
        for one in record.headers:
            if cluster and one.tool in ("watch", "probe") and one.machine is not None:
                there = one.machine
                places.setdefault(record.node, NodeSystem(record.node, there.kernel, there.arch, there.cpus))
    return Provenance(
        drill=header.drill if header else "",
        started=utc(header.t) if header else "",
        ended=utc(max(ends)) if ends else "",
        host=machine.host,
        anonymous=bool(header and header.anonymous),
        kernel=machine.kernel,
        arch=machine.arch,
        cpus=machine.cpus,
        cpu=machine.cpu,
        os=machine.os,
        iptables=machine.iptables,
        nft=machine.nft,
        version=recorded.settings.version,
        tools=tuple(sorted({one.version for one in headers if one.version})),
        nodes=tuple(places.values()),
        target=recorded.settings.target,
        command=header.command if header else "",
        log_sha256=recorded.sha256,
    )


def _cpus(number: int) -> str:
    return f"{number} CPU{'' if number == 1 else 's'}" if number else ""


def _host(found: Provenance) -> str:
    name = found.host or ("an anonymous host" if found.anonymous else "a host that the log does not name")
    parts = [f"kernel {found.kernel}" if found.kernel else "", found.arch, _cpus(found.cpus)]
    parts += [f"iptables {found.iptables}" if found.iptables else "", f"nft {found.nft}" if found.nft else ""]
    known = ", ".join(filter(None, parts))
    return f"{name}{f' ({known})' if known else ''}"


def _where(found: Provenance) -> str:
    if found.target != "cluster":
        return f"on {_host(found)}"
    nodes = ", ".join(f"{one.node} (kernel {one.kernel}, {one.arch}, {_cpus(one.cpus)})" for one in found.nodes)
    return f"on {nodes or 'nodes whose kernel the log does not say'}, driven from {_host(found)}"


def _versions(found: Provenance) -> str:
    others = [one for one in found.tools if one != found.version]
    return f"hitless {found.version}" + (f" (its tools: {', '.join(others)})" if others else "")


def cite(recorded: RecordedDrill, verdict: Verdict) -> str:
    """One line for a paper, an issue or a chat."""
    found = provenance(recorded)
    results = "; ".join(
        f"{one.name}, {one.restarts} restart{'' if one.restarts == 1 else 's'}: "
        f"{one.lost:,} of {one.attempted:,} lost{_besides(one)}"
        for one in verdict.agents
    )
    whole = "" if verdict.whole else "; cut off before its end"
    checksum = f"; log sha256 {found.log_sha256}" if found.log_sha256 else ""
    drill = f" {found.drill}" if found.drill else ""
    return f"hitless drill{drill}, {found.started}, {_where(found)}: {results}{whole}{checksum}; {_versions(found)}"


def _besides(one: AgentVerdict) -> str:
    """What the number of losses does not show."""
    pods = one.pod_to_pod
    longest = f", longest {duration(one.longest_gap_ms)}"
    more = ""
    if not one.lost:
        more += f", {plural(one.gaps, 'gap')} in the rules{longest}" if one.gaps else ""
        more += f", {plural(one.leaked, 'packet')} leaked" if one.leaked else ""
        more += f", {plural(one.broken_streams, 'stream')} broken" if one.broken_streams else ""
    more += f", pod to pod {pods.lost:,} of {pods.attempted:,} lost" if pods.attempted else ""
    more += f", {one.lost_outside:,} more to anything outside" if one.lost_outside else ""
    more += f", {one.undecided:,} undecided" if one.undecided else ""
    more += f", {one.skipped:,} not sent" if not_sent(one) else ""
    return more + (" (could not tell)" if one.verdict == "inconclusive" else "")


def facts(recorded: RecordedDrill) -> list[tuple[str, str]]:
    """The known facts and their names, as reports show them."""
    found = provenance(recorded)
    until = f" to {found.ended}" if found.ended else ""
    rows = [
        ("drill", found.drill),
        ("time", f"{found.started}{until}" if found.started else ""),
        ("driven from" if found.target == "cluster" else "host", _host(found) if found.kernel or found.host else ""),
        ("processor", found.cpu),
        ("system", found.os),
        *(("node", f"{one.node} (kernel {one.kernel}, {one.arch}, {_cpus(one.cpus)})") for one in found.nodes),
        ("hitless", _versions(found).removeprefix("hitless ") if found.version else ""),
        ("command", found.command),
        ("log sha256", found.log_sha256),
    ]
    return [(name, text) for name, text in rows if text]
