"""Texts that a kernel refuses whole: the fake one as the real one."""

from __future__ import annotations

import pytest
from tests.contract.adoption import Kernel
from tests.contract.start_states import our_text

from hitless.errors import ProgramError
from hitless.model.families import Backend, Family

GOOD = '-A FLANNEL-POSTRTG -s 10.1.0.0/16 -m comment --comment "flanneld masq" -j RETURN'
REFUSED = {
    "deleting a rule that is not there": "-D FLANNEL-POSTRTG -s 10.9.0.0/16 -j RETURN",
    "deleting a number that is not there": "-D FLANNEL-POSTRTG 77",
    "inserting behind the end": "-I FLANNEL-POSTRTG 77 -j RETURN",
    "a chain that is not there": "-A NOWHERE -j RETURN",
    "a jump to a chain that is not there": "-A FLANNEL-POSTRTG -j NOWHERE",
    "removing a chain that is jumped to": "-F FLANNEL-POSTRTG\n-X FLANNEL-POSTRTG",
    "removing a chain with rules": '-D POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG\n'
    "-X FLANNEL-POSTRTG",
    "an option that nobody knows": "-A FLANNEL-POSTRTG --nonsense -j RETURN",
    "an address of the other family": "-A FLANNEL-POSTRTG -s fd00::/8 -j RETURN",
}
NATIVE = {
    "a rule in a chain that is not there": "add rule ip flannel-ipv4 nowhere return",
    "a handle that is not there": "delete rule ip flannel-ipv4 postrtg handle 9999",
    "a table that is not there": "delete table ip nowhere",
    "a word that nobody knows": "add rule ip flannel-ipv4 postrtg nonsense",
}


def refuses(kernel: Kernel, backend: Backend, lines: str) -> None:
    """The text is refused, and what stands before the refused line in it is not done either."""
    for text in our_text(backend, Family.IPV4):
        kernel.write(backend, Family.IPV4, text)
    before = kernel.observe((Family.IPV4,))
    if backend.native:
        text = f"add rule ip flannel-ipv4 postrtg return\n{lines}\n"
    else:
        text = f"*nat\n{GOOD}\n{lines}\nCOMMIT\n"
    with pytest.raises(ProgramError):
        kernel.write(backend, Family.IPV4, text)
    assert kernel.observe((Family.IPV4,)) == before
