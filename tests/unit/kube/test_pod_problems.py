"""What decides about a pod that does not run is Kubernetes' reason, not a word of somebody's message."""

from __future__ import annotations

import msgspec
import pytest

from hitless.cluster.pods import _remedy, _settled
from hitless.kube.objects import Pod
from hitless.kube.pod_problems import PodProblem, pod_problem

_MESSAGE = "it ended with ErrImageNeverPull, CrashLoopBackOff ErrImagePull"


def pod(**status: object) -> Pod:
    return msgspec.convert({"metadata": {"name": "a"}, "status": {"phase": "Pending", **status}}, Pod)


def container(**state: object) -> Pod:
    return pod(containerStatuses=[{"name": "c", "state": state}])


UNSCHEDULABLE = pod(
    conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": _MESSAGE}]
)
CASES = {
    "a container ended": (container(terminated={"exitCode": 3, "reason": "Error", "message": _MESSAGE}), "Error", True),
    "no image": (container(waiting={"reason": "ErrImagePull", "message": _MESSAGE}), "ErrImagePull", False),
    "held back": (container(waiting={"reason": "CrashLoopBackOff", "message": "x"}), "CrashLoopBackOff", False),
    "it is being made": (container(waiting={"reason": "ContainerCreating"}), "", False),
    "not scheduled": (UNSCHEDULABLE, "Unschedulable", False),
    "evicted": (pod(reason="Evicted", message=_MESSAGE), "Evicted", False),
}


@pytest.mark.parametrize("name", CASES)
def test_the_reason_is_kubernetes_word(name: str) -> None:
    given, reason, ended = CASES[name]
    told = pod_problem(given)
    assert (told.code, told.ended) == (reason, ended)
    assert bool(told) is (name != "it is being made") and (_MESSAGE in str(told)) is (_MESSAGE in str(given))


def test_a_message_of_others_decides_nothing() -> None:
    assert not _settled({"a": UNSCHEDULABLE})
    assert _settled({"a": CASES["no image"][0]})
    nothing_known = _remedy(PodProblem("x", "Unschedulable"))
    assert _remedy(pod_problem(UNSCHEDULABLE)) == nothing_known
    assert _remedy(pod_problem(CASES["a container ended"][0])) != nothing_known
    assert _remedy(PodProblem("x", "ErrImageNeverPull")) not in (
        nothing_known,
        _remedy(pod_problem(CASES["no image"][0])),
    )
