"""List and watch without a server: whatever is lost on the way, who follows the changes ends up with what there is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitless.errors import ApiError
from hitless.kube.list_watch import Change, EndlessList, Gone, ListWatch, Put, Synced, by_name
from hitless.kube.objects import NODES, Node


@dataclass
class Server:
    """Objects with versions, a history that is cut off at ``oldest``, and pages that remember their version."""

    version: int = 10
    oldest: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    history: list[tuple[int, str, str]] = field(default_factory=list)

    def put(self, name: str) -> None:
        self.version += 1
        self.history.append((self.version, "MODIFIED" if name in self.objects else "ADDED", name))
        self.objects[name] = self.version

    def delete(self, name: str) -> None:
        if name in self.objects:
            self.version += 1
            self.history.append((self.version, "DELETED", name))
            del self.objects[name]

    def forget(self) -> None:
        """Compact: what is older can neither be watched from nor listed on."""
        self.oldest = self.version

    def page(self, parameters: dict[str, str]) -> bytes:
        begin, _, at = parameters.get("continue", "").partition("@")
        if at and int(at) < self.oldest:
            raise ApiError("the page is too old", status=410)
        names = sorted(name for name in self.objects if name > begin)
        limit = int(parameters["limit"])
        meta: dict[str, Any] = {"resourceVersion": at or str(self.version)}
        if len(names) > limit:
            meta["continue"] = f"{names[limit - 1]}@{at or self.version}"
        items = [document(name, self.objects[name]) for name in names[:limit]]
        return json.dumps({"kind": "NodeList", "metadata": meta, "items": items}).encode()

    def lines(self, parameters: dict[str, str]) -> list[bytes]:
        after = int(parameters["resourceVersion"])
        if after < self.oldest:
            return [event("ERROR", {"kind": "Status", "code": 410, "message": "too old"})]
        found = [event(what, document(name, version)) for version, what, name in self.history if version > after]
        return [*found, event("BOOKMARK", document("", self.version))]


def document(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}}


def event(what: str, one: dict[str, Any]) -> bytes:
    return json.dumps({"type": what, "object": one}).encode()


@dataclass
class Follower:
    """Applies what it is told."""

    watching: ListWatch[Node]
    state: dict[str, str] = field(default_factory=dict)
    synced: int = 0

    def take(self, change: Change[Node] | None) -> None:
        match change:
            case Put(key, value):
                self.state[key] = value.metadata.resource_version
            case Gone(key):
                self.state.pop(key, None)
            case Synced():
                self.synced += 1

    def turn(self, server: Server, lost_after: int | None = None) -> None:
        """One question and its answer, of which the connection loses what comes after so many lines."""
        question = self.watching.question()
        parameters = dict(question.parameters)
        try:
            if question.watch:
                for line in server.lines(parameters)[:lost_after]:
                    self.take(self.watching.line(line))
            else:
                for change in self.watching.page(server.page(parameters)):
                    self.take(change)
        except ApiError as error:
            self.watching.refused(error)


def follower(page: int = 2) -> Follower:
    return Follower(ListWatch(NODES, key=by_name, page=page))


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "delete"]), st.sampled_from("abcdefg"))
    | st.tuples(st.just("forget"), st.just(""))
    | st.tuples(st.just("turn"), st.none() | st.integers(0, 3)),
    max_size=60,
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(steps=STEPS, page=st.integers(1, 4))
def test_whatever_is_lost_the_follower_ends_with_what_the_server_has(steps: list[Any], page: int) -> None:
    server, found = Server(), follower(page)
    for what, which in steps:
        match what:
            case "put":
                server.put(which)
            case "delete":
                server.delete(which)
            case "forget":
                server.forget()
            case "turn":
                found.turn(server, which)
    before = found.synced
    for _ in range(12):  # a list of at most seven pages, after the refusals of an old version and an old page
        found.turn(server)
    assert found.synced >= before
    assert found.synced > 0
    assert found.state == {name: str(version) for name, version in server.objects.items()}


def test_what_went_while_the_version_was_too_old_is_told() -> None:
    server, found = Server(), follower()
    for name in "abc":
        server.put(name)
    while not found.synced:
        found.turn(server)
    server.delete("b")
    server.forget()
    server.put("d")
    while found.synced < 2:
        found.turn(server)
    assert sorted(found.state) == ["a", "c", "d"]


def test_a_bookmark_moves_the_version_and_changes_nothing() -> None:
    server, found = Server(), follower()
    server.put("a")
    while not found.synced:
        found.turn(server)
    line = event("BOOKMARK", document("", 77))
    assert found.watching.line(line) is None
    assert found.watching.question().parameters["resourceVersion"] == "77"


def test_selectors_are_asked_for_in_each_question() -> None:
    watching = ListWatch(NODES, labels="a=b", fields="metadata.name=n")
    asked = {"labelSelector": "a=b", "fieldSelector": "metadata.name=n"}
    assert asked.items() <= watching.question().parameters.items()
    list(watching.page(Server().page({"limit": "5"})))
    assert watching.question().watch
    assert asked.items() <= watching.question().parameters.items()


def test_a_list_without_an_end_ends() -> None:
    same = json.dumps({"kind": "NodeList", "metadata": {"continue": "x"}, "items": []}).encode()
    watching = ListWatch(NODES)
    list(watching.page(same))
    with pytest.raises(EndlessList, match="same page"):
        watching.page(same)
    watching = ListWatch(NODES)
    with pytest.raises(EndlessList, match="without an end"):
        for number in range(2000):
            text = {"kind": "NodeList", "metadata": {"continue": str(number)}, "items": []}
            watching.page(json.dumps(text).encode())


def test_a_server_whose_every_version_is_too_old_is_not_asked_without_a_pause() -> None:
    """Listed, refused, listed, refused: from the second time on the caller waits."""
    old = event("ERROR", {"kind": "Status", "code": 410, "message": "too old"})
    watching = ListWatch(NODES)
    answers = []
    for _ in range(3):
        list(watching.page(Server().page({"limit": "5"})))
        with pytest.raises(ApiError) as refused:
            watching.line(old)
        answers.append(watching.refused(refused.value))
        assert not watching.question().watch
    assert answers == [True, False, False]


def test_pages_that_are_always_too_old_are_given_up() -> None:
    watching = ListWatch(NODES, page=1)
    old = ApiError("too old", status=410)
    server = Server()
    for name in "ab":
        server.put(name)
    assert not watching.refused(old), "nothing was read yet: a list itself is never too old"
    tries = 0
    while True:
        list(watching.page(server.page(dict(watching.question().parameters))))
        if not watching.refused(old):
            break
        tries += 1
    assert tries == 5


@pytest.mark.parametrize("status", [0, 401, 403, 404, 429, 500, 503])
def test_other_refusals_are_the_callers(status: int) -> None:
    assert not ListWatch(NODES).refused(ApiError("no", status=status))
