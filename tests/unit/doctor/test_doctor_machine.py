"""The doctor's checks of the machine, the verdict, and the mask of a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from hitless.cli.doctor import command, text
from hitless.doctor import Diagnosis, DoctorFinding, machine
from hitless.doctor.bundle import Masked, collect
from hitless.doctor.findings import checked
from hitless.doctor.node import bridged, summary
from hitless.errors import InputError
from hitless.model.families import Family


@pytest.mark.parametrize(
    ("count", "most", "state"),
    [("10", "100", "ok"), ("85", "100", "note"), ("96", "100", "problem"), ("", "", "note"), ("1", "0", "note")],
)
def test_how_full_the_connection_table_is(tmp_path: Path, count: str, most: str, state: str) -> None:
    if count:
        (tmp_path / "nf_conntrack_count").write_text(f"{count}\n")
        (tmp_path / "nf_conntrack_max").write_text(f"{most}\n")
    assert machine.connections(tmp_path).state == state


def test_forwarding_is_asked_for_the_pods_families_only(tmp_path: Path) -> None:
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "ipv6/conf/all").mkdir(parents=True)
    (tmp_path / "ipv4/ip_forward").write_text("1\n")
    (tmp_path / "ipv6/conf/all/forwarding").write_text("0\n")
    assert machine.forwarding((Family.IPV4,), tmp_path).state == "ok"
    both = machine.forwarding((Family.IPV4, Family.IPV6), tmp_path)
    assert (both.state, both.command) == ("problem", "sysctl -w net.ipv6.conf.all.forwarding=1")


def of(*findings: DoctorFinding) -> Diagnosis:
    return Diagnosis.of("node x", findings, ("hitless drill", "why"), "1")


def test_the_worst_finding_is_the_verdict_and_only_an_essential_unknown_counts() -> None:
    fine, doubt = DoctorFinding("a", "a", "ok", "fine"), DoctorFinding("b", "b", "unknown", "?")
    essential, bad = DoctorFinding("c", "c", "unknown", "?", essential=True), DoctorFinding("d", "d", "problem", "x")
    assert of(fine, doubt).verdict == "ok"
    assert of(fine, essential).verdict == "unknown"
    assert of(bad, essential).verdict == "problem"


CARRIED = DoctorFinding("egress", "egress now", "ok", "carried")
CUT_OFF = DoctorFinding("egress", "egress now", "problem", "not carried")
AFFECTED = DoctorFinding(
    "release", "release and its cost", "problem", "flannel v0.26.7: a restart takes connections away"
)
UNKNOWN = DoctorFinding("release", "release and its cost", "unknown", "no release")
STANDBY = DoctorFinding("guard", "guard", "ok", "protected: guard runs (pid 7)", code="protected")
NO_GUARD = DoctorFinding("guard", "guard", "note", "unprotected: no guard runs: a restart is not bridged")


def test_a_release_that_a_guard_bridges_is_a_note_and_without_one_a_problem() -> None:
    (found,) = bridged([AFFECTED], [STANDBY])
    assert found.state == "note"
    assert found.text.startswith(AFFECTED.text)
    assert "FORWARD rules it cannot bridge" in found.text
    assert bridged([AFFECTED], [NO_GUARD]) == [AFFECTED]
    assert bridged([AFFECTED], [DoctorFinding("guard", "guard", "ok", "no guard runs, and nothing …")]) == [AFFECTED]
    assert bridged([UNKNOWN], [STANDBY]) == [UNKNOWN]


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        ((AFFECTED, CARRIED, NO_GUARD), ("pods get out now", "affected: a restart", "no guard bridges it")),
        ((AFFECTED, CARRIED, STANDBY), ("pods get out now", "bridged by the guard")),
        ((AFFECTED, CUT_OFF, NO_GUARD), ("pods are cut off", "affected")),
        ((AFFECTED, CARRIED, CUT_OFF, STANDBY), ("pods are cut off", "bridged by the guard")),
        ((UNKNOWN, CARRIED, NO_GUARD), ("pods get out now", "is not known")),
        ((UNKNOWN, NO_GUARD), ("it is not known",)),
    ],
)
def test_the_first_sentence_says_whether_the_node_is_affected(
    findings: tuple[DoctorFinding, ...], said: tuple[str, ...]
) -> None:
    told = summary(findings)
    assert all(one in told for one in said), told
    shown = text(Diagnosis.of("node x", findings, ("hitless drill", "why"), "1", told), 200)
    assert " ".join(shown.partition("\n\n")[0].splitlines()[1:]) == told


def test_a_check_that_fails_is_a_finding() -> None:
    def fails() -> DoctorFinding:
        raise OSError(5, "Input/output error")

    (found,) = checked("x", "a check", fails, essential=True)
    assert (found.state, found.essential) == ("unknown", True)
    assert "Input/output error" in found.text


@pytest.mark.parametrize("width", [50, 60, 80, 100, 140])
def test_the_text_fits_and_strangers_words_do_nothing(width: int) -> None:
    found = DoctorFinding(
        "a", "a check", "problem", "a chain called \x1b[2J\x1b]52;c;x\x07 " + "word " * 40, "hitless watch"
    )
    shown = text(of(found), width)
    assert "\x1b[2J" not in shown
    assert "\\x1b[2J" in shown
    assert all(len(line) <= max(50, min(width, 110)) + 20 for line in shown.splitlines())


@pytest.mark.parametrize(
    "words",
    [
        ["--mask"],
        ["--cluster", "--bundle", "x"],
        ["--cluster", "--network", "10.0.0.0/8"],
        ["--kubeconfig", "x"],
        ["--network", "10.42.0.0"],
        ["--network", "fd42::%1/48"],
    ],
)
def test_options_without_effect_and_wrong_ones_are_refused(words: list[str]) -> None:
    done = CliRunner().invoke(command, words, standalone_mode=False)
    assert isinstance(done.exception, InputError)


def test_a_mask_replaces_an_address_by_the_same_one_everywhere_and_keeps_what_says_nothing() -> None:
    masked = Masked({"worker-7": "host"})
    one = masked.text("-A X -s 10.42.3.0/24 -d 224.0.0.0/4 -j ACCEPT on worker-7, lo 127.0.0.1, 0.0.0.0/0")
    two = masked.text("10.42.3.0 dev cali1 fd42::7/128 aa:bb:cc:dd:ee:ff password=hunter22")
    assert "10.42.3.0" not in one + two
    stand_in = one.split("-s ")[1].partition("/")[0]
    assert two.startswith(f"{stand_in} dev cali1 2001:db8::")
    assert "224.0.0.0/4" in one
    assert "127.0.0.1" in one
    assert "0.0.0.0/0" in one
    assert "worker-7" not in one
    assert "aa:bb" not in two
    assert "hunter22" not in two


def test_without_a_mask_secrets_go_and_addresses_stay() -> None:
    assert Masked(None).text("10.42.3.0 --token=abcdefgh") == "10.42.3.0 --token=***"


def test_what_a_bundle_cannot_have_says_why(tmp_path: Path) -> None:
    parts = collect({"a": ["no-such-program-here"]}, {"b": str(tmp_path / "missing")})
    assert "not installed" in parts["a"]
    assert "missing" in parts["b"]
