"""The same input gives the same image, and what is in it is listed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tests.image.test_image import ARCHIVE, ROOT, Image, image, missing

__all__ = ["image"]

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


def test_building_again_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    """Another folder, umask, time zone, locale and time: the archive is compared with one that `make image` built."""
    if not ARCHIVE.exists():
        missing(f"there is no image archive at {ARCHIVE}: make image")
    if shutil.which("mmdebstrap") is None:
        missing("mmdebstrap is needed to build an image: apt-get install mmdebstrap")
    inputs = [ROOT / "pyproject.toml", ROOT / "deploy/image.lock", *(ROOT / "src").rglob("*.py")]
    inputs += [ROOT / "tools/build_image.py", ROOT / "tools/sbom.py"]
    changed = [path.name for path in inputs if path.stat().st_mtime > ARCHIVE.stat().st_mtime]
    if changed:
        missing(f"{ARCHIVE} is older than {changed[0]}: make image")
    with tarfile.open(ARCHIVE) as packed:
        architectures = {
            one["platform"]["architecture"]
            for one in json.loads(packed.extractfile("index.json").read())["manifests"]  # type: ignore[union-attr]
            if "platform" in one
        }
    again = tmp_path / "again.tar"
    words = [word for one in sorted(architectures) for word in ("--arch", one)]
    done = subprocess.run(
        [sys.executable, ROOT / "tools/build_image.py", "--out", again, *words],
        capture_output=True, text=True, check=False, cwd=tmp_path, umask=0,
        env={**os.environ, "TMPDIR": str(tmp_path), "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(again.read_bytes()).hexdigest() == hashlib.sha256(ARCHIVE.read_bytes()).hexdigest()
    bills = [path.with_suffix(".spdx.json").read_bytes() for path in (again, ARCHIVE)]
    assert bills[0] == bills[1]


def test_nothing_in_it_can_be_written_to_by_others_or_tells_of_the_build(image: Image) -> None:
    loose = [one.name for one in image.members if one.mode & 0o022 and not one.issym() and one.name != "tmp"]
    assert loose == []
    assert {one.mode for one in image.members if one.isfile()} <= {0o644, 0o755}
    names = {Path(one.name).name for one in image.members}
    assert not names & {"direct_url.json", "uv_cache.json", ".lock"}


def test_every_package_is_listed_with_its_licence(image: Image) -> None:
    bill = json.loads(ARCHIVE.with_suffix(".spdx.json").read_text())
    assert bill["spdxVersion"] == "SPDX-2.3"
    top = next(one for one in bill["packages"] if one["SPDXID"] == "SPDXRef-image")
    described = image.index["manifests"][0]["digest"]
    assert top["checksums"] == [{"algorithm": "SHA256", "checksumValue": described.removeprefix("sha256:")}]
    listed = {one["externalRefs"][0]["referenceLocator"]: one for one in bill["packages"] if "externalRefs" in one}
    metadata = [one.name for one in image.members if re.search(r"dist-info/METADATA$", one.name)]
    assert len([one for one in listed if one.startswith("pkg:pypi/")]) == len(metadata) >= 10
    debian = {one.split("/")[2].split("@")[0] for one in listed if one.startswith("pkg:deb/")}
    assert {"nftables", "iptables", "python3.11-minimal", "libc6", "libssl3", "ca-certificates"} <= debian
    assert not debian & {"perl-base", "tar"}  # of which nothing is left
    papers = {one.name.split("/")[3] for one in image.members if one.name.startswith("usr/share/doc/")} - {""}
    assert debian <= papers
    unknown = [purl for purl, one in listed.items() if one["licenseDeclared"] == "NOASSERTION"]
    assert not [one for one in unknown if one.startswith("pkg:pypi/")]
    told = {one["licenseId"] for one in bill.get("hasExtractedLicensingInfos", [])}
    used = {word for one in listed.values() for word in re.findall(r"LicenseRef-[\w.-]+", one["licenseDeclared"])}
    assert used == told


def test_the_locks_of_the_image_are_parts_of_the_lock() -> None:
    whole = _pins(ROOT / "requirements.lock")
    for name in ("image.lock", "build.lock"):
        part = _pins(ROOT / "deploy" / name)
        assert part and part.items() <= whole.items(), name
    text = (ROOT / "deploy/Containerfile").read_text()
    assert text.count("--require-hashes --no-deps") == 2
    bases = [one for one in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if one != "base"]
    assert len(set(bases)) == 1 and re.fullmatch(r"\S+@sha256:[0-9a-f]{64}", bases[0])


def _pins(path: Path) -> dict[str, tuple[str, ...]]:
    """What is pinned, and its hashes."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if "==" in line and not line.startswith((" ", "#")):
            name = line.split(" ")[0]
            found[name] = []
        elif line.strip().startswith("--hash="):
            found[name].append(line.strip().rstrip("\\ "))
    return {name: tuple(sorted(hashes)) for name, hashes in found.items()}
