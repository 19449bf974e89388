"""Build the container image as an OCI archive: no registry, no container engine, no root file system to run.

Problem: an image must be built and tested where there is neither a registry nor an engine, for two architectures, the
same each time. Promise: Debian packages are extracted (never run: no emulation for the other architecture), the wheel
and its dependencies (``deploy/image.lock``, by their hashes) are put beside Python, what nothing uses is left out, and
one layer with fixed times, modes and order is written per architecture: the same Debian packages and the same source
give the same bytes, which a test builds twice to see. The archive is an OCI image layout that ``ctr images import`` and
``skopeo`` take; beside it stands what is in it, as SPDX (``tools/sbom.py``). There is no shell in it and no setuid
program. ``--flanneld`` makes the image that takes the place of flannel's: the same files, /opt/bin/flanneld as its
program, and root as its user, as flannel's has. ``cp`` and /opt/bin/install-conf are for flannel's init containers.
Size and contents are printed. ``deploy/Containerfile`` says the same to engines.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import hashlib
import io
import json
import os
import py_compile
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools import sbom  # noqa: E402 - found by its place, wherever this is started

PACKAGES = "python3,nftables,iptables,util-linux,ca-certificates,netbase,coreutils"
SITE = Path("usr/lib/python3/dist-packages")
NAME = "ghcr.io/hitless/hitless"
USER = 65532
FLANNELD = "opt/bin/flanneld"
"""Where flannel's image has its program: charts and manifests name it."""
INSTALL_CONF = "opt/bin/install-conf"
"""What flannel's chart runs in its init container since v0.28: SOURCE TARGET, copied in one step."""
PLATFORMS = {"amd64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}

KEEP_PROGRAMS = {
    *("python3", "python3.11", "hitless", "nsenter", "nft", "xtables-nft-multi", "xtables-legacy-multi"),
    "cp",  # flannel's manifests and charts run it from flannel's image, to install the CNI configuration
    *(
        f"ip{six}tables{kind}{what}"
        for six in ("", "6")
        for kind in ("", "-nft", "-legacy")
        for what in ("", "-restore", "-save")
    ),
}
DROP = (
    *("usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/bash-completion"),
    *(
        "usr/share/perl5",
        "usr/share/info",
        "usr/share/bug",
        "usr/share/zoneinfo",
        "usr/share/menu",
        "usr/share/pixmaps",
    ),
    *("usr/lib/valgrind", "usr/lib/systemd", "usr/lib/udev", "usr/lib/mime", "usr/lib/binfmt.d", "usr/lib/apt"),
    *("usr/lib/ssl/misc", "usr/share/dpkg", "usr/libexec", "etc/dpkg", "etc/logrotate.d", "var/lib/apt"),
    *(
        "var/lib/dpkg",
        "usr/share/debconf",
        "usr/share/polkit-1",
        "var/cache",
        "var/log",
        "etc/cron.daily",
        "etc/init.d",
        "etc/pam.d",
        "etc/apt",
    ),
    *(
        f"usr/lib/python3.11/{one}"
        for one in ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "turtledemo", "tkinter")
    ),
    *(
        f"usr/lib/python3.11/{one}"
        for one in ("unittest", "distutils", "test", "venv", "sqlite3", "xmlrpc", "dbm", "curses")
    ),
)
"""Documents, other packages' start-up files, and parts of the standard library that nothing here imports."""


MADE_INTO = frozenset({"ca-certificates"})
"""Packages of which no file is left as it was, and yet all of it is in the image."""


DROP_LIBRARIES = (
    "gconv",
    "engines-3",
    "libdb-5*",
    "libsqlite3*",
    "libmvec*",
    "libsystemd*",
    "libgcrypt*",
    "perl-base",
    "perl",
)
"""For parts of the standard library and programs that are not there; a test imports every module of ours."""


def run(*command: str | Path) -> None:
    """Run a program; its own words are shown when it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(str(word) for word in command[:3])} …: {(done.stderr or done.stdout).strip()[-2000:]}")


def sources(mirror: str | None) -> str:
    """Where packages come from: the given mirror, else what this Debian machine uses."""
    if mirror:
        return mirror
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if path.exists() and path.stat().st_size:
            return str(path)
    return "deb http://deb.debian.org/debian bookworm main"


def extract(architecture: str, mirror: str | None, folder: Path, scratch: Path) -> None:
    """The packages' files in ``folder``; no maintainer script is run."""
    archive, debs = scratch / f"{architecture}.tar", scratch / f"{architecture}.debs"
    debs.mkdir()
    keep = f'cp "$1"/var/cache/apt/archives/*.deb {shlex.quote(str(debs))}/'
    run(
        *(
            "mmdebstrap",
            "--variant=extract",
            f"--extract-hook={keep}",
            f"--architectures={architecture}",
            f"--include={PACKAGES}",
        ),
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        *("bookworm", archive, sources(mirror)),
    )
    with tarfile.open(archive) as packed:
        packed.extractall(
            folder, filter="tar", members=[one for one in packed if one.isreg() or one.isdir() or one.issym()]
        )
    archive.unlink()


def prune(folder: Path) -> None:
    """Leave out what nothing uses: documents but licences, shells, all programs but the few that are run."""
    for paper in (folder / "usr/share/doc").rglob("*"):
        if paper.name != "copyright" and (paper.is_file() or (paper.is_symlink() and not paper.is_dir())):
            paper.unlink()
    for name in DROP:
        shutil.rmtree(folder / name, ignore_errors=True)
    for libraries in (folder / "usr/lib").glob("*-linux-gnu"):
        for path in (one for pattern in DROP_LIBRARIES for one in libraries.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for place in ("usr/bin", "usr/sbin"):
        for program in (folder / place).iterdir():
            if program.name not in KEEP_PROGRAMS:
                program.unlink()
    for name in ("etc/rmt", "etc/debconf.conf"):
        (folder / name).unlink(missing_ok=True)


def finish(folder: Path) -> None:
    """What maintainer scripts would have done: users, alternatives, certificates."""
    etc = folder / "etc"
    (etc / "passwd").write_text(f"root:x:0:0:root:/:/nonexistent\nnonroot:x:{USER}:{USER}:nonroot:/:/nonexistent\n")
    (etc / "group").write_text(f"root:x:0:\nnonroot:x:{USER}:\n")
    (etc / "nsswitch.conf").write_text("hosts: files dns\n")
    for six in ("", "6"):
        for what in ("", "-restore", "-save"):
            link = folder / "usr/sbin" / f"ip{six}tables{what}"
            link.unlink(missing_ok=True)
            link.symlink_to(f"ip{six}tables-nft{what}")
    bundle = folder / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    certificates = sorted((folder / "usr/share/ca-certificates").rglob("*.crt"))
    bundle.write_text("".join(path.read_text() for path in certificates))
    shutil.rmtree(folder / "usr/share/ca-certificates")
    for name in ("run", "tmp", "proc", "sys", "dev", "var/run"):
        shutil.rmtree(folder / name, ignore_errors=True) if not (folder / name).is_symlink() else None
        if name != "var/run":
            (folder / name).mkdir(exist_ok=True)
    (folder / "tmp").chmod(0o1777)


def install(architecture: str, folder: Path, scratch: Path) -> None:
    """The wheel and its locked dependencies, compiled once: the file system is read-only at run time."""
    uv = ROOT / ".venv/bin/uv"
    dist = scratch / "dist"
    if not dist.exists():
        run(
            uv,
            "build",
            "--quiet",
            "--no-build-isolation",
            "--python",
            ROOT / ".venv/bin/python",
            "--wheel",
            "-o",
            dist,
            ROOT,
        )
    wheel = next(dist.glob("*.whl"))
    site = folder / SITE
    into: tuple[str | Path, ...] = (uv, "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:")
    into = (*into, "--target", site, "--python-version", "3.11", "--python-platform", PLATFORMS[architecture])
    run(*into, "--require-hashes", "-r", ROOT / "deploy/image.lock")
    run(*into, wheel)  # ours: built here and now, so it has no hash to compare with
    shutil.rmtree(site / "bin", ignore_errors=True)
    (site / ".lock").unlink(missing_ok=True)  # uv's, and everybody may write to it
    forget_the_build(site)
    for lexers in (site / "pygments/lexers").glob("[a-z]*.py"):
        lexers.unlink()  # for colouring source code, which nothing here shows
    start = folder / "usr/bin/hitless"
    start.write_text("#!/usr/bin/python3 -sP\nfrom hitless.cli import main\n\nmain()\n")
    start.chmod(0o755)
    flanneld = folder / FLANNELD
    flanneld.parent.mkdir(parents=True)
    flanneld.write_text(
        "#!/usr/bin/python3 -sP\nimport sys\n\nsys.argv.insert(1, 'agent')\nfrom hitless.cli import main\n\nmain()\n"
    )
    flanneld.chmod(0o755)
    shutil.copyfile(ROOT / "deploy/install-conf", folder / INSTALL_CONF)
    (folder / INSTALL_CONF).chmod(0o755)
    for place in (folder / "usr/lib/python3.11", site):
        compileall.compile_dir(
            place,
            quiet=2,
            stripdir=str(folder),
            prependdir="/",
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def forget_the_build(site: Path) -> None:
    """Take out what tells of the building machine and time, and is different each time."""
    for record in site.glob("*.dist-info/RECORD"):
        for name in ("direct_url.json", "uv_cache.json"):
            (record.parent / name).unlink(missing_ok=True)
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if (site / line.split(",")[0].strip('"')).exists()]
        record.write_text("".join(sorted(kept)), encoding="utf-8")


def whole_name(name: str) -> str:
    """The name with its registry and tag, as a kubelet asks for it: the runtime keeps what stands in the archive."""
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not ({".", ":"} & set(first)) and first != "localhost":
        name = f"docker.io/{name}"
    if ":" not in name.rpartition("/")[2]:
        name += ":latest"
    if not re.fullmatch(r"[\w.-]+(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+:\w[\w.-]{0,127}", name, re.ASCII):
        sys.exit(f"--name: {name!r} cannot name an image; expected [REGISTRY/]NAME[:TAG]")
    return name


def entries(folder: Path) -> Iterable[Path]:
    """Everything in the folder, in a fixed order."""
    return sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts)


def layer(folder: Path, epoch: int) -> tuple[bytes, str]:
    """The folder as a gzipped tar, the same bytes each time, and the digest of what is inside."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as packed:
        for path in entries(folder):
            info = packed.gettarinfo(path, str(path.relative_to(folder)))
            info.mtime, info.uid, info.gid, info.uname, info.gname = epoch, 0, 0, "root", "root"
            # no setuid, no setgid, nothing that all may write to, whatever the umask of the building machine
            info.mode = 0o755 if info.isdir() or info.mode & 0o100 or info.issym() else 0o644
            info.mode = 0o1777 if info.name == "tmp" else info.mode
            if info.isreg():
                with path.open("rb") as file:
                    packed.addfile(info, file)
            else:
                packed.addfile(info)
    data = plain.getvalue()
    return gzip.compress(data, 6, mtime=0), f"sha256:{hashlib.sha256(data).hexdigest()}"


class Layout:
    """An OCI image layout, collected and written as one archive."""

    def __init__(self, name: str, *, flanneld: bool = False) -> None:
        self.name = name
        self.user = "0:0" if flanneld else f"{USER}:{USER}"
        self.program = f"/{FLANNELD}" if flanneld else "/usr/bin/hitless"
        self.blobs: dict[str, bytes] = {}
        self.manifests: list[dict[str, Any]] = []

    def blob(self, data: bytes, media: str) -> dict[str, Any]:
        """Keep a blob, and describe it."""
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    def document(self, value: dict[str, Any], media: str) -> dict[str, Any]:
        """Keep a JSON document, and describe it."""
        return self.blob(json.dumps(value, sort_keys=True).encode(), media)

    def add(self, architecture: str, compressed: bytes, diff: str, version: str, created: str) -> None:
        """An image for an architecture, of one layer."""
        kind = "application/vnd.oci.image"
        labels = {
            "org.opencontainers.image.title": "hitless",
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.licenses": "Apache-2.0",
        }
        config = {
            "created": created,
            "architecture": architecture,
            "os": "linux",
            "config": {
                "User": self.user,
                "Env": ["PATH=/usr/sbin:/usr/bin", "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"],
                "Entrypoint": [self.program],
                "Labels": labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [diff]},
            "history": [{"created": created, "created_by": "tools/build_image.py"}],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": self.document(config, f"{kind}.config.v1+json"),
            "layers": [self.blob(compressed, f"{kind}.layer.v1.tar+gzip")],
            "annotations": labels,
        }
        described = self.document(manifest, f"{kind}.manifest.v1+json")
        self.manifests.append({**described, "platform": {"architecture": architecture, "os": "linux"}})

    def write(self, path: Path) -> str:
        """Write the archive; returns the digest of what it names: one architecture's manifest, or an index of all."""
        names = {
            "org.opencontainers.image.ref.name": self.name.rpartition(":")[2],
            "io.containerd.image.name": self.name,
        }
        media = "application/vnd.oci.image.index.v1+json"
        if len(self.manifests) == 1:
            top = self.manifests[0]
        else:
            top = self.document({"schemaVersion": 2, "mediaType": media, "manifests": self.manifests}, media)
        index = {"schemaVersion": 2, "mediaType": media, "manifests": [{**top, "annotations": names}]}
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
        files |= {f"blobs/sha256/{digest}": data for digest, data in sorted(self.blobs.items())}
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as packed:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o644
                packed.addfile(info, io.BytesIO(data))
        return str(top["digest"]).removeprefix("sha256:")


def show(folder: Path, architecture: str, compressed: int) -> None:
    """Print what is inside and how much."""
    sizes: dict[str, int] = {}
    total = 0
    for path in entries(folder):
        if path.is_symlink() or not path.is_file():
            continue
        size = path.stat().st_size
        total += size
        parts = path.relative_to(folder).parts
        depth = 5 if parts[:4] == (*SITE.parts,) else 3
        sizes["/".join(parts[:depth])] = sizes.get("/".join(parts[:depth]), 0) + size
    print(f"{architecture}: {total / 1e6:.1f} MB, compressed {compressed / 1e6:.1f} MB; the largest parts:")
    for name, size in sorted(sizes.items(), key=lambda one: -one[1])[:14]:
        print(f"  {size / 1e6:6.1f} MB  {name}")
    programs = sorted(path.name for place in ("usr/bin", "usr/sbin") for path in (folder / place).iterdir())
    print(f"  programs: {', '.join(programs)}")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="Build the container image as an OCI archive.")
    parser.add_argument("--out", type=Path, help="the archive (default: dist/hitless-image.tar, hitless-flanneld.tar)")
    parser.add_argument("--name", help=f"the image's name in the archive (default: {NAME}:VERSION)")
    parser.add_argument(
        "--flanneld", action="store_true", help=f"the image that takes flannel's place ({NAME}-flanneld)"
    )
    parser.add_argument("--arch", action="append", choices=list(PLATFORMS), help="repeat; default: this machine's")
    parser.add_argument("--mirror", help="a Debian mirror or sources file; default: this machine's")
    given = parser.parse_args()
    here = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "amd64")
    version = next(
        line.split('"')[1]
        for line in (ROOT / "src/hitless/__init__.py").read_text().splitlines()
        if line.startswith("__version__")
    )
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "1767225600"))
    name = whole_name(given.name or f"{NAME}{'-flanneld' if given.flanneld else ''}:{version}")
    out = given.out or ROOT / "dist" / ("hitless-flanneld.tar" if given.flanneld else "hitless-image.tar")
    created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    layout = Layout(name, flanneld=given.flanneld)
    packages: dict[sbom.Package, None] = {}
    with tempfile.TemporaryDirectory(prefix="hitless-image-") as box:
        scratch = Path(box)
        for architecture in dict.fromkeys(given.arch or [here]):
            folder = scratch / architecture
            folder.mkdir()
            extract(architecture, given.mirror, folder, scratch)
            prune(folder)
            finish(folder)
            packages |= dict.fromkeys(sbom.debian(scratch / f"{architecture}.debs", folder, MADE_INTO))
            install(architecture, folder, scratch)
            packages |= dict.fromkeys(sbom.python(folder / SITE))
            compressed, diff = layer(folder, epoch)
            layout.add(architecture, compressed, diff, version, created)
            show(folder, architecture, len(compressed))
        digest = layout.write(out)
    bill = out.with_suffix(".spdx.json")
    bill.write_text(sbom.document(name, version, digest, packages, created))
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {name}, sha256 {digest}")
    print(f"{bill}: {len(packages)} packages")


if __name__ == "__main__":
    main()
