"""net-conf.json in etcd (``PREFIX/config``), where flannel reads it when leases are in etcd.

Promise: the text in etcd; while etcd is away the text of the state file; without one the call waits, and logs the
reason once. The text is checked by ``hitless.sources.netconf`` as a file is.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hitless.errors import ApiError
from hitless.sources.etcd.client import Etcd
from hitless.sources.etcd.registry import Registry
from hitless.sources.options import EtcdOptions

__all__ = ["config_text"]

_AGAIN = 1.0  # seconds; flannel's


def config_text(options: EtcdOptions, remembered: str, report: Callable[[str], None]) -> str:
    """The text of the network configuration. ``report`` gets the reason of a wait. Raises ``InputError``."""
    etcd = Etcd(options)
    reported = ""
    while True:
        try:
            text = Registry(etcd, options.prefix).config()
            why = f"{options.prefix}/config is not there (etcdctl put {options.prefix}/config '{{…}}')"
        except ApiError as error:
            text, why = None, str(error)
        if text is not None:
            return text
        if remembered:
            report(f"{why}; what it said last is used")
            return remembered
        if why != reported:
            report(why)
            reported = why
        time.sleep(_AGAIN)
