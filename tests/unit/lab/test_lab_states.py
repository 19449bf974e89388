from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import HitlessError, InputError, MissingError
from hitless.lab.keeper_client import HeldNamespace, KeeperHandle, start_time
from hitless.lab.plans import LabPlan
from hitless.lab.states import LabState, Store, runtime_folder

SELF = KeeperHandle(os.getpid(), start_time(os.getpid()), False, 3, 4)
DEAD = KeeperHandle(2**22 + 1, 12345, False, 3, 4)  # beyond the kernel's largest process number


def state(name: str = "a", keep: KeeperHandle = DEAD) -> LabState:
    held = (HeldNamespace("node0", 5, 6, 7, 1, ("net/x",)), HeldNamespace("far-end", 8, 3, 4, 2))
    new = LabState.new(name, keep, LabPlan(nodes=1, family="dual"))
    return LabState(new.name, new.keep, new.boot, new.mark, new.created, new.plan, held, "hitless")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "labs")


def test_a_note_reads_back_as_it_was_written(store: Store) -> None:
    store.write(state())
    assert store.read("a").held == state().held
    assert store.read("a").plan == state().plan


def test_notes_are_for_their_owner_only(store: Store) -> None:
    store.write(state())
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in store.folder.iterdir()] == [0o600]


def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(MissingError, match="not only yours; set HITLESS_RUNTIME_DIR"):
        Store(folder).write(state())


def test_a_living_process_with_the_keepers_number_is_not_the_keeper(store: Store) -> None:
    assert state(keep=SELF).alive
    assert not state(keep=KeeperHandle(SELF.pid, SELF.started - 1, False, 3, 4)).alive
    assert not state().alive


def test_a_note_from_before_the_reboot_is_dead() -> None:
    old = json.loads(state(keep=SELF).encode())
    old["boot"] = "another"
    assert not LabState.decode(json.dumps(old), "note").alive


def test_an_unknown_lab_is_named_with_those_there_are(store: Store) -> None:
    store.write(state("one"))
    store.write(state("two"))
    with pytest.raises(InputError, match=r"no lab three .*one, two"):
        store.read("three")


def test_a_damaged_note_is_named_by_its_path(store: Store) -> None:
    store.write(state())
    (path,) = store.folder.iterdir()
    path.write_text(path.read_text()[:50])
    with pytest.raises(InputError, match=str(path)):
        store.read("a")


def test_taking_down_removes_the_note_of_a_dead_and_of_a_damaged_lab(store: Store) -> None:
    store.write(state("dead"))
    store.write(state("damaged"))
    (store.folder / "lab-damaged.json").write_text("{")
    assert store.down("dead")
    assert store.down("damaged")
    assert store.names() == ()
    assert not store.down("dead")


def test_a_dead_labs_name_can_be_taken_again_and_a_living_ones_cannot(store: Store) -> None:
    store.write(state("a"))
    store.reserve(state("a", SELF))
    with pytest.raises(HitlessError, match="is up already"):
        store.reserve(state("a", SELF))
    assert store.read("a").keep == SELF


def test_a_dead_lab_has_no_cluster_to_show() -> None:
    with pytest.raises(InputError, match="its keeper is gone"):
        state().cluster()


@given(st.text() | st.dictionaries(st.text(), st.integers() | st.text() | st.none()).map(json.dumps))
def test_nothing_but_our_error_escapes_from_a_strange_note(text: str) -> None:
    with pytest.raises(InputError):
        LabState.decode(text, "note")


@given(
    st.sampled_from(["keep", "boot", "mark", "plan", "held", "agent", "schema"]), st.none() | st.integers() | st.text()
)
def test_a_note_with_a_strange_field_is_refused_or_understood(field: str, value: object) -> None:
    raw = json.loads(state().encode())
    raw[field] = value
    try:
        assert LabState.decode(json.dumps(raw), "note").name == "a"
    except InputError as error:
        assert error.where == "note"


def test_the_folder_is_the_environments_then_the_users() -> None:
    assert runtime_folder({"HITLESS_RUNTIME_DIR": "/x"}) == Path("/x")
    ordinary = runtime_folder({"XDG_RUNTIME_DIR": "/run/user/7"})
    assert ordinary == (Path("/run/hitless") if os.geteuid() == 0 else Path("/run/user/7/hitless"))


def test_a_start_time_is_only_that_of_a_process_that_lives() -> None:
    assert start_time(2**22 + 1) == 0
    child = os.fork()
    if child == 0:
        os._exit(0)
    deadline = time.monotonic() + 60
    while start_time(child) and time.monotonic() < deadline:
        pass
    assert start_time(child) == 0  # ended, not yet waited for: dead
    os.waitpid(child, 0)
