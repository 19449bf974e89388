"""Checks the options of ``hitless drill --cluster``, all of them.

Problem: a mistake in the tenth option must not be found by a server, after half of a drill was made. Promise: every
value that can be checked without the cluster is checked here, before the first request; an error is an ``InputError``
with the option, the value and what was expected. Whether an object exists is checked by the survey. Next stage:
``preparation``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hitless.errors import InputError

if TYPE_CHECKING:
    from hitless.cluster.choices import Choices

__all__ = ["abort_after", "check", "check_gateway", "check_places", "check_rollout"]

# Names of the Kubernetes API (RFC 1123): a label, and labels joined by dots.
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL.pattern}(?:\.{_LABEL.pattern})*", re.ASCII)
_LETTERS = "small letters, digits and hyphens"

# Keys and values of labels: [PREFIX/]NAME, where the prefix is a subdomain and name and value are of up to 63 letters.
_WORD = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII)

# Image references (distribution's grammar): [HOST[:PORT]/]PATH[:TAG][@DIGEST].
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{{32,}})?",
    re.ASCII,
)


def check(choices: Choices) -> None:
    """Refuse options that are wrong for every cluster; raises ``InputError``."""
    if choices.round_robin and choices.nodes:
        raise InputError("names a node, and the turn decides", where="--node", expected="--round-robin without it")
    if choices.node_selector and choices.nodes:
        raise InputError("goes by labels, and --node by name", where="--node-selector", expected="one of the two")
    if choices.count is not None and choices.nodes:
        raise InputError("counts nodes, and --node names them", where="--nodes", expected="one of the two")
    check_places(choices)
    if len(choices.namespaces) > 1:
        raise InputError("was given twice", where="--namespace", expected="one (many only with --cleanup)")
    for name in choices.nodes:
        _name(name, "--node", "node")
    for name in choices.pull_secrets:
        _name(name, "--pull-secret", "Secret")
    _agent(choices.agent)
    _selector(choices.node_selector)
    _image(choices.image)
    check_gateway(choices.push_metrics)
    abort_after(choices.abort_after)
    _profile(choices.watch_profile)
    from hitless.probe import targets

    for url in choices.to:
        if url != "node":
            targets.parse(url)


def check_rollout(
    *,
    namespaces: Sequence[str],
    nodes: Sequence[str],
    secrets: Sequence[str],
    agent: str,
    selector: str,
    image: str,
    profile: str | None,
    to: Sequence[str],
) -> None:
    """The same for ``hitless rollout``, which has some of a drill's options; raises ``InputError``."""
    named = zip(("--namespace", "--probe-namespace"), namespaces, strict=True)
    _places((flag, one) for flag, one in named if one or flag == "--namespace")
    for name in nodes:
        _name(name, "--node", "node")
    for name in secrets:
        _name(name, "--pull-secret", "Secret")
    _agent(agent)
    _selector(selector)
    _image(image)
    _profile(profile)
    from hitless.probe import targets

    for url in to:
        if url != "node":
            targets.parse(url)


def check_places(choices: Choices) -> None:
    """Refuse an invalid name of a namespace; raises ``InputError``."""
    places = [("--namespace", one) for one in choices.namespaces]
    if choices.probe_namespace:
        places.append(("--probe-namespace", choices.probe_namespace))
    _places(places)


def _places(places: Iterable[tuple[str, str]]) -> None:
    for flag, one in places:
        if not _LABEL.fullmatch(one):
            raise InputError(f"{one!r} can be no namespace's name", where=flag, expected=f"up to 63 {_LETTERS}")


def abort_after(text: str | None) -> tuple[int, float]:
    """Losses, and seconds without egress, after which a drill stops; 0 where it does not."""
    if text is None:
        return 0, 0.0
    match = re.fullmatch(r"([0-9]{1,9})(s?)|([0-9]{1,6}\.[0-9]{1,3})s", text, re.ASCII)
    if match is None or float(match[1] or match[3]) <= 0:
        raise InputError(
            f"{text!r} is not a limit", where="--abort-after", expected="losses (500), or seconds without egress (10s)"
        )
    return (int(match[1]), 0.0) if match[1] and not match[2] else (0, float(match[1] or match[3]))


def _name(text: str, flag: str, what: str) -> None:
    if not _SUBDOMAIN.fullmatch(text):
        raise InputError(f"{text!r} can be no {what}'s name", where=flag, expected=f"a name {_LETTERS}, with dots")


def _agent(text: str) -> None:
    if not text:
        return
    place, *rest = text.split("/")
    container = rest[1:]
    fits = len(rest) in (1, 2) and _LABEL.fullmatch(place) and _SUBDOMAIN.fullmatch(rest[0])
    if not fits or not all(map(_LABEL.fullmatch, container)):
        expected = "NAMESPACE/DAEMONSET or NAMESPACE/DAEMONSET/CONTAINER, as kube-system/rke2-canal/kube-flannel"
        raise InputError(f"{text!r} names no container of a DaemonSet", where="--agent", expected=expected)


def _selector(text: str) -> None:
    for term in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = term.partition("=")
        prefix, slash, name = key.rpartition("/")
        fits = _WORD.fullmatch(name) and (not slash or _SUBDOMAIN.fullmatch(prefix))
        if not fits or (value and not _WORD.fullmatch(value)):
            expected = "labels that a node must have, KEY=VALUE or KEY, separated by commas"
            raise InputError(f"{term!r} is not a label", where="--node-selector", expected=expected)


def _image(text: str) -> None:
    if not _IMAGE.fullmatch(text):
        expected = "[REGISTRY/]NAME[:TAG][@DIGEST], as ghcr.io/hitless/hitless:1.0"
        raise InputError(f"{text!r} is not an image", where="--image", expected=expected)


def check_gateway(text: str) -> None:
    """Refuse what is not the URL of a Pushgateway, for ``--push-metrics``; raises ``InputError``."""
    if not text:
        return
    expected = "a Pushgateway, http://HOST:PORT or https://HOST[/PATH]"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{text!r}: {error}", where="--push-metrics", expected=expected) from error
    if "@" in parts.netloc:  # not quoted: it may hold a password
        raise InputError(
            "there is a user's name in the URL", where="--push-metrics", expected=f"{expected}, without USER@"
        )
    printable = text.isascii() and text.isprintable() and " " not in text
    if parts.scheme not in ("http", "https") or not host or port == 0 or not printable or parts.query or parts.fragment:
        raise InputError(f"{text!r} is not such a URL", where="--push-metrics", expected=expected)


def _profile(text: str | None) -> None:
    from hitless.watch import profiles

    if text is not None and text not in (known := profiles.shipped()):
        raise InputError(
            f"{text!r} is not in the pods' image",
            where="--watch-profile",
            expected=f"one of {', '.join(sorted(known))}",
        )
