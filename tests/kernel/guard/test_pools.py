"""A pool that loses its NAT while another keeps it: bridged for a while, then followed. Real rules, real packets."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.kernel.guard.guarded import World, until, world
from tests.kernel.guard.test_guard_limits import kept, sources, translated

from hitless.daemon.logs import Log
from hitless.guard import running
from hitless.guard.deciding import Limits
from hitless.guard.journal import Journal
from hitless.guard.reporting import Reporter
from hitless.kernel.clock import Clock
from hitless.model.families import Backend, Family

pytestmark = pytest.mark.kernel
POOLS = {Family.IPV4: ("10.42.0.0/16", "10.99.0.0/16"), Family.IPV6: ("fd42::/48", "fd99::/48")}
BRIDGED = 2.0  # seconds, for the product's ten


@contextmanager
def quick_guard(made: World, family: Family, limits: Limits | None = None) -> Iterator[Reporter]:
    """A guard in a thread that believes in a decision sooner than the product does."""
    stop = threading.Event()
    reporter = Reporter(Log(io.StringIO()), Journal(made.folder / "journal.jsonl"), Clock())
    settings = running.GuardSettings(families=(family,), limits=limits or Limits(settle=0.2, partial=BRIDGED))
    guard = running.Guard(settings, reporter, Log(io.StringIO()), namespace=made.node.namespace)
    thread = threading.Thread(target=guard.run, args=(stop,))
    thread.start()
    try:
        yield reporter
    finally:
        stop.set()
        thread.join()


def followed(made: World) -> list[list[str]]:
    """The pod networks that the standby carried, in the order in which it learned of them."""
    return [record["networks"] for record in made.records("followed")]


def state(reporter: Reporter, family: Family) -> str:
    """The word that ``status`` would show."""
    families = reporter.status.get("families")
    return str(families.get(family.value, {}).get("state", "")) if isinstance(families, dict) else ""


@pytest.mark.parametrize(
    ("backend", "family"),
    [(Backend.NFT, Family.IPV4), (Backend.LEGACY, Family.IPV6), (Backend.LEGACY, Family.IPV4)],
)
def test_a_pool_without_nat_is_bridged_and_then_followed(tmp_path: Path, backend: Backend, family: Family) -> None:
    program = f"{family.iptables}-{backend}"
    pods, other = POOLS[family]

    def rule(action: str, pool: str) -> None:
        made.on_node(program, "-t", "nat", action, "FLANNEL-POSTRTG", "-s", pool, "-j", "MASQUERADE")

    with world(tmp_path, backend=backend, family="dual") as made:
        made.remember()
        made.agent("flannel-0.28", "--resync", "3600")
        made.on_node(program, "-t", "nat", "-F", "FLANNEL-POSTRTG")
        rule("-A", pods)
        rule("-A", other)
        limits = Limits(settle=0.2, partial=3600)
        with quick_guard(made, family, limits) as reporter:
            until(lambda: followed(made) == [[pods, other]], "both pools being learned")
            rule("-D", pods)
            until(lambda: state(reporter, family) == "carrying", "the gap being noticed")
            assert translated(made, family)  # missing: maybe damage
            assert followed(made) == [[pods, other]]
            object.__setattr__(limits, "partial", BRIDGED)  # the time comes when we have seen what was before it
            until(lambda: followed(made)[1:] == [[other]], "the decision being followed")
            assert not translated(made, family)
            until(lambda: made.ended("gap"), "the gap's end")
            (gap,) = made.ended("gap")  # over with the decision, and nobody closed it
            assert gap["end"] == made.records("followed")[1]["t"] >= gap["begin"] + BRIDGED * 1e9
            assert (gap["covered"], gap["carried"], gap.get("healed"), gap.get("closed_by")) == (True, 1, None, None)
            # from now on that is how things are: no leak, nothing to heal, and what was answered lives on
            with made.far_udp(family) as receiver, made.udp(family) as sender:
                assert sources(made, receiver, sender, 5) == {str(made.pod.addresses[family])}
                before = kept(made, family)
                rule("-A", pods)
                until(lambda: len(followed(made)) == 3, "the pool's NAT coming back")
                assert set(followed(made)[2]) == {pods, other}
            assert translated(made, family)
            assert before <= kept(made, family)
        assert made.records("leak") == made.records("withdrawn") == []
