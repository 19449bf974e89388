"""``hitless advise``: which flannel a release runs, what its restart costs, what helps.

Problem: "does my cluster have this, and what can I do today?". Promise: the answer and its reasons for a release
(``--version``), a flannel (``--flannel``), this machine (``--node``) or a cluster (``--cluster``), as text or JSON.
It changes nothing, and reads a cluster only on request. Exit codes: 0 nothing that ``--fail-on`` names, 1 found,
2 cannot tell, 3 wrong input.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hitless.advice import judgement as advising
from hitless.advice import releases
from hitless.cli.advise_view import text
from hitless.cli.exits import Exit
from hitless.cli.sections import Sections
from hitless.errors import InputError
from hitless.model.versions import find_flannel, find_releases

if TYPE_CHECKING:
    from hitless.advice.judgement import Advice
    from hitless.advice.releases import ReleaseTable

__all__ = ["command"]

_LONGEST_INPUT = 1_000_000  # bytes


@click.command(
    name="advise",
    cls=Sections,
    examples={
        "hitless advise --node": "this machine",
        "hitless advise --version v1.32.5+rke2r1": "a release",
        "kubectl get nodes | hitless advise --version - --json": "every release of a cluster, for machines",
    },
    help="Which flannel a release of RKE2 or K3s runs, what its restart costs the pods, and what helps.\n\n"
    "Exit codes: 0 nothing that --fail-on names, 1 found it, 2 unknown, 3 wrong input.",
)
@click.option(
    "--version",
    "version",
    metavar="RELEASE",
    help="A release, e.g. v1.32.5+rke2r1, or a text with releases in it, such as what 'rke2 --version' or 'kubectl get "
    "nodes' prints; - reads it from standard input.",
)
@click.option(
    "--flannel",
    "flannel",
    metavar="VERSION",
    help="A flannel version or image, or a text with one in it, where that is known; - reads it from standard input.",
)
@click.option("--node", "node", is_flag=True, help="This machine: asks rke2 or k3s, and the running flanneld.")
@click.option("--cluster", "cluster", is_flag=True, help="A cluster: every node's release and flannel's image.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="With --cluster: the kubeconfig file.")
@click.option("--context", help="With --cluster: the context of the kubeconfig.")
@click.option(
    "--releases",
    "release_file",
    type=click.Path(path_type=Path),
    help="A CSV file with releases that this version does not know (docs/advise.md).",
)
@click.option(
    "--fail-on",
    type=click.Choice(["affected", "window"]),
    default="affected",
    show_default=True,
    help="What ends with exit code 1: rules removed at exit, or the short flush at start too.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    version: str | None,
    flannel: str | None,
    node: bool,
    cluster: bool,
    kubeconfig: Path | None,
    context: str | None,
    release_file: Path | None,
    fail_on: str,
    as_json: bool,
) -> int:
    """See the module's docstring."""
    given = (("--version", version is not None), ("--node", node), ("--cluster", cluster))
    asked = [name for name, meant in given if meant]
    if len(asked) > 1 or (flannel is not None and asked not in ([], ["--version"])):
        raise InputError("give one of --version, --flannel, --node and --cluster", where="advise")
    if not asked and flannel is None:
        raise InputError("nothing to advise on", where="advise", expected="--version, --flannel, --node or --cluster")
    if (kubeconfig or context) and not cluster:
        raise InputError("--kubeconfig and --context belong to --cluster", where="advise")
    table = releases.packaged()
    if release_file is not None:
        table = releases.with_file(table, release_file)
    notes: list[str] = []
    if node:
        answers = [_of_node(table, notes)]
    elif cluster:
        answers = _of_cluster(table, kubeconfig, context, notes)
    else:
        answers = _of_releases(table, version, flannel)
    if as_json:
        click.echo(_json(answers, notes))
    else:
        width = shutil.get_terminal_size().columns
        click.echo(text(answers, notes, width), color=False if os.environ.get("NO_COLOR") else None)
    return _exit(answers, fail_on)


def _of_releases(table: ReleaseTable, version: str | None, flannel: str | None) -> list[Advice]:
    """The advice for the values of the options, or for standard input with ``-``."""
    if version == flannel == "-":
        raise InputError("only one of --version and --flannel can be read from standard input", where="advise")
    running = find_flannel(_text(flannel), where=_where("--flannel", flannel)) if flannel is not None else None
    if version is None:
        return [advising.advise(table, None, running=running)]
    named = find_releases(_text(version), where=_where("--version", version))
    if running is not None and len(named) > 1:
        raise InputError("names several releases, and --flannel one version", where="--version", expected="one release")
    return [advising.advise(table, one, running=running) for one in named]


def _text(given: str) -> str:
    """What was given, or all of standard input, a megabyte at most."""
    if given != "-":
        return given
    if sys.stdin.isatty():
        click.echo("reading from standard input; end with Ctrl-D", err=True)
    data = sys.stdin.buffer.read(_LONGEST_INPUT + 1)
    if len(data) > _LONGEST_INPUT:
        raise InputError("more than 1 MB", where="standard input", expected="what a --version command prints")
    return data.decode("utf-8", errors="replace")


def _where(option: str, given: str) -> str:
    return "standard input" if given == "-" else option


def _of_node(table: ReleaseTable, notes: list[str]) -> Advice:
    from hitless.advice import nodes as this_node

    found = this_node.installed_versions()
    notes.extend(found.notes)
    return advising.advise(table, found.release, running=found.flannel, running_source=found.flannel_source)


def _of_cluster(table: ReleaseTable, kubeconfig: Path | None, context: str | None, notes: list[str]) -> list[Advice]:
    from hitless.advice.clusters import advise_cluster

    return advise_cluster(table, kubeconfig, context, notes)


def _exit(answers: list[Advice], fail_on: str) -> int:
    found = {one.status for one in answers}
    if "affected" in found or (fail_on == "window" and "window" in found):
        return Exit.FAIL
    return Exit.INCONCLUSIVE if "unknown" in found or not found else Exit.PASS


def _json(answers: list[Advice], notes: list[str]) -> str:
    import msgspec

    if len(answers) == 1 and not notes:
        return msgspec.json.format(msgspec.json.encode(answers[0]), indent=2).decode()
    whole = {"schema": 1, "answers": answers, "notes": notes}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()
