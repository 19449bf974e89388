"""net-conf.json in etcd (``PREFIX/config``): flannel's place for it where leases are in etcd.

Promise: the text as etcd has it; where etcd is away, the text that the state file remembers; else it is waited for, and
said once why. It is checked by ``hitless.sources.netconf`` as a file is.
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


def config_text(options: EtcdOptions, remembered: str, say: Callable[[str], None]) -> str:
    """The text of the network configuration. ``say`` is told what is waited for. Raises ``InputError``."""
    etcd = Etcd(options)
    said = ""
    while True:
        try:
            text = Registry(etcd, options.prefix).config()
            why = f"{options.prefix}/config is not there (etcdctl put {options.prefix}/config '{{…}}')"
        except ApiError as error:
            text, why = None, str(error)
        if text is not None:
            return text
        if remembered:
            say(f"{why}; what it said last is used")
            return remembered
        if why != said:
            say(why)
            said = why
        time.sleep(_AGAIN)
