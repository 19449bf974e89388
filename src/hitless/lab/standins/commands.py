"""iptables and nft as flannel calls them: one process for each query, and every one counted.

Facts: coreos/go-iptables (``New`` asks for the version; a chain exists when ``-S CHAIN 1`` works; a rule when ``-C``
does; ``ClearChain`` tries ``-N`` and then ``-F``; every command ends with ``--wait``) and sigs.k8s.io/knftables
(``New`` asks for the version and checks a table with a comment; everything else is ``nft -f -``).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from hitless.errors import ProgramError
from hitless.kernel import processes
from hitless.lab.standins.rules import Spec
from hitless.model.families import Backend, Family

__all__ = ["Counter", "IpTables", "Nft"]


class Counter:
    """How many commands were run; shared by an agent's threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.total = 0

    def run(self, command: Sequence[str], stdin: str = "") -> tuple[int, str, str]:
        """Run it, count it: exit code, standard output, standard error."""
        with self._lock:
            self.total += 1
        done = processes.run(command, stdin=stdin, check=False, timeout=None)
        return done.returncode, done.stdout, done.stderr


class IpTables:
    """iptables of one family and backend."""

    def __init__(self, family: Family, backend: Backend, counter: Counter) -> None:
        self._program = backend.tool(family)
        self._counter = counter
        self.version()

    def version(self) -> None:
        """go-iptables does this whenever one of its objects is created."""
        self._counter.run([self._program, "--version"])

    def _run(self, *arguments: str) -> tuple[int, str]:
        code, _, problem = self._counter.run([self._program, *arguments, "--wait"])
        return code, problem

    def _must(self, *arguments: str) -> None:
        code, problem = self._run(*arguments)
        if code:
            raise ProgramError([self._program, *arguments], code, problem)

    def chain_exists(self, table: str, chain: str) -> bool:
        """``-S CHAIN 1``."""
        return self._run("-t", table, "-S", chain, "1")[0] == 0

    def exists(self, rule: Spec) -> bool:
        """``-C``; 1 is "no", anything else is an error."""
        code, problem = self._run("-t", rule.table, "-C", rule.chain, *rule.arguments)
        if code > 1:
            raise ProgramError([self._program, "-C", rule.chain], code, problem)
        return code == 0

    def clear_chain(self, table: str, chain: str) -> None:
        """Create the chain; when it exists, flush it. This opens the gap."""
        code, problem = self._run("-t", table, "-N", chain)
        if code == 1:
            self._must("-t", table, "-F", chain)
        elif code:
            raise ProgramError([self._program, "-N", chain], code, problem)

    def clear_and_delete_chain(self, table: str, chain: str) -> None:
        """Flush and delete the chain when it exists; raises when a rule still jumps to it."""
        if self.chain_exists(table, chain):
            self._must("-t", table, "-F", chain)
            self._must("-t", table, "-X", chain)

    def restore(self, lines: Sequence[tuple[str, str]]) -> None:
        """One ``iptables-restore --noflush``; ``lines`` are (table, rule line)."""
        text = ""
        for table in dict.fromkeys(table for table, _ in lines):
            text += "\n".join([f"*{table}", *(line for each, line in lines if each == table), "COMMIT", ""])
        command = [f"{self._program}-restore", "--noflush", "--wait"]
        code, _, problem = self._counter.run(command, text)
        if code:
            raise ProgramError(command, code, problem)


class Nft:
    """nft for one table."""

    def __init__(self, family: Family, table: str, counter: Counter) -> None:
        self.table = f"{family.nft} {table}"
        self._counter = counter
        self._counter.run(["nft", "--version"])
        self.check(f'add table {self.table} {{ comment "test" ; }}\n')

    def check(self, text: str) -> bool:
        """Whether nft and the kernel would accept it."""
        return self._counter.run(["nft", "--check", "-f", "-"], text)[0] == 0

    def run(self, text: str) -> None:
        """One transaction."""
        code, _, problem = self._counter.run(["nft", "-f", "-"], text)
        if code:
            raise ProgramError(["nft", "-f", "-"], code, problem)
