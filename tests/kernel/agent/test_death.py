"""The agent is killed after every kernel write of every transition, and started again.

The agent's pass is a process of its own that reconciles a real namespace. The programs that it runs are wrapped: the
wrapper of the chosen write kills its parent with SIGKILL right after the real program has committed, or before it
starts. Killed before write n + 1, the agent leaves the kernel as when it is killed after write n, as it changes the
kernel by these programs alone; so that is tried from one start state of each backend only.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
from pathlib import Path

import pytest
from tests.contract.adoption import carried, foreign_rules, is_right, prepare
from tests.contract.start_states import STATES, StartState, snapshot
from tests.kernel.agent.real import RealKernel, committed

from hitless.agent.node import AgentNode
from hitless.agent.reconciliation import reconcile
from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace
from hitless.kernel.nftables import Mirror
from hitless.model.families import Backend, Family
from hitless.sources import SourceSnapshot

pytestmark = pytest.mark.kernel

FAMILIES = (Family.IPV4, Family.IPV6)
CASES = [(state, backend, "after") for state in STATES for backend in state.backends]
CASES += [(next(state for state in STATES if not state.carries), backend, "before") for backend in Backend]
PROGRAMS = ("nft", *(f"{stem}-{kind}-restore" for stem in ("iptables", "ip6tables") for kind in ("nft", "legacy")))
MOST_WRITES = 24

WRAPPER = """#!/bin/sh
n=$(cat {folder}/count 2>/dev/null || echo 0)
echo $((n + 1)) > {folder}/count
cat > {folder}/input.$n
if [ "$n" = "$(cat {folder}/fatal)" ] && [ "$(cat {folder}/when)" = before ]; then kill -9 $PPID; exit 1; fi
{program} "$@" < {folder}/input.$n
code=$?
if [ "$n" = "$(cat {folder}/fatal)" ]; then kill -9 $PPID; fi
exit $code
"""


def wrap(folder: Path, fatal: int, when: str) -> None:
    """Put wrappers of all programs into ``folder``; write number ``fatal`` kills."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "fatal").write_text(str(fatal))
    (folder / "when").write_text(when)
    for name in PROGRAMS:
        real = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
        assert real is not None, name
        (folder / name).write_text(WRAPPER.format(folder=folder, program=real))
        (folder / name).chmod(stat.S_IRWXU)


def lives(namespace: Namespace, wanted: SourceSnapshot, backend: Backend, folder: Path) -> bool:
    """Run one agent's pass in a process of its own; false when it was killed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
            code = 0 if reconcile(AgentNode(namespace), wanted, backend).settled else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, f"the agent ended with {os.WEXITSTATUS(status)}"
    return True


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[2]}-{case[0].name}-{case[1].value}".replace(" ", "_"))
def test_killed_at_any_write_it_comes_back_without_a_gap(
    kernel: RealKernel, case: tuple[StartState, Backend, str], tmp_path: Path
) -> None:
    start, backend, when = case
    wanted = snapshot(*FAMILIES)
    folder = tmp_path / "bin"
    for fatal in range(MOST_WRITES):
        clean(kernel)
        for family in FAMILIES:
            prepare(kernel, start, backend, family)
        foreign = foreign_rules(kernel.observe(FAMILIES))
        wrap(folder, fatal, when)
        with Mirror(kernel.namespace, FAMILIES) as mirror:
            survived = lives(kernel.namespace, wanted, backend, folder)
            died_with = [carried(kernel.egress((family,)), family)[0] for family in FAMILIES]
            result = reconcile(kernel, wanted, backend)
            generations = [[carried(update.ruleset, family)[0] for family in FAMILIES] for update in committed(mirror)]
        assert result.settled
        after = kernel.observe(FAMILIES)
        is_right(after, wanted, backend)
        assert foreign_rules(after) == foreign
        if start.carries:
            assert died_with == ["carried", "carried"]
        if not uses_legacy(start, backend):
            for column in zip(*generations, strict=True):
                assert list(column) == sorted(column, key=lambda state: state == "carried"), "egress came and went"
                assert not start.carries or set(column) == {"carried"}
        if survived:
            break
    else:
        pytest.fail("more writes than a transition may need")


def uses_legacy(start: StartState, backend: Backend) -> bool:
    """Whether the egress is partly in the legacy path, which the mirror does not see."""
    return Backend.LEGACY in {backend, *(where for where, _ in start.texts(backend, Family.IPV4))}


def clean(kernel: RealKernel) -> None:
    """An empty namespace again."""
    kernel.write(Backend.NFTABLES, Family.IPV4, "flush ruleset\n")
    for family in FAMILIES:
        for table in ("nat", "filter"):
            # without --noflush: the whole table is replaced by an empty one
            program = f"{family.iptables}-legacy-restore"
            processes.run([program], namespace=kernel.namespace, stdin=f"*{table}\nCOMMIT\n")
