"""What the documents name is there: files, targets, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hitless.cli import COMMANDS, DAEMONS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCED = re.compile(r"```[a-z]*\n(.*?)```", re.DOTALL)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def words(text: str) -> str:
    """Everything that is set as code, one piece a line."""
    return "\n".join([*re.findall(r"`([^`\n]+)`", FENCED.sub("", text)), *FENCED.findall(text)])


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_inside_the_project_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", FENCED.sub("", document.read_text())):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), f"{name(document)}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_targets_and_commands_that_are_named_exist(document: Path) -> None:
    code = words(document.read_text())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"\bmake ([a-z-]+)", code):
        assert target in targets, f"{name(document)}: make {target}"
    for path in re.findall(r"(?<![\w/.])(?:bench|tools|tests|deploy|docs|src)/[\w./-]+\w", code):
        assert (ROOT / path).exists(), f"{name(document)}: {path}"
    # "hitless lost 0 of …" is what a drill prints
    for command in re.findall(r"^(?:\$ |sudo )?hitless ([a-z][a-z-]+)\b", code, re.MULTILINE):
        assert command in {*COMMANDS, *DAEMONS, "lost"}, f"{name(document)}: hitless {command}"


FOLDERS = {path.name for path in (ROOT / "src/hitless").iterdir() if path.is_dir()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_modules_that_are_named_exist(document: Path) -> None:
    if document.name == "CHANGELOG.md":
        return  # it says what was there
    for code in re.findall(r"`([^`\n]+)`", FENCED.sub("", document.read_text())):
        for module in re.findall(r"(?<![\w/.])([a-z_]+/[\w/]*\w\.py)", code):
            if module.partition("/")[0] in FOLDERS:
                assert (ROOT / "src/hitless" / module).exists(), f"{name(document)}: {module}"


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for command in (*COMMANDS, *DAEMONS):
        if command not in ("relay", "version", "help"):  # the pod's side of a drill, not for people; what all have
            assert re.search(rf"`(hitless )?{command}\b", readme), command


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_the_rows_of_a_table_have_the_cells_of_its_head(document: Path) -> None:
    """Else a renderer drops what is left over, as of two tables that a merge ran into each other."""
    head = 0
    for number, line in enumerate(
        FENCED.sub(lambda found: "\n" * found[0].count("\n"), document.read_text()).split("\n"), 1
    ):
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not (head and cells) or cells == head, (
            f"{name(document)}:{number}: {cells - 1} cells, its head has {head - 1}"
        )
        head = cells
