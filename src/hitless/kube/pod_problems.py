"""Why does a pod not run? The reason as Kubernetes names it, to decide by, and a sentence for users.

Promise: what decides is ``code`` and ``ended``, never a word of the sentence, which holds messages of others. What
servers say in sentences only is matched here and nowhere else. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from hitless.errors import ApiError
from hitless.kube.objects import Pod

__all__ = ["PodProblem", "no_account_yet", "pod_problem"]

_LAST_WORDS = 400  # of what the kubelet tells of a container's log


class PodProblem(NamedTuple):
    """``code``: Kubernetes' word (ErrImagePull, CrashLoopBackOff, OOMKilled …), empty where it gives none. ``ended``:
    a container of it ran, and ended. ``text``: empty when nothing is known to be wrong."""

    text: str = ""
    code: str = ""
    ended: bool = False

    def __bool__(self) -> bool:
        return bool(self.text)

    def __str__(self) -> str:
        return self.text


def pod_problem(pod: Pod) -> PodProblem:
    """Why it does not run, in the kubelet's words."""
    for status in pod.status.container_statuses or []:
        waiting, ended = status.state.waiting, status.state.terminated
        if waiting is not None and waiting.reason not in ("", "ContainerCreating"):
            return PodProblem(f"{status.name}: {waiting.reason} {waiting.message}".strip(), waiting.reason)
        if ended is not None:
            words = " ".join(ended.message.split())[-_LAST_WORDS:]
            text = f"{status.name}: ended with {ended.exit_code} {ended.reason} {words}".strip()
            return PodProblem(text, ended.reason, ended=True)
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return PodProblem(f"{condition.reason} {condition.message}".strip(), condition.reason)
    return PodProblem(f"{pod.status.reason} {pod.status.message}".strip(), pod.status.reason)


def no_account_yet(error: ApiError) -> bool:
    """Whether a pod was refused only because its namespace is so new that it has no service account: the server's
    admission says it in words (plugin/pkg/admission/serviceaccount)."""
    return error.status == 403 and "service account" in str(error) and "not found" in str(error)
