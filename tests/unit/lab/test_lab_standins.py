from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from hitless.lab.standins.adopter import Adopter
from hitless.lab.standins.commands import Counter
from hitless.lab.standins.flannel import FlannelNft, FlannelStandIn, Subnets
from hitless.lab.standins.rules import Pods, masquerade
from hitless.model.families import Backend, Family

PODS = Pods(Family.IPV4, "10.42.0.0/16", "10.42.0.0/24")


class FakeTables(Counter):
    """iptables' tables as lists of lines; it notes every command and whether egress stood when it began."""

    def __init__(self) -> None:
        super().__init__()
        self.chains: dict[tuple[str, str], list[str]] = {
            ("nat", "POSTROUTING"): [],
            ("filter", "FORWARD"): [],
        }
        self.commands: list[list[str]] = []
        self.dark: list[list[str]] = []

    @property
    def carried(self) -> bool:
        chain = self.chains.get(("nat", "FLANNEL-POSTRTG"), [])
        jumps = [line for line in self.chains["nat", "POSTROUTING"] if line.endswith("FLANNEL-POSTRTG")]
        return bool(jumps) and any("MASQUERADE" in line for line in chain)

    def run(self, command: Sequence[str], stdin: str = "") -> tuple[int, str, str]:
        words = list(command)
        self.total += 1
        self.commands.append(words)
        if not self.carried:
            self.dark.append(words)
        if words[0] == "nft":
            return (1 if "delete table" in stdin else 0), "", "no such table"
        if words[0].endswith("-restore"):
            self._restore(stdin)
            return 0, "", ""
        if words[0].endswith("-save"):
            return 0, "\n".join(line for key, lines in self.chains.items() if key[0] == words[2] for line in lines), ""
        if "--version" in words:
            return 0, "iptables v1.8.9 (nf_tables)", ""
        return self._one(words), "", ""

    def _one(self, words: list[str]) -> int:
        assert words[-1] == "--wait"
        table, action, chain, rest = words[2], words[3], words[4], words[5:-1]
        key = (table, chain)
        match action:
            case "-S":
                return 0 if key in self.chains else 1
            case "-N":
                if key in self.chains:
                    return 1
                self.chains[key] = []
            case "-F":
                self.chains[key] = []
            case "-C":
                line = " ".join(["-A", chain, *(f'"{word}"' if " " in word else word for word in rest)])
                return 0 if line in self.chains.get(key, []) else 1
            case other:
                raise AssertionError(other)
        return 0

    def _restore(self, text: str) -> None:
        table = ""
        for line in text.splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(":"):
                self.chains[table, line[1:].split()[0]] = []
            elif line.startswith("-A "):
                self.chains[table, line.split()[1]].append(line)
            elif line.startswith("-D "):
                self.chains[table, line.split()[1]].remove(line.replace("-D ", "-A ", 1))


def flannel(tables: FakeTables, path: Path | None, *, old: bool = False) -> FlannelStandIn:
    return FlannelStandIn((PODS,), Backend.NFT, Subnets(path), old, 3600, counter=tables)


def whole(tables: FakeTables) -> bool:
    jump, *lines = [rule.line("-A") for rule in masquerade(PODS)]
    return (
        tables.chains["nat", "POSTROUTING"] == [jump]
        and tables.chains["nat", "FLANNEL-POSTRTG"] == lines
        and len(tables.chains["filter", "FLANNEL-FWD"]) == 2
    )


def test_a_restart_of_flannel_runs_eighteen_commands_while_its_chain_is_empty(tmp_path: Path) -> None:
    tables = FakeTables()
    flannel(tables, tmp_path / "subnet.env").start()
    assert whole(tables)
    tables.dark.clear()
    flannel(tables, tmp_path / "subnet.env").start()
    assert len(tables.dark) == 18
    assert tables.dark[-1][0] == "iptables-nft-restore"
    assert [words[-1] for words in tables.dark[:3]] == ["--version"] * 3
    assert whole(tables)


def test_in_canal_the_jump_goes_first_and_it_is_twenty_one(tmp_path: Path) -> None:
    tables = FakeTables()
    flannel(tables, None).start()
    tables.dark.clear()
    flannel(tables, None).start()
    assert len(tables.dark) == 21
    assert whole(tables)


def test_flannel_0_26_removes_its_rules_at_sigterm_after_twenty_two_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("hitless.lab.standins.flannel.time.sleep", slept.append)
    tables = FakeTables()
    agent = flannel(tables, tmp_path / "subnet.env", old=True)
    agent.start()
    assert whole(tables)
    tables.commands.clear()
    agent.stop()
    assert slept == [1]
    assert len(tables.commands) == 23
    assert tables.commands[-1][0] == "iptables-nft-restore"
    assert tables.chains["nat", "POSTROUTING"] == tables.chains["filter", "FORWARD"] == []
    assert tables.chains["nat", "FLANNEL-POSTRTG"] == []


def test_flannel_0_28_leaves_its_rules_at_sigterm(tmp_path: Path) -> None:
    tables = FakeTables()
    agent = flannel(tables, tmp_path / "subnet.env")
    agent.start()
    agent.stop()
    assert whole(tables)


def test_the_adopter_writes_nothing_when_all_is_right() -> None:
    tables = FakeTables()
    Adopter((PODS,), Backend.NFT, 3600, counter=tables).start()
    assert whole(tables)
    tables.commands.clear()
    Adopter((PODS,), Backend.NFT, 3600, counter=tables).start()
    assert [words[0] for words in tables.commands] == ["iptables-nft-save", "iptables-nft-save"]


@pytest.mark.parametrize("damage", ["order", "duplicate", "jump twice", "foreign"])
def test_the_adopter_mends_what_existence_checks_do_not_see_without_a_dark_moment(damage: str) -> None:
    tables = FakeTables()
    Adopter((PODS,), Backend.NFT, 3600, counter=tables).start()
    chain, jumps = tables.chains["nat", "FLANNEL-POSTRTG"], tables.chains["nat", "POSTROUTING"]
    match damage:
        case "order":
            chain.reverse()
        case "duplicate":
            chain.append(chain[0])
        case "jump twice":
            jumps.append(jumps[0])
        case "foreign":
            chain.insert(0, "-A FLANNEL-POSTRTG -j RETURN")
    tables.dark.clear()
    Adopter((PODS,), Backend.NFT, 3600, counter=tables).start()
    assert whole(tables)
    assert tables.dark == []


def test_the_subnet_file_says_what_the_last_run_knew_and_is_forgiving_about_none(tmp_path: Path) -> None:
    subnets = Subnets(tmp_path / "flannel" / "subnet.env")
    assert subnets.previous(Family.IPV4) == Pods.nothing(Family.IPV4)
    subnets.write([PODS])
    assert subnets.previous(Family.IPV4) == PODS
    assert subnets.previous(Family.IPV6) == Pods.nothing(Family.IPV6)


def test_nftables_mode_is_one_transaction_per_chain_and_only_the_old_release_deletes() -> None:
    for old in (True, False):
        texts: list[str] = []

        class Recorder(Counter):
            def run(self, command: Sequence[str], stdin: str = "") -> tuple[int, str, str]:
                if list(command) == ["nft", "-f", "-"]:
                    texts.append(stdin)  # noqa: B023 - used within this turn only
                return 0, "", ""

        agent = FlannelNft((PODS,), old, counter=Recorder())
        agent.start()
        (masq,) = [text for text in texts if "flush chain ip flannel-ipv4 postrtg" in text]
        assert masq.count("add rule ip flannel-ipv4 postrtg") == 6
        texts.clear()
        agent.stop()
        deleted = [text for text in texts if text.startswith("delete table")]
        assert deleted == (["delete table ip flannel-ipv4\n", "delete table ip6 flannel-ipv6\n"] if old else [])
