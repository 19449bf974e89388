"""Whatever a kubeconfig holds, it leads somewhere or is refused in our words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hitless.errors import HitlessError
from hitless.kube.access import access

ODD = [
    "https://a:1",
    "a",
    "/",
    "http://[::1",
    "https://\u2603",
    "%",
    "eA==",
    "x\0y",
    "\ud800",
    "https://a:99999",
    "a b",
]
TEXT = st.text(max_size=8) | st.sampled_from(ODD)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
CLUSTER = "server certificate-authority certificate-authority-data insecure-skip-tls-verify tls-server-name proxy-url"
USER = "token tokenFile username password client-certificate client-certificate-data client-key client-key-data"
ACTING = "as as-uid as-groups as-user-extra auth-provider"
EXEC = "command apiVersion args env installHint interactiveMode provideClusterInfo"


def some(names: str, **given: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the fields, with anything in them."""
    found = st.fixed_dictionaries({}, optional=dict.fromkeys(names.split(), VALUE | TEXT))
    return found.map(lambda one: {**given, **one})


@st.composite
def documents(draw: st.DrawFn) -> Any:
    cluster = draw(some(f"{CLUSTER} extensions disable-compression", server="https://a:1"))
    user = draw(some(f"{USER} {ACTING}"))
    if draw(st.booleans()):
        user["exec"] = draw(some(EXEC, command="x", apiVersion="client.authentication.k8s.io/v1"))
    context = draw(some("namespace", cluster="c", user="u"))
    return {
        "current-context": "x",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": context}],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(document=documents() | VALUE)
def test_only_our_errors_escape(folder: Path, document: Any) -> None:
    path = folder / "config"
    path.write_text(json.dumps(document))
    try:
        found = access(path, None)
    except HitlessError as error:
        assert str(error)
    else:
        assert found.server.startswith("http")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["a: &a [*a]", "[" * 1500, 'a: "\\ud800"', "? [a]\n: b", "!!python/object:os.x {}"])
def test_yaml_that_is_more_than_data_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(HitlessError):
        access(tmp_path / "config", None)
