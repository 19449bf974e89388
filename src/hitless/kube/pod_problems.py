"""Why a pod does not run: Kubernetes' reason, for decisions, and a sentence for users.

Promise: decisions are made by ``code`` and ``ended``, never by the sentence, which holds messages of other programs.
Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from hitless.kube.objects import Pod

__all__ = ["PodProblem", "pod_problem"]

_LAST_CHARACTERS = 400  # characters of the container's log, as the kubelet reports its end


class PodProblem(NamedTuple):
    """``code``: Kubernetes' reason (ErrImagePull, CrashLoopBackOff, OOMKilled …), empty where it gives none.
    ``ended``: one of its containers ran and ended. ``text``: empty when no problem is known."""

    text: str = ""
    code: str = ""
    ended: bool = False

    def __bool__(self) -> bool:
        return bool(self.text)

    def __str__(self) -> str:
        return self.text


def pod_problem(pod: Pod) -> PodProblem:
    """Why it does not run, with the kubelet's message."""
    for status in pod.status.container_statuses or []:
        waiting, ended = status.state.waiting, status.state.terminated
        if waiting is not None and waiting.reason not in ("", "ContainerCreating"):
            return PodProblem(f"{status.name}: {waiting.reason} {waiting.message}".strip(), waiting.reason)
        if ended is not None:
            message = " ".join(ended.message.split())[-_LAST_CHARACTERS:]
            text = f"{status.name}: ended with {ended.exit_code} {ended.reason} {message}".strip()
            return PodProblem(text, ended.reason, ended=True)
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return PodProblem(f"{condition.reason} {condition.message}".strip(), condition.reason)
    return PodProblem(f"{pod.status.reason} {pod.status.message}".strip(), pod.status.reason)
