"""The promises of `unlock`, and how the other commands behave while the index is locked."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

import pytest

from embedcli.errors import Locked, NoIndex
from embedcli.index.lock import BEAT_S
from embedcli.verbs import verify
from embedcli.verbs.edits import forget, rollback, unlock
from embedcli.verbs.edits.moved import moved
from embedcli.verbs.status import status
from tests.published import dead_pid, hold, index_of, silent
from tests.workshop import Workshop

CHANGING: dict[str, Callable[[Workshop], object]] = {
    "moved": lambda shop: moved(index_of(shop), str(shop.docs), str(shop.docs.parent), warn=silent),
    "forget": lambda shop: forget.forget(index_of(shop), str(shop.docs), warn=silent),
    "rollback": lambda shop: rollback.rollback(index_of(shop), warn=silent),
    "unlock": lambda shop: unlock.unlock(index_of(shop), warn=silent),
}


@pytest.mark.parametrize("verb", CHANGING)
def test_a_verb_that_writes_fails_at_once_during_a_run(kept: Workshop, verb: str) -> None:
    with hold(kept).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Locked, match=str(os.getpid())):
            CHANGING[verb](kept)
    assert index_of(kept).current_number() == 1


def test_unlock_clears_the_lock_of_a_dead_host_and_names_its_holder(kept: Workshop) -> None:
    file = hold(kept, host="far-away", pid=12)
    watched: list[float] = []
    holder = unlock.unlock(index_of(kept), warn=lambda _: None, sleep=watched.append)
    assert holder is not None
    assert (holder.host, holder.pid, holder.alive) == ("far-away", 12, None)
    assert watched and watched[0] > BEAT_S
    assert file.read_bytes() == b""
    assert unlock.unlock(index_of(kept), warn=silent) is None


def test_unlock_leaves_a_lock_that_another_host_still_writes_to(kept: Workshop) -> None:
    file = hold(kept, host="far-away", pid=12)
    with pytest.raises(Locked, match="pid 12 on `far-away`"):
        unlock.unlock(
            index_of(kept), warn=lambda _: None, sleep=lambda _: hold(kept, host="far-away", nonce="a:2") and None
        )
    assert b"far-away" in file.read_bytes()


def test_unlock_clears_the_lock_of_a_dead_process_of_this_host_at_once(kept: Workshop) -> None:
    file = hold(kept, pid=dead_pid())
    assert unlock.unlock(index_of(kept), warn=silent, sleep=lambda _: pytest.fail("nothing to wait for"))
    assert file.read_bytes() == b""


def test_unlock_clears_a_torn_lock_file(kept: Workshop) -> None:
    file = kept.index / "lock"
    file.write_text('{"host": "oth')
    assert unlock.unlock(index_of(kept), warn=lambda _: None, sleep=lambda _: None)
    assert file.read_bytes() == b""


@pytest.mark.parametrize("verb", [*CHANGING, "status", "verify"])
def test_no_verb_writes_into_a_folder_that_is_not_an_index(shop: Workshop, verb: str) -> None:
    reading = {"status": status, "verify": verify.verify}
    with pytest.raises(NoIndex):
        reading[verb](index_of(shop)) if verb in reading else CHANGING[verb](shop)
    assert not shop.index.exists()
