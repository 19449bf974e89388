"""Adoption on a real kernel: the suite that the fake kernel passes, and every nf_tables generation looked at."""

from __future__ import annotations

import pytest
from tests.contract.adoption import adopts, carried, prepare
from tests.contract.start_states import CASES, StartState, case_id
from tests.kernel.agent.real import RealKernel, committed
from tests.kernel.nftables.nodes import Node as Place

from hitless.kernel.nftables import Mirror
from hitless.model.families import Backend, Family

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_any_start_state_is_adopted(kernel: RealKernel, case: tuple[StartState, Backend, Family]) -> None:
    start, backend, family = case
    prepare(kernel, start, backend, family)
    both = Backend.LEGACY in {backend, *(where for where, _ in start.texts(backend, family))}
    with Mirror(kernel.namespace, (family,)) as mirror:
        recording = adopts(kernel, start, backend, family)
        generations = [carried(update.ruleset, family)[0] for update in committed(mirror)]
    if not both:  # the mirror sees everything: as many generations as transactions, and none without egress
        assert len(generations) == len(recording.transactions)
        assert generations == sorted(generations, key=lambda state: state == "carried")
        if start.carries:
            assert set(generations) <= {"carried"}


@pytest.mark.parametrize("hint", ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"])
@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
def test_the_backend_is_the_kubelets(kernel: RealKernel, hint: str, backend: Backend) -> None:
    assert kernel.hinted() is None and kernel.detect() is Backend.NFT
    other = Backend.LEGACY if backend is Backend.NFT else Backend.NFT
    # more rules in the other one do not count beside a hint
    kernel.write(other, Family.IPV4, "*nat\n:A - [0:0]\n:B - [0:0]\n:C - [0:0]\nCOMMIT\n")
    kernel.write(backend, Family.IPV6, f"*mangle\n:{hint} - [0:0]\nCOMMIT\n")
    assert kernel.hinted() is kernel.detect() is backend


def test_without_a_hint_the_backend_is_where_more_rules_stand(kernel: RealKernel) -> None:
    kernel.write(Backend.LEGACY, Family.IPV4, "*nat\n:A - [0:0]\n-A A -j RETURN\n-A A -j RETURN\nCOMMIT\n")
    kernel.write(Backend.NFT, Family.IPV6, "*raw\n:A - [0:0]\n-A A -j RETURN\nCOMMIT\n")
    assert kernel.hinted() is None and kernel.detect() is Backend.LEGACY
    kernel.write(Backend.NFT, Family.IPV4, "*mangle\n:A - [0:0]\n-A A -j RETURN\nCOMMIT\n")
    assert kernel.detect() is Backend.NFT, "as many in both: nft, as iptables-wrappers has it"


def test_legacy_tables_that_were_only_listed_choose_no_backend(place: Place, kernel: RealKernel) -> None:
    for program in ("iptables-legacy", "ip6tables-legacy"):
        for table in ("nat", "filter", "mangle", "raw"):
            place.run(program, "-t", table, "-N", "NOTHING")
    assert kernel.has_legacy() and kernel.detect() is Backend.NFT


@pytest.mark.parametrize("hint", ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"])
@pytest.mark.parametrize("table", ["nat", "filter"])
def test_a_hint_counts_in_the_mangle_table_only(kernel: RealKernel, hint: str, table: str) -> None:
    kernel.write(Backend.LEGACY, Family.IPV4, f"*{table}\n:{hint} - [0:0]\nCOMMIT\n")
    assert kernel.hinted() is None and kernel.detect() is Backend.NFT


def test_observing_creates_no_legacy_table(kernel: RealKernel) -> None:
    kernel.observe(tuple(Family))
    kernel.egress(tuple(Family))
    kernel.detect()
    assert not kernel.has_legacy()
