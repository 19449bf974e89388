"""Maintenance windows from a ConfigMap: every operator of the cluster reads the same ones.

Promise: the key that ends with ``.toml`` is the file, the other keys are its calendars. It is only read.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from hitless.errors import ApiError, InputError
from hitless.model.reading import shown
from hitless.operations.windows.reading import parsed
from hitless.operations.windows.values import Windows

__all__ = ["of_configmap"]

_NAME = re.compile(r"([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)/([a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?)")


def of_configmap(named: str, kubeconfig: Path | None, context: str | None, *, at: int | None = None) -> Windows:
    """The windows of ``NAMESPACE/NAME``. Raises ``InputError`` and ``ApiError``."""
    match = _NAME.fullmatch(named)
    if match is None:
        raise InputError(f"{shown(named)} is not a ConfigMap", where="--configmap", expected="NAMESPACE/NAME")
    data = asyncio.run(_data(match[1], match[2], kubeconfig, context))
    source = f"ConfigMap {named}"
    keys = [key for key in data if key.endswith(".toml")]
    if len(keys) != 1:
        has = f"has {len(keys)} keys that end with .toml" if keys else "has no key that ends with .toml"
        raise InputError(has, where=source, expected="one, e.g. windows.toml; calendars beside it end with .ics")

    def beside(name: str) -> str:
        if name not in data:
            raise InputError(
                f"has no key {shown(name)}", where=source, expected="the calendar as a key of the ConfigMap"
            )
        return data[name]

    return parsed(data[keys[0]], source=f"{source}: {keys[0]}", beside=beside, at=at)


async def _data(namespace: str, name: str, kubeconfig: Path | None, context: str | None) -> dict[str, str]:
    from hitless.kube.api import Patience, connect
    from hitless.kube.objects import CONFIG_MAPS

    async with connect(kubeconfig, context, patience=Patience(total=20.0)) as api:
        try:
            return (await api.get(CONFIG_MAPS, name, namespace)).data or {}
        except ApiError as error:
            if error.status != 404:
                raise
            raise InputError(
                f"there is no ConfigMap {namespace}/{name}", where="--configmap", expected="one that is there"
            ) from error
