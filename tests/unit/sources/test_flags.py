"""flanneld's command line works unchanged; what nobody knows is refused with one message."""

from __future__ import annotations

import contextlib
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import InputError
from hitless.model.families import Backend
from hitless.sources.flags import FLAGS, parse_flags, usage

CANAL = ["--ip-masq", "--kube-subnet-mgr", "--iptables-forward-rules=false", "--ip-blackhole-route"]
UPSTREAM = (
    "etcd-endpoints", "etcd-prefix", "etcd-keyfile", "etcd-certfile", "etcd-cafile", "etcd-username", "etcd-password",
    "kube-subnet-mgr", "kube-api-url", "kubeconfig-file", "kube-annotation-prefix", "iface", "iface-regex",
    "iface-can-reach", "public-ip", "public-ipv6", "subnet-file", "net-config-path", "subnet-lease-renew-margin",
    "ip-masq", "ip-masq-fully-random-disable", "iptables-resync", "iptables-forward-rules", "ip-blackhole-route",
    "set-node-network-unavailable", "healthz-ip", "healthz-port", "v", "version", "vmodule", "log_backtrace_at",
    "persistent-mac", "use-multi-cluster-cidr",
)  # fmt: skip


def test_the_canal_charts_arguments_and_environment_are_understood() -> None:
    options = parse_flags(CANAL, {"FLANNELD_IFACE": "", "FLANNELD_IP_MASQ": "true", "NODE_NAME": "n1"})
    assert options.masquerade and options.kubernetes and not options.forward
    assert options.node_name == "n1"
    assert options.blackhole and options.ignored == ()


def test_the_defaults_are_flannels() -> None:
    options = parse_flags([], {})
    assert not options.masquerade and options.forward and options.random_fully and not options.kubernetes
    assert options.resync == 5 and options.healthz_port == 0 and options.healthz_ip == "0.0.0.0"
    assert options.netconf == "/etc/kube-flannel/net-conf.json"
    assert options.subnet_file == "/run/flannel/subnet.env"
    assert options.backend is None and options.ignored == ()


def test_every_flag_of_flanneld_is_known() -> None:
    assert set(UPSTREAM) <= {flag.name for flag in FLAGS}


@pytest.mark.parametrize("words", [["-ip-masq"], ["--ip-masq"], ["--ip-masq=true"], ["-ip-masq=1"], ["--ip-masq=T"]])
def test_go_style_switches(words: list[str]) -> None:
    assert parse_flags(words, {}).masquerade


@pytest.mark.parametrize(
    "words", [["--healthz-port", "8471"], ["-healthz-port=8471"], ["--healthz-port=1", "--healthz-port=8471"]]
)
def test_go_style_values_and_the_last_one_counts(words: list[str]) -> None:
    assert parse_flags(words, {}).healthz_port == 8471


def test_a_flag_wins_over_its_variable_and_an_empty_variable_is_none() -> None:
    environment = {"FLANNELD_IP_MASQ": "true", "FLANNELD_IPTABLES_RESYNC": "9", "FLANNELD_HEALTHZ_PORT": ""}
    options = parse_flags(["--ip-masq=false"], environment)
    assert not options.masquerade and options.resync == 9 and options.healthz_port == 0


def test_our_own_flags_have_variables_too() -> None:
    options = parse_flags(
        [], {"HITLESS_AGENT_BACKEND": "legacy", "HITLESS_AGENT_NODE_SUBNET": "10.42.3.1/24,fd42:0:0:3::/64"}
    )
    assert options.backend is Backend.LEGACY
    assert options.node_subnets == (ip_network("10.42.3.0/24"), ip_network("fd42:0:0:3::/64"))


@pytest.mark.parametrize(
    ("words", "environment", "named"),
    [
        (["--ip-mask"], {}, ["--ip-mask", "--ip-masq"]),
        (["--nonsense"], {}, ["--nonsense", "flanneld"]),
        (["--ip-masq=perhaps"], {}, ["--ip-masq", "'perhaps'", "true or false"]),
        (["--iptables-resync=0"], {}, ["--iptables-resync", "1 to"]),
        (["--healthz-port=65536"], {}, ["--healthz-port", "65535"]),
        (["--healthz-ip=localhost"], {}, ["--healthz-ip", "IP address"]),
        (["--backend=iptables"], {}, ["--backend", "nft, legacy, nftables"]),
        (["--node-subnet=10.42.0.300/24"], {}, ["--node-subnet", "10.42.3.0/24"]),
        (["--healthz-port"], {}, ["--healthz-port", "needs a value"]),
        (["--ip-masq", "true"], {}, ["true", "not a flag"]),
        (["--subnet-lease-renew-margin=0"], {}, ["--subnet-lease-renew-margin", "1439"]),
        ([], {"FLANNELD_IP_MASQ": "ja"}, ["environment variable FLANNELD_IP_MASQ", "'ja'"]),
        ([], {"FLANNELD_SET_NODE_NETWORK_UNAVAILABLE": "x"}, ["FLANNELD_SET_NODE_NETWORK_UNAVAILABLE"]),
    ],
)
def test_wrong_input_is_one_message_that_names_the_flag(
    words: list[str], environment: dict[str, str], named: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        parse_flags(words, environment)
    for word in named:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_help_says_what_every_number_may_be() -> None:
    lines = {line.split()[0]: line for line in usage().splitlines() if line.startswith("  --")}
    for flag in FLAGS:
        if flag.kind == "number" and flag.acts:
            low, high = flag.bounds
            assert f"({low} to {high}; default {flag.default})" in lines[f"--{flag.name}"]
            for wrong in (low - 1, high + 1):
                with pytest.raises(InputError, match=f"from {low} to {high}"):
                    parse_flags([f"--{flag.name}={wrong}"], {})


def test_the_help_names_every_flag() -> None:
    text = usage()
    assert all(f"--{flag.name}" in text for flag in FLAGS)


@given(
    st.lists(st.text(max_size=20), max_size=6),
    st.dictionaries(st.sampled_from(["FLANNELD_V", "FLANNELD_IP_MASQ"]), st.text(max_size=9)),
)
def test_only_our_error_escapes(words: list[str], environment: dict[str, str]) -> None:
    with contextlib.suppress(InputError):
        parse_flags(words, environment)
