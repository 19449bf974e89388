"""The image's name in the archive: kubelets ask for whole names, and the runtime keeps what the archive says."""

from __future__ import annotations

import pytest
from tools import build_image

from hitless.cluster import manifests


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (manifests.IMAGE, manifests.IMAGE),
        ("hitless", "docker.io/library/hitless:latest"),
        ("hitless:dev", "docker.io/library/hitless:dev"),
        ("team/hitless:dev", "docker.io/team/hitless:dev"),
        ("localhost/hitless", "localhost/hitless:latest"),
        ("registry.example:5000/team/hitless", "registry.example:5000/team/hitless:latest"),
        ("registry.example/hitless:1.0_rc.1", "registry.example/hitless:1.0_rc.1"),
    ],
)
def test_a_short_name_is_made_whole_as_a_kubelet_would(given: str, kept: str) -> None:
    assert build_image.whole_name(given) == kept


@pytest.mark.parametrize(
    "given", ["Hitless:dev", "hitless:", "hitless:1+2", "a//b", "hitless@sha256:00", "hitless dev"]
)
def test_what_names_no_image_is_refused(given: str) -> None:
    with pytest.raises(SystemExit, match="cannot name an image"):
        build_image.whole_name(given)
