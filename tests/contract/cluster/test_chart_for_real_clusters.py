"""The chart's part of the suite for real clusters, against the fake: it passes, and it can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contract.cluster.test_suite_for_real_clusters import Suite, left, play

from hitless.testing import api_admission
from hitless.testing.api_kubelet import FakeNodes
from hitless.testing.api_store import Document, ObjectStore, StatusError

pytestmark = pytest.mark.timeout(300)
WORDS = ("-k", "plain_manifests")


def test_the_suite_asks_the_server_for_the_manifests_and_leaves_nothing(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, suite: Suite) -> None:
        code, out = await suite(*WORDS)
        assert (code, "1 passed" in out) == (0, True), out
        assert left(fake) == []

    play(story, tmp_path)


def test_the_suite_fails_where_a_pod_of_the_chart_is_not_admitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As GKE's server does without a quota: critical pods in kube-system only."""

    def admit(store: ObjectStore, resource: str, namespace: str, document: Document) -> None:
        name = (document.get("spec") or {}).get("priorityClassName", "")
        if resource == "pods" and name.startswith("system-"):
            words = "insufficient quota to match these scopes: [{PriorityClass In [system-node-critical]}]"
            raise StatusError(403, "Forbidden", words)

    monkeypatch.setattr(api_admission, "admit", admit)

    async def story(fake: FakeNodes, suite: Suite) -> None:
        code, out = await suite(*WORDS)
        assert code == 1, out
        assert "insufficient quota to match these scopes" in out

    play(story, tmp_path)
