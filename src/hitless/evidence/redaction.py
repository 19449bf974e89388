"""Removing secrets from events, and with ``--anonymous`` the names of machines.

Problem: logs are attached to bug reports, and command lines, URLs, notes and other programs' error messages may contain
a password or a node's name. Promise: ``Mask.event`` returns the event with every text passed through ``Mask.text``.
Secrets are recognised by their form (a URL's user, options and fields called token, password and so on, bearer and
well-known tokens), and a value that was found once is removed wherever it occurs again. Names are known beforehand
(``names_in``) and always replaced by the same placeholder; addresses stay. Fields of the format (type, kind, phase …)
are never changed. Next stage: ``log`` writes the event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from hitless.model import events as e
from hitless.model import reading

__all__ = ["HIDDEN", "Mask", "names_in", "names_of"]

HIDDEN = "***"

_KEYWORD = (
    r"(?:token|passw(?:or)?d|passphrase|secret|credentials?|(?:api|access|private|auth|encryption)[-_]?key"
    r"|signature|psk)"
)
_NAME = rf"[\w.-]*{_KEYWORD}[\w-]*"
_VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s"'&;,})\]]+)"""
_NOT_SECRET = ("file", "files", "path", "dir", "name", "ttl", "type")
"""Suffixes of option names whose value is the location or type of a secret, not the secret."""

_URL_USER = re.compile(r"""(\b[A-Za-z][A-Za-z0-9+.-]*://)([^\s/?#'"]*)@""")
_ASSIGNED = re.compile(rf"""(?i)(?<![\w-])(-{{0,2}}{_NAME})(\\?["']?(?:=|\s+=\s+|\s*:\s*)\\?)({_VALUE})""")
_OPTION = re.compile(rf"""(?i)((?<!\S)["']?--?{_NAME})(["']?\s+)(?!-)({_VALUE})""")
_USER = re.compile(r"""((?<!\S)(?:-u|--user|--proxy-user)[ =]["']?)([^\s:"']+:[^\s"']+)""")
_HEADER = re.compile(r"""(?i)(authorization\\?["']?\s*[:=]\s*\\?["']?)((?:(?:bearer|basic|token)\s+)?[^\s"'\\]+)""")
_BEARER = re.compile(r"(?i)(\bbearer\s+)([A-Za-z0-9._~+/=-]{16,})")
_TOKEN = re.compile(
    r"()(\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?|\bK10[0-9a-f]{20,}(?:::[^\s\"']+)?|\bgh[pousr]_\w{20,}|\bAKIA[0-9A-Z]{16}\b)"
)
_SUSPECT = re.compile(
    rb"(?i)://[^\s/?#\"']*@|token|passw|passphrase|secret|credential|[-_a-z]key|signature|psk|authorization|bearer"
    rb"|eyJ|K10|gh[pousr]_|AKIA|-u |--user|--proxy-user"
)
"""A quick test of the whole line: only lines that match are examined text by text."""

_HOST_OF_URL = re.compile(r"""://(?:[^\s/@]*@)?(\[[^\]]*\]|[^\s/:?#'"\\]+)""")
_REGISTRY = re.compile(r"(?:^|[\s=])([a-z0-9-]+(?:\.[a-z0-9-]+)+)(?::\d+)?/[\w./-]+(?::[\w.-]+)?")
_PUBLIC = frozenset(
    {"docker.io", "ghcr.io", "quay.io", "gcr.io", "registry.k8s.io", "k8s.gcr.io", "mcr.microsoft.com", "localhost"}
)
_HOME = re.compile(r"""/(?:home|Users)/[^/\s'":]+""")
_PLACE = re.compile(rf"(?<!\S)(--(?:context|kubeconfig|out)[ =])({_VALUE})")
_FORMAT = frozenset(
    {"type", "kind", "family", "phase", "step", "cause", "stream", "tool", "level", "state", "backend", "version", "t"}
)
_SWITCHES = frozenset({"", "true", "false", "yes", "no", "on", "off", "none", "null"})
_NUMBERS = (e.Attempts, e.Leak, e.Recovery)
_SHORTEST = 6
"""Shorter secrets are not searched for in other texts: they would match ordinary words."""


class Mask:
    """Removes secrets from events, and replaces ``names`` by their placeholders."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names = {name.lower(): placeholder for name, placeholder in (names or {}).items() if name}
        ordered = "|".join(re.escape(name) for name in sorted(self._names, key=lambda one: (-len(one), one)))
        self._named = re.compile(rf"(?i)(?<![a-z0-9])(?:{ordered})(?![a-z0-9])") if ordered else None
        self._secrets: set[str] = set()
        self._placeholders: dict[str, str] = {}
        self._suspect = _SUSPECT
        self.anonymous = names is not None
        self._compile()

    def _compile(self) -> None:
        known = [re.escape(one.encode()) for one in (*self._names, *self._secrets)]
        homes = [rb"/home/", rb"/Users/"] if self.anonymous else []
        self._suspect = re.compile(rb"|".join([_SUSPECT.pattern, *known, *homes]))

    def text(self, text: str) -> str:
        """The text without secrets, and without the names."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        text = self._without_secrets(text)
        if self.anonymous:
            text = _PLACE.sub(rf"\1{HIDDEN}", text)
            text = _HOME.sub("~", text)
        if self._named is not None:
            text = self._named.sub(lambda found: self._names[found[0].lower()], text)
        return text

    def _without_secrets(self, text: str) -> str:
        def user(found: re.Match[str]) -> str:
            self._learn(found[2].partition(":")[2])
            return f"{found[1]}{HIDDEN}@"

        def plain(found: re.Match[str]) -> str:
            self._learn(found[2])
            return f"{found[1]}{HIDDEN}"

        def named(found: re.Match[str]) -> str:
            value = found[3].strip("\"'")
            if found[1].lower().endswith(_NOT_SECRET) or HIDDEN in value or value.lower() in _SWITCHES:
                return found[0]
            quote = found[3][0] if found[3][0] in "\"'" else ""
            # "token: refused" may be ordinary text: hidden here, but not searched for in other texts
            if quote or ":" not in found[2] or '"' in found[2] or not value.isalpha():
                self._learn(value)
            return f"{found[1]}{found[2]}{quote}{HIDDEN}{quote}"

        text = _URL_USER.sub(user, text)
        for pattern in (_HEADER, _BEARER, _USER, _TOKEN):
            text = pattern.sub(plain, text)
        for pattern in (_ASSIGNED, _OPTION):
            text = pattern.sub(named, text)
        return text

    def _learn(self, secret: str) -> None:
        if len(secret) >= _SHORTEST and secret != HIDDEN and secret not in self._secrets:
            self._secrets.add(secret)
            self._compile()

    def event(self, event: e.Event) -> e.Event:
        """The event without secrets and names; the same object if it has none."""
        if isinstance(event, _NUMBERS) or (isinstance(event, e.Loss) and not event.detail):
            return self._with_placeholders(event)
        if self.anonymous and isinstance(event, e.Header):
            machine = None if event.machine is None else msgspec.structs.replace(event.machine, host="")
            event = msgspec.structs.replace(event, machine=machine, anonymous=True)
        line = e.encode(event)
        if not self._suspect.search(line):
            return event
        return e.decode(msgspec.json.encode(self._walked(msgspec.json.decode(line))))

    def _with_placeholders(self, event: e.Event) -> e.Event:
        """A fast path for frequent events, whose only texts are the names of node and agent."""
        if not self.anonymous:
            return event
        for name in (event.node, event.agent):
            if name not in self._placeholders:
                self._placeholders[name] = self.text(name)
        node, agent = self._placeholders[event.node], self._placeholders[event.agent]
        if (node, agent) == (event.node, event.agent):
            return event
        return msgspec.structs.replace(event, node=node, agent=agent)

    def _walked(self, value: Any, key: str = "") -> Any:
        if isinstance(value, str):
            return value if key in _FORMAT else self.text(value)
        if isinstance(value, dict):
            # a field with the name of a secret contains one, whatever its form
            hidden = {name for name, one in value.items() if isinstance(one, str) and one and _is_secret(name)}
            for name in hidden:
                self._learn(value[name])
            return {name: HIDDEN if name in hidden else self._walked(one, name) for name, one in value.items()}
        if isinstance(value, list):
            return [self._walked(one, key) for one in value]
        return value


def _is_secret(name: str) -> bool:
    return bool(re.fullmatch(rf"(?i){_NAME}", name)) and not name.lower().endswith(_NOT_SECRET)


def names_in(
    *, host: str, nodes: Iterable[str], urls: Sequence[str] = (), images: Sequence[str] = (), keep: Iterable[str] = ()
) -> dict[str, str]:
    """The names that identify machines, each with its placeholder.

    ``urls`` and ``images`` are texts that may contain such names, the API server's first; ``keep``: other names, which
    stay.
    """
    found: dict[str, str] = {}

    def add(name: str, placeholder: str) -> None:
        name = name.strip("[].").lower()
        if not name or name in kept or reading.address_of(name.partition("%")[0]) is not None:
            return
        found.setdefault(name, placeholder)
        short = name.partition(".")[0]
        if short != name and len(short) >= _SHORTEST and short not in kept and not re.fullmatch(r"[0-9]+", short):
            found.setdefault(short, found[name])

    kept = {"localhost", "hitless", *(one.lower() for one in keep)}
    for place, node in enumerate(dict.fromkeys(filter(None, nodes)), start=1):
        add(node, f"node-{place}")
    add(host, "host")
    hosts = [one for text in urls for one in _HOST_OF_URL.findall(text)]
    for place, name in enumerate(dict.fromkeys(hosts), start=1):
        add(name, f"address-{place}")
    for registry in dict.fromkeys(one for text in images for one in _REGISTRY.findall(text)):
        if registry not in _PUBLIC:
            add(registry, "registry")
    return found


def names_of(events: Iterable[e.Event]) -> dict[str, str]:
    """The machines' names in a log that is not anonymous."""
    nodes: dict[str, None] = {}
    urls: list[str] = []
    images: list[str] = []
    agents: list[str] = []
    host, lab = "", False
    for event in events:
        if isinstance(event, e.Header):
            config = event.config
            lab = lab or config.get("target") == "lab"
            host = host or (event.machine.host if event.machine else "")
            nodes.update(dict.fromkeys(_texts(config, "nodes") + _texts(config, "helpers")))
            agents += _texts(config, "agents")
            urls += [*_texts(config, "server"), *_texts(config, "to"), event.command]
            images += [*_texts(config, "image"), event.command]
        elif event.node:
            nodes[event.node] = None
    return names_in(host=host, nodes=() if lab else nodes, urls=urls, images=images, keep=agents)


def _texts(config: Mapping[str, Any], key: str) -> list[str]:
    value = config.get(key, ())
    return [value] if isinstance(value, str) else [str(one) for one in value] if isinstance(value, list | tuple) else []
