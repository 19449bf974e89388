"""The agent's command line and environment: flanneld's names, in Go's style.

Problem: the container arguments of the Canal chart must work unchanged, and a typo must not be swallowed. Promise:
every flag of flanneld is known (``-flag``, ``--flag``, ``--flag=value``, ``--flag value``; switches take ``=true`` or
``=false``), an unset flag takes ``FLANNELD_<FLAG>``, ours also ``HITLESS_AGENT_<FLAG>``; what this version does not act
on is accepted and named (``Options.ignored``), unknown flags are refused. Parsing is pure: arguments and environment
are passed in. Next stage: ``hitless.sources.snapshot``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hitless.errors import InputError
from hitless.model import reading
from hitless.model.families import Address, Backend, Family, Network
from hitless.sources.flag_table import FLAGS, Flag
from hitless.sources.options import EtcdOptions, Options, OuterOptions

__all__ = ["FLAGS", "Flag", "Options", "parse_flags", "usage", "verb"]


_URL = re.compile(r"https?://[A-Za-z0-9._:\[\]-]+/?")
_PREFIX = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z0-9_-]+/(?:[a-z0-9_-]*-)?")
_KNOWN = {flag.name: flag for flag in FLAGS}


def parse_flags(argv: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Read arguments and environment; raises ``InputError`` that names the flag or variable."""
    values: dict[str, list[str]] = {}
    origin: dict[str, str] = {}
    for flag, value in _pairs(argv):
        known = values.setdefault(flag.name, [])
        if flag.kind != "list":
            known.clear()  # as Go does: the last one counts
        known.append(value)
        origin[flag.name] = f"--{flag.name}"
    for flag in FLAGS:
        if flag.name in values or flag.name in ("version", "help"):
            continue
        for prefix in ("FLANNELD_", "HITLESS_AGENT_") if flag.ours else ("FLANNELD_",):
            variable = prefix + flag.name.upper().replace("-", "_")
            if environment.get(variable, ""):
                values[flag.name] = [environment[variable]]
                origin[flag.name] = f"environment variable {variable}"
                break
    return _options(_Values(values, origin), environment)


def verb(argv: Sequence[str], verbs: Sequence[str]) -> tuple[str, list[str]]:
    """The subcommand and the other arguments. It is the first argument that is neither a flag nor a flag's value, if
    it is one of ``verbs`` (else the last of them): flags may come before and after it."""
    arguments = list(argv)
    at = 0
    while at < len(arguments) and arguments[at].startswith("-") and arguments[at] not in ("-", "--"):
        name, equals, _ = arguments[at].removeprefix("-").removeprefix("-").partition("=")
        flag = _KNOWN.get(name)
        at += 1 if equals or flag is None or flag.kind == "switch" else 2
    if at < len(arguments) and arguments[at] in verbs:
        return arguments[at], arguments[:at] + arguments[at + 1 :]
    return verbs[-1], arguments


def usage() -> str:
    """The text of --help."""
    lines = ["usage: hitless agent [plan [--json] | cleanup [--json]] [flags]", ""]
    lines += ["flanneld's flags and FLANNELD_* variables work unchanged; -flag and --flag are the same.", ""]
    for title, wanted in (
        ("flags", lambda flag: flag.acts and not flag.ours),
        ("flags that flanneld does not have (variables HITLESS_AGENT_*)", lambda flag: flag.acts and flag.ours),
        ("accepted and named in the log, without effect in this version", lambda flag: not flag.acts),
    ):
        lines.append(f"{title}:")
        for flag in filter(wanted, FLAGS):
            notes = [f"{flag.bounds[0]} to {flag.bounds[1]}"] if flag.kind == "number" else []
            notes += [f"default {flag.default}"] if flag.default not in ("", "false") else []
            text = f"{flag.help} ({'; '.join(notes)})" if notes else flag.help
            lines.append(f"  --{flag.name:<30} {text}" if flag.acts else f"  --{flag.name}")
        lines.append("")
    lines += [
        "examples:",
        "  hitless agent plan --ip-masq --node-subnet 10.42.3.0/24",
        "      what would change on this node; nothing is changed",
        "  hitless agent --ip-masq --kube-subnet-mgr --healthz-port 10260",
        "      run it, as flanneld's container does",
        "  hitless agent cleanup",
        "      remove the rules, devices and routes that it keeps; with --overlay=false the rules alone",
        "",
    ]
    lines.append("exit codes: 0 stopped as asked, 1 wrong input (nothing was changed), 3 this machine cannot do it")
    return "\n".join(lines)


def _pairs(argv: Sequence[str]) -> Iterator[tuple[Flag, str]]:
    """Flags and their values in order (Go's package flag: one or two dashes, the first non-flag ends it)."""
    arguments = list(argv)
    while arguments:
        argument = arguments.pop(0)
        if argument == "--":
            break
        if not argument.startswith("-") or argument == "-":
            arguments.insert(0, argument)
            break
        name, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
        name = "help" if name == "h" else name
        flag = _KNOWN.get(name)
        if flag is None:
            raise InputError(
                "there is no such flag", where=argument, expected=_nearest(name), remedy="see: hitless agent --help"
            )
        if not equals and flag.kind == "switch":
            value = "true"
        elif not equals:
            if not arguments:
                raise InputError("needs a value", where=argument, expected=flag.help)
            value = arguments.pop(0)
        yield flag, value
    if arguments:
        raise InputError(
            "is not a flag",
            where=arguments[0],
            expected="plan, cleanup, or flags as flanneld's",
            remedy="see: hitless agent --help",
        )


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, list(_KNOWN), n=1)
    return f"perhaps --{near[0]}" if near else "a flag of flanneld"


@dataclass(frozen=True, slots=True)
class _Values:
    values: Mapping[str, list[str]]
    origin: Mapping[str, str]

    def text(self, name: str) -> str:
        return self.values.get(name, [_KNOWN[name].default])[-1]

    def several(self, name: str) -> list[str]:
        return [part.strip() for value in self.values.get(name, []) for part in value.split(",") if part.strip()]

    def where(self, name: str) -> str:
        return self.origin.get(name, f"--{name}")

    def switch(self, name: str) -> bool:
        value = self.text(name)
        # as Go's strconv.ParseBool
        if value in ("1", "t", "T", "true", "TRUE", "True"):
            return True
        if value in ("0", "f", "F", "false", "FALSE", "False"):
            return False
        raise InputError(f"{value!r}", where=self.where(name), expected="true or false")

    def number(self, name: str) -> int:
        low, high = _KNOWN[name].bounds
        return reading.whole(self.text(name), where=self.where(name), least=low, most=high)


def _options(values: _Values, environment: Mapping[str, str]) -> Options:
    for flag in FLAGS:  # a wrong value is refused even where the flag has no effect
        if not flag.acts and flag.kind == "switch":
            values.switch(flag.name)
    return Options(
        masquerade=values.switch("ip-masq"),
        random_fully=not values.switch("ip-masq-fully-random-disable"),
        forward=values.switch("iptables-forward-rules"),
        resync=float(values.number("iptables-resync")),
        netconf=values.text("net-config-path"),
        netconf_text=values.text("net-config"),
        subnet_file=values.text("subnet-file"),
        kubernetes=values.switch("kube-subnet-mgr"),
        kube_api_url=values.text("kube-api-url"),
        kubeconfig=values.text("kubeconfig-file"),
        node_name=values.text("node-name") or environment.get("NODE_NAME", ""),
        node_subnets=tuple(_network(value, values.where("node-subnet")) for value in values.several("node-subnet")),
        healthz_ip=str(
            reading.address(values.text("healthz-ip"), where=values.where("healthz-ip"), expected="an IP address")
        ),
        healthz_port=values.number("healthz-port"),
        verbosity=values.number("v"),
        backend=_backend(values),
        lock_wait=values.number("lock-wait"),
        heal=values.switch("heal"),
        etcd=_etcd(values),
        lease_dir=values.text("lease-dir"),
        annotation_prefix=_prefix(values),
        outer=_outer(values),
        blackhole=values.switch("ip-blackhole-route"),
        set_condition=values.switch("set-node-network-unavailable"),
        state_file=values.text("state-file"),
        overlay=values.switch("overlay"),
        version=values.switch("version"),
        help=values.switch("help"),
        ignored=tuple(flag.name for flag in FLAGS if not flag.acts and flag.name in values.values),
        environment=environment,
    )


def _network(value: str, where: str) -> Network:
    # flannel writes a subnet as its first address and length: 10.42.3.1/24
    return reading.network(value, where=where, expected="a network such as 10.42.3.0/24", host_bits=True)


def _backend(values: _Values) -> Backend | None:
    value = values.text("backend")
    if value == "auto":
        return None
    try:
        return Backend(value)
    except ValueError as error:
        known = ", ".join(Backend)
        raise InputError(f"{value!r}", where=values.where("backend"), expected=f"{known} or auto") from error


def _etcd(values: _Values) -> EtcdOptions:
    endpoints = tuple(values.several("etcd-endpoints"))
    for one in endpoints:
        if not _URL.fullmatch(one):
            expected = "http://HOST:PORT or https://HOST:PORT"
            raise InputError(reading.shown(one), where=values.where("etcd-endpoints"), expected=expected)
    return EtcdOptions(
        endpoints,
        "/" + values.text("etcd-prefix").strip("/"),
        values.text("etcd-keyfile"),
        values.text("etcd-certfile"),
        values.text("etcd-cafile"),
        values.text("etcd-username"),
        values.text("etcd-password"),
        values.number("subnet-lease-renew-margin") * 60.0,
    )


def _prefix(values: _Values) -> str:
    """flannel's rule (its pkg/subnet/kube/annotations.go): one slash, and an end that names can follow."""
    text = values.text("kube-annotation-prefix")
    prefix = text if "/" in text else f"{text}/"
    prefix = prefix if prefix.endswith(("/", "-")) else f"{prefix}-"
    if not _PREFIX.fullmatch(prefix):
        expected = "a domain, or a domain/word, in lower case"
        raise InputError(reading.shown(text), where=values.where("kube-annotation-prefix"), expected=expected)
    return prefix


def _outer(values: _Values) -> OuterOptions:
    public: dict[Family, Address] = {}
    for family, name in ((Family.IPV4, "public-ip"), (Family.IPV6, "public-ipv6")):
        if text := values.text(name):
            public[family] = reading.address(text, where=values.where(name), family=family)
    reach = values.text("iface-can-reach")
    patterns = tuple(filter(None, values.values.get("iface-regex", [])))  # a comma may belong to an expression
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            message = f"{reading.shown(pattern)}: {error}"
            raise InputError(message, where=values.where("iface-regex"), expected="a regular expression") from error
    return OuterOptions(
        tuple(values.several("iface")),
        patterns,
        reading.address(reach, where=values.where("iface-can-reach")) if reach else None,
        public,
    )
