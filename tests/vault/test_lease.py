"""The lease: one writer at a time, also where runs die, are suspended or lose answers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from embedcli.errors import Locked, StorageError
from embedcli.vault import lease
from embedcli.vault.contract import Vault, Version
from embedcli.vault.folder import FolderVault
from embedcli.vault.lease import Lease, read_term, release
from tests.faults import ClockJumps


def silent(_: str) -> None:
    return


def taken(vault: Vault, owner: str, **seams: Any) -> Lease:
    return Lease(vault, owner, warn=seams.pop("warn", silent), **seams)


def dead(vault: Vault, owner: str = "one") -> None:
    """A lease whose holder was killed."""
    with taken(vault, owner):
        held, _ = vault.read(lease.KEY)
    vault.swap(lease.KEY, vault.stat(lease.KEY).version, held)


@pytest.fixture
def vault(tmp_path: Path) -> FolderVault:
    return FolderVault(tmp_path / "vault")


def test_each_holder_has_a_higher_fence_than_all_before(vault: Vault) -> None:
    fences = []
    for owner in ("one", "two", "one"):
        with taken(vault, owner) as held:
            assert held.held() and read_term(vault)[0].owner == owner
            fences.append(held.fence)
        assert read_term(vault)[0].owner == ""
    assert fences == [1, 2, 3]


def test_a_lease_that_is_renewed_is_waited_for_until_its_next_beat_and_then_refused(vault: Vault) -> None:
    with taken(vault, "one") as held:
        said: list[str] = []
        clock = ClockJumps(lambda now: held._beat() if now > 30 else None)
        with (
            pytest.raises(Locked, match="is locked by another run: pid") as refused,
            taken(vault, "two", warn=said.append, clock=clock, sleep=clock.sleep),
        ):
            raise AssertionError
        assert 30 < clock.now < lease.LEASE_S
        assert refused.value.exit_code == 11 and held.held() and "waiting up to 10 minutes" in said[0]


def test_a_lease_that_stands_still_is_taken_over_after_its_time_by_our_own_clock(vault: Vault) -> None:
    dead(vault)
    clock = ClockJumps()
    said: list[str] = []
    with taken(vault, "two", clock=clock, sleep=clock.sleep, warn=said.append) as held:
        assert clock.now >= lease.LEASE_S and held.fence == 2
    assert "took over the lease" in said[1]


def test_what_a_killed_run_of_the_same_mirror_left_is_not_waited_for(vault: Vault) -> None:
    dead(vault, "one")
    with taken(vault, "one", sleep=None) as held:
        assert held.fence == 2


def test_a_run_that_was_suspended_past_its_lease_does_not_hold_it_any_more(vault: Vault) -> None:
    with taken(vault, "one") as suspended:  # it beats every 30 s: not once in this test
        clock = ClockJumps()
        with taken(vault, "two", clock=clock, sleep=clock.sleep) as other:
            assert not suspended.held() and other.held()
        assert not suspended.held()
    assert read_term(vault)[0].fence == 2, "the late release has changed nothing"


class Lossy(FolderVault):
    """The next `times` swaps are made, and then reported as failed."""

    times = 0

    def swap(self, key: str, expected: Version | None, content: bytes) -> Version:
        version = super().swap(key, expected, content)
        if self.times:
            self.times -= 1
            raise StorageError("the network is gone")
        return version


def test_a_beat_of_which_nobody_knows_whether_it_arrived_does_not_lose_the_lease(tmp_path: Path) -> None:
    vault = Lossy(tmp_path / "vault")
    with taken(vault, "one") as held:
        vault.times = 1
        with pytest.raises(StorageError):
            held.held()
        assert held.held()


def test_beats_go_on_while_a_run_works(vault: Vault) -> None:
    with taken(vault, "one", lease_s=1.0):
        seen = set()
        ends = time.monotonic() + 120
        while len(seen) < 4 and time.monotonic() < ends:
            seen.add(json.loads(vault.read(lease.KEY)[0])["beat"])
        assert len(seen) == 4


def test_the_time_is_that_of_the_vault(vault: Vault) -> None:
    with taken(vault, "one") as held:
        assert abs(held.now() - time.time()) < 30


def test_a_dead_lease_is_released_by_hand_and_a_living_one_is_not(vault: Vault) -> None:
    assert release(vault, warn=silent, sleep=lambda _: None) is None
    dead(vault)
    found = release(vault, warn=silent, sleep=lambda _: None)
    assert found is not None and found.owner == "one" and read_term(vault)[0].owner == ""
    with taken(vault, "two") as held, pytest.raises(Locked, match="is alive"):
        release(vault, warn=silent, sleep=lambda _: None if held.held() else None)


def test_a_lease_that_cannot_be_read_is_waited_for_as_any_other(vault: Vault) -> None:
    vault.put_new(lease.KEY, b"{")
    clock = ClockJumps()
    with taken(vault, "two", clock=clock, sleep=clock.sleep):
        assert clock.now >= lease.LEASE_S
