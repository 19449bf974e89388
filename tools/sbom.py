"""What is in the image, and under which licences: a software bill of materials in SPDX 2.3 (JSON).

Problem: who runs the image as root on every node is asked what it is made of. Promise: made from what was really put
in: the Debian packages of which a file is left, by their control files and copyright files (which stay in the image),
and the Python distributions by their metadata; the same input gives the same bytes. A licence that has no SPDX name is
a LicenseRef that says where its text stands; one that nobody can read from a file is NOASSERTION.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path
from typing import Any
from urllib.parse import quote

__all__ = ["Package", "debian", "document", "python"]

_SPDX = {
    "expat": "MIT", "mit": "MIT", "isc": "ISC", "zlib": "Zlib", "apache-2.0": "Apache-2.0", "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0", "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause", "bsd": "BSD-3-Clause",
    "bsd-4-clause": "BSD-4-Clause", "artistic-2.0": "Artistic-2.0", "artistic": "Artistic-1.0-Perl", "x11": "X11",
    "mpl-2.0": "MPL-2.0", "openssl": "OpenSSL", "psf-2.0": "PSF-2.0", "python-2.0": "Python-2.0", "cc0-1.0": "CC0-1.0",
    "mit license": "MIT", "bsd license": "BSD-3-Clause", "apache software license": "Apache-2.0", "curl": "curl",
    "unicode": "Unicode-DFS-2016", "bsl-1.0": "BSL-1.0", "0bsd": "0BSD", "afl-2.1": "AFL-2.1",
    "bsd-3-clause or apache-2.0": "BSD-3-Clause OR Apache-2.0",
    "apache-2.0 or bsd-2-clause": "Apache-2.0 OR BSD-2-Clause",
}  # fmt: skip
_GNU = re.compile(r"(a?l?gpl|gfdl)-?v?(\d)(?:\.(\d))?(\+?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Package:
    """One thing that was put in; ``licences`` as its own papers name them."""

    kind: str  # deb or pypi
    name: str
    version: str
    architecture: str = ""
    licences: tuple[str, ...] = ()
    homepage: str = ""
    sha256: str = ""
    source: str = ""

    @property
    def purl(self) -> str:
        """Its package URL."""
        if self.kind == "deb":
            more = f"?arch={self.architecture}&distro=debian-12" + (f"&upstream={self.source}" if self.source else "")
            return f"pkg:deb/debian/{self.name}@{quote(self.version, safe='')}{more}"
        return f"pkg:pypi/{self.name.lower().replace('_', '-')}@{self.version}"


def _run(*command: str | Path) -> str:
    return subprocess.run([str(one) for one in command], capture_output=True, text=True, check=True).stdout


def _usr(path: str) -> str:
    """Where a package's file stands after the merge of /bin, /lib and /sbin into /usr."""
    path = path.removeprefix("./").rstrip("/")
    return f"usr/{path}" if path.split("/", 1)[0] in ("bin", "sbin", "lib", "lib32", "lib64") else path


def debian(archives: Path, folder: Path, made_into: frozenset[str]) -> list[Package]:
    """The packages of which a file is left in ``folder``; the papers of all others are taken out of it.

    ``made_into``: packages that something was made of that is left.
    """
    found = []
    for archive in sorted(archives.glob("*.deb")):
        fields = message_from_string(_run("dpkg-deb", "-f", archive))
        lines = _run("dpkg-deb", "-c", archive).splitlines()
        files = [_usr(line.split(maxsplit=5)[5].split(" -> ")[0]) for line in lines if line[0] in "-l"]
        papers = folder / "usr/share/doc" / fields["Package"]
        left = any(_there(folder / file) for file in files if not file.startswith("usr/share/doc/"))
        if not left and fields["Package"] not in made_into:
            _take_out(papers)
            continue
        source = (fields["Source"] or "").split(" ")[0]
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        licences = _licences(papers / "copyright")
        found.append(
            Package(
                "deb", fields["Package"], fields["Version"], fields["Architecture"], licences,
                fields["Homepage"] or "", digest, source,
            )
        )  # fmt: skip
    return found


def _there(path: Path) -> bool:
    """Whether something is there, a link that leads nowhere too."""
    return path.is_symlink() or path.exists()


def _take_out(papers: Path) -> None:
    if papers.is_symlink():
        papers.unlink()
    else:
        shutil.rmtree(papers, ignore_errors=True)


def _licences(path: Path) -> tuple[str, ...]:
    """The names in a machine-readable copyright file (DEP 5); none where it is free text."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    if not text.startswith("Format:") or "copyright-format" not in text[:300]:
        return ()
    names = re.findall(r"^License:[ \t]*(\S.*)$", text, re.MULTILINE)
    return tuple(sorted({name.strip() for name in names}))


def python(site: Path) -> list[Package]:
    """The distributions in a folder of packages."""
    found = []
    for path in sorted(site.glob("*.dist-info/METADATA")):
        fields = message_from_string(path.read_text(encoding="utf-8"))
        classes = [one for one in fields.get_all("Classifier", []) if one.startswith("License ::")]
        words = fields["License-Expression"] or (fields["License"] or "").strip().split("\n")[0]
        licence = words or " AND ".join(one.rpartition(":: ")[2] for one in classes)
        home = fields["Home-page"] or next((one.split(", ", 1)[1] for one in fields.get_all("Project-URL", [])), "")
        found.append(Package("pypi", fields["Name"], fields["Version"], "", (licence,) if licence else (), home))
    return found


class _Licences:
    """SPDX expressions, and the texts behind those names that SPDX does not have."""

    def __init__(self) -> None:
        self.references: dict[str, str] = {}

    def expression(self, package: Package) -> str:
        """All of a package's licences hold for some part of it."""
        parts = {self._one(name, package) for name in package.licences}
        joined = " AND ".join(f"({one})" if " OR " in one and len(parts) > 1 else one for one in sorted(parts))
        return joined or "NOASSERTION"

    def _one(self, name: str, package: Package) -> str:
        plain = name.strip()
        if known := _SPDX.get(plain.lower()):
            return known
        if gnu := _GNU.fullmatch(plain):
            family, major, minor, later = gnu.groups()
            return f"{family.upper()}-{major}.{minor or 0}-{'or-later' if later else 'only'}"
        if package.kind == "pypi" and re.fullmatch(r"[A-Za-z0-9.-]+( (AND|OR|WITH) [A-Za-z0-9.-]+)*", plain):
            return plain
        reference = "LicenseRef-" + re.sub(r"[^A-Za-z0-9.]+", "-", f"{package.name}-{plain}").strip("-")
        self.references[reference] = f"{plain}: see usr/share/doc/{package.name}/copyright in the image"
        return reference


def document(name: str, version: str, digest: str, packages: Iterable[Package], created: str) -> str:
    """The bill as text; ``digest`` is the image's manifest."""
    licences = _Licences()
    entries: list[dict[str, Any]] = [
        {
            "SPDXID": "SPDXRef-image", "name": name, "versionInfo": version, "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False, "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION", "primaryPackagePurpose": "CONTAINER",
            "checksums": [{"algorithm": "SHA256", "checksumValue": digest}],
        }
    ]  # fmt: skip
    relations = [
        {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-image"}
    ]
    for one in sorted(packages, key=lambda each: (each.kind, each.name, each.architecture)):
        words = "-".join(filter(None, (one.kind, one.name, one.architecture)))
        ident = "SPDXRef-" + re.sub(r"[^A-Za-z0-9.]+", "-", words)
        entry: dict[str, Any] = {
            "SPDXID": ident, "name": one.name, "versionInfo": one.version, "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False, "licenseConcluded": "NOASSERTION", "licenseDeclared": licences.expression(one),
            "copyrightText": "NOASSERTION",
            "externalRefs": [
                {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": one.purl}
            ],
        }  # fmt: skip
        if one.homepage:
            entry["homepage"] = one.homepage
        if one.sha256:
            entry["checksums"] = [{"algorithm": "SHA256", "checksumValue": one.sha256}]
        entries.append(entry)
        relations.append(
            {"spdxElementId": "SPDXRef-image", "relationshipType": "CONTAINS", "relatedSpdxElement": ident}
        )
    found: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": name,
        "documentNamespace": f"https://github.com/hitless/hitless/spdx/{digest}",
        "creationInfo": {"created": created, "creators": ["Tool: hitless-tools-sbom"]},
        "packages": entries, "relationships": relations,
    }  # fmt: skip
    if licences.references:
        found["hasExtractedLicensingInfos"] = [
            {"licenseId": ident, "extractedText": text} for ident, text in sorted(licences.references.items())
        ]
    return json.dumps(found, indent=1, sort_keys=True) + "\n"
