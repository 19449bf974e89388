"""The calls with which a node takes, changes and keeps its lease in etcd: one request each, none for other nodes'.

Problem: flannel reads and then writes, so that two nodes may overwrite each other; it renews by a new lease and a new
value, which every peer receives; and it turns a reservation (a key without a lease) into one that expires after a day.
Promise: every write is a transaction that compares what was read; a renewal is a keep-alive, which no peer receives; a
key keeps its lease, or has none. Raises ``ApiError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hitless.errors import ApiError
from hitless.model.reading import number
from hitless.sources.etcd.client import Etcd
from hitless.sources.etcd.keys import decoded, encoded

__all__ = ["Registry"]


class Registry:
    """flannel's keys below a prefix, such as ``/coreos.com/network``."""

    def __init__(self, etcd: Etcd, prefix: str) -> None:
        self._etcd, self._prefix = etcd, prefix
        self.subnets = f"{prefix}/subnets/"

    def config(self) -> str | None:
        """The text of net-conf.json, where it is there."""
        answer = self._etcd.call("kv/range", {"key": encoded(f"{self._prefix}/config")})
        kvs = answer.get("kvs")
        if not isinstance(kvs, list) or not kvs or not isinstance(kvs[0], Mapping):
            return None
        try:
            return decoded(kvs[0].get("value", "")).decode("utf-8", "replace")
        except ValueError as error:
            raise ApiError(f"etcd kv/range: the answer is not understood ({error})") from error

    def grant(self, seconds: int) -> int:
        """A new lease."""
        return _whole(self._etcd.call("lease/grant", {"TTL": str(seconds)}), "ID")

    def revoke(self, lease: int) -> None:
        """Revoke a lease; its keys are deleted."""
        self._etcd.call("lease/revoke", {"ID": str(lease)})

    def remaining(self, lease: int) -> int:
        """Seconds until a lease expires; negative when it has."""
        return _whole(self._etcd.call("lease/timetolive", {"ID": str(lease)}), "TTL")

    def renew(self, lease: int) -> int:
        """Renew a lease for its whole time: the seconds until it expires, 0 when it already has."""
        result = self._etcd.call("lease/keepalive", {"ID": str(lease)}).get("result")
        if not isinstance(result, Mapping):
            raise ApiError("etcd lease/keepalive: the answer is not understood")
        return _whole(result, "TTL")

    def create(self, key: str, value: str, lease: int) -> bool:
        """Create a key; false when it exists."""
        return self._write(key, value, {"target": "VERSION", "version": "0"}, {"lease": str(lease)})

    def change(self, key: str, value: str, modified: int) -> bool:
        """Change a key as it was read, keeping its lease; false when it was changed meanwhile."""
        compare = {"target": "MOD", "mod_revision": str(modified)}
        return self._write(key, value, compare, {"ignore_lease": True})

    def delete(self, key: str, modified: int) -> bool:
        """Remove a key as it was read; false when it was changed meanwhile."""
        full = encoded(self.subnets + key)
        compare = {"key": full, "result": "EQUAL", "target": "MOD", "mod_revision": str(modified)}
        return _won(self._etcd.call("kv/txn", _transaction(compare, {"request_delete_range": {"key": full}})))

    def _write(self, key: str, value: str, compare: Mapping[str, Any], more: Mapping[str, Any]) -> bool:
        full = encoded(self.subnets + key)
        put = {"key": full, "value": encoded(value), **more}
        condition = {"key": full, "result": "EQUAL", **compare}
        return _won(self._etcd.call("kv/txn", _transaction(condition, {"request_put": put})))


def _transaction(compare: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    return {"compare": [compare], "success": [request]}


def _won(answer: Mapping[str, Any]) -> bool:
    return answer.get("succeeded") is True


def _whole(answer: Mapping[str, Any], key: str) -> int:
    value = answer.get(key, 0)
    found = number(value) if isinstance(value, str) else value if isinstance(value, int) else None
    if found is None:
        raise ApiError(f"etcd: {key} is not a number in the answer")
    return found
