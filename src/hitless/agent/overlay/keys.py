"""This node's WireGuard key: from its file, else from an existing device, else a new one.

Problem: a new key cuts a node off from all peers until they know it, and flannel creates one in every container whose
/run/flannel is not the node's. Promise: the file (WIREGUARD_KEY_FILE, else flannel's own /run/flannel/wgkey) comes
first; without it the key of a device with flannel's name is kept. A key that is kept or created is written to the file
atomically, readable by root only. A file without a valid key is refused and left unchanged. The key is never shown.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from hitless.errors import InputError, NotFound
from hitless.kernel import files
from hitless.kernel.links.wireguard import Secrets, WireguardDevices, require
from hitless.model.curve25519 import LENGTH, clamped, is_key
from hitless.model.overlay import WireguardConfig

__all__ = ["key_file", "secrets_of", "stored_or_made"]

_DEFAULT = "/run/flannel/wgkey"
_MOST = 4096
_DEVICES = ("flannel-wg", "flannel-wg-v6")


def key_file(environment: Mapping[str, str]) -> Path:
    """The path of the key: flannel's variable, or flannel's default."""
    return Path(environment.get("WIREGUARD_KEY_FILE") or _DEFAULT)


def secrets_of(backend: WireguardConfig, path: Path, warn: Callable[[str], None]) -> Secrets:
    """The keys for the devices; called before anything is changed.

    Raises ``MissingError`` where the kernel has no WireGuard, ``InputError`` where the file has no valid key.
    """
    require()
    private = stored_or_made(path, _of_device, warn)
    return Secrets(private, base64.b64decode(backend.preshared_key))


def stored_or_made(path: Path, of_device: Callable[[], bytes], warn: Callable[[str], None]) -> bytes:
    """The key; ``warn`` is called where it cannot be kept, or others can read it."""
    stored = _stored(path, warn)
    if stored:
        return stored
    private = of_device() or clamped(secrets.token_bytes(LENGTH))
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        files.replace(path, base64.b64encode(private), mode=0o400)
    except OSError as error:
        warn(
            f"the WireGuard key is not kept in {path}: {error.strerror or error}; it lasts as long as the device does. "
            "Mount the node's /run/flannel, or set WIREGUARD_KEY_FILE"
        )
    return private


def _stored(path: Path, warn: Callable[[str], None]) -> bytes:
    """The key in the file; empty where there is no file, or an empty one after an interrupted write."""
    where = f"WireGuard key {path}"
    try:
        text = files.read(path, most=_MOST).decode("ascii", "replace").strip()
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise InputError(error.strerror or str(error), where=where, remedy="restore it, or remove it") from error
    if not text:
        return b""
    if not is_key(text):
        raise InputError(
            "is not a key", where=where, expected="32 bytes in base64",
            remedy="restore it, or remove it: then the device's key is kept, or a new one made",
        )  # fmt: skip
    if mode & 0o077:
        warn(f"the WireGuard key {path} can be read by others than its owner: chmod 400 {path}")
    return base64.b64decode(text)


def _of_device() -> bytes:
    with WireguardDevices() as devices:
        for name in _DEVICES:
            try:
                private = devices.read(name).private_key
            except NotFound:
                continue
            if private:
                return private
    return b""
