"""What is given to which worker: every source once, whatever answers and losses come in whatever order.

In: slices over sources that exist only by name, workers that are names. Not here: real workers (test_coordinator.py).
"""

from __future__ import annotations

import random

import pytest

from embedcli.cluster.messages import Slice
from embedcli.cluster.slices import FIRST_DOCUMENTS, MOST_BYTES, MOST_DOCUMENTS, MOST_S, SHORT_S, Slices
from embedcli.records import Source, Stat
from embedcli.run.tasks import Task
from tests.faults import ClockJumps


def task(number: int, size: int = 1_000) -> Task:
    return Task(Source("root", f"{number:04d}.txt", f"/{number:04d}.txt", Stat(size, 0, 0, number)), None)


def slices_of(tasks: list[Task], clock: ClockJumps | None = None) -> Slices:
    size_bytes = sum(one.size_bytes for one in tasks)
    return Slices(
        iter(tasks), documents=len(tasks), size_bytes=size_bytes, moved={}, clock=clock or ClockJumps()
    )  # fmt: skip


@pytest.mark.parametrize("first", range(0, 500, 100))
def test_every_source_is_taken_once_in_every_order_of_answers_and_losses(first: int) -> None:
    for seed in range(first, first + 100):
        chance, clock = random.Random(seed), ClockJumps()
        tasks = [task(number, chance.choice([10, 10_000, 80 << 20])) for number in range(chance.randint(1, 150))]
        slices, taken, blamed = slices_of(tasks, clock), [], []
        workers = [f"w{number}" for number in range(chance.randint(1, 5))]
        out: list[tuple[str, int, list[Task]]] = []
        for step in range(20_000):
            if slices.done:
                break
            clock.now += chance.expovariate(0.1)
            worker = chance.choice(workers)
            event = chance.random()
            if event < 0.5:
                one = slices.next_for(worker, workers=len(workers), number=1)
                if one is not None:
                    out.append((worker, one.id, list(one.tasks)))
            elif event < 0.95 and out:
                who, slice_id, given = out.pop(chance.randrange(len(out))) if chance.random() < 0.9 else out[0]
                ended = {one.key for one in given if chance.random() < 0.95}
                taken += slices.answer(who, slice_id, ended) or ()
            elif event < 0.97:
                blamed += slices.lose(worker, "folder", done=())
                workers[workers.index(worker)] = f"w{step + 10}"
            elif event > 0.998:
                slices.close_all()
        assert slices.done, seed
        assert sorted(one.key for one in [*taken, *blamed]) == [one.key for one in tasks], seed


def test_a_machine_that_goes_as_it_was_told_to_blames_no_source() -> None:
    slices = slices_of([task(0)])
    for number in range(5):
        assert slices.next_for(f"w{number}", workers=1, number=1) is not None
        assert slices.lose(f"w{number}", "run/writer", done=(), is_blamed=False) == []
    again = slices.next_for("last", workers=1, number=1)
    assert again is not None and again.lend == ("run/writer",)


def test_what_a_worker_that_leaves_has_not_ended_is_given_away_with_its_vectors() -> None:
    slices = slices_of([task(number) for number in range(8)])
    first = slices.next_for("w", workers=1, number=1)
    assert first is not None and len(first.tasks) == 2
    assert slices.answer("w", first.id, {first.tasks[0].key}, writer="run/writer") == first.tasks[:1]
    again = slices.next_for("other", workers=1, number=1)
    assert again is not None and again.tasks == first.tasks[1:] and again.lend == ("run/writer",)


def sizes_of(documents: int, *, workers: dict[str, float]) -> dict[str, list[int]]:
    """How many documents each slice has that each of the workers gets, which take so many seconds for one document, and
    have one slice at a time."""
    clock = ClockJumps()
    slices = slices_of([task(number) for number in range(documents)], clock)
    sizes: dict[str, list[int]] = {worker: [] for worker in workers}
    ends_s = dict.fromkeys(workers, 0.0)
    at_work: dict[str, Slice] = {}
    while True:
        worker = min(ends_s, key=ends_s.__getitem__)
        clock.now = ends_s[worker]
        if (done := at_work.pop(worker, None)) is not None:
            slices.answer(worker, done.id, {task.key for task in done.tasks})
        one = slices.next_for(worker, workers=len(workers), number=1)
        if one is None:
            break
        at_work[worker] = one
        sizes[worker].append(len(one.tasks))
        ends_s[worker] += len(one.tasks) * workers[worker]
    assert sum(map(sum, sizes.values())) == documents
    return sizes


def test_a_slice_is_small_and_smaller_at_the_end() -> None:
    sizes = sizes_of(1_000, workers=dict.fromkeys("abcd", 2 * SHORT_S))
    first, *others = sizes["a"]
    assert first == 1_000 // 16 <= FIRST_DOCUMENTS and others[-1] == 1
    assert others[0] == MOST_S / (2 * SHORT_S) and others == sorted(others, reverse=True)
    large = slices_of([task(number, MOST_BYTES // 2 + 1) for number in range(8)])
    one = large.next_for("w", workers=1, number=1)
    assert one is not None and len(one.tasks) == 1


def test_a_worker_with_a_fast_card_gets_what_keeps_it_busy_and_a_slow_one_no_more_than_before() -> None:
    """At 2,000 documents a second 64 last 32 ms, and each slice is stored and answered by itself."""
    sizes = sizes_of(60_000, workers={"fast": SHORT_S / 2_000, "slow": SHORT_S / 5})
    assert sizes["fast"][:6] == [64, 128, 256, 512, 1_024, 1_024] and max(sizes["fast"]) == MOST_DOCUMENTS
    assert sizes["fast"][-1] == 1
    assert max(sizes["slow"]) == FIRST_DOCUMENTS


def test_slices_that_are_answered_together_do_not_count_as_fast() -> None:
    clock = ClockJumps()
    slices = slices_of([task(number) for number in range(10_000)], clock)
    for _ in range(20):
        both = [slices.next_for("slow", workers=1, number=1) for _ in range(2)]
        clock.now += 2 * SHORT_S
        for one in both:
            assert one is not None and len(one.tasks) == FIRST_DOCUMENTS
            slices.answer("slow", one.id, {task.key for task in one.tasks})


def test_one_slice_of_copies_gives_nobody_all_the_rest() -> None:
    clock = ClockJumps()
    slices = slices_of([task(number) for number in range(1_000)], clock)
    copies = slices.next_for("a", workers=4, number=1)
    assert copies is not None
    slices.answer("a", copies.id, {task.key for task in copies.tasks})
    sizes = [slices.next_for(worker, workers=4, number=1) for worker in "abcd"]
    assert all(one is not None and 40 < len(one.tasks) < 64 for one in sizes)


def test_no_slice_is_larger_than_its_bytes_allow_however_fast_the_worker_is() -> None:
    clock = ClockJumps()
    slices = slices_of([task(number, MOST_BYTES // 10) for number in range(5_000)], clock)
    for _ in range(20):
        one = slices.next_for("fast", workers=1, number=1)
        assert one is not None and len(one.tasks) <= 10
        slices.answer("fast", one.id, {task.key for task in one.tasks})


def test_a_source_of_a_large_slice_that_kills_its_workers_is_found_after_four() -> None:
    clock = ClockJumps()
    slices = slices_of([task(number) for number in range(40_000)], clock)
    while (one := slices.next_for("w", workers=1, number=1)) is not None and len(one.tasks) < MOST_DOCUMENTS:
        slices.answer("w", one.id, {task.key for task in one.tasks})
    assert one is not None
    killer = one.tasks[500].key
    lost, guilty = 0, list[Task]()
    while not guilty:
        lost += 1
        guilty = slices.lose("w", "", done=())
        while not guilty and (one := slices.next_for("w", workers=1, number=1)) is not None:
            if killer in {task.key for task in one.tasks}:
                break
            slices.answer("w", one.id, {task.key for task in one.tasks})
    assert [task.key for task in guilty] == [killer] and lost == 4


def test_what_lost_a_worker_is_given_away_alone_and_in_parts() -> None:
    slices = slices_of([task(number) for number in range(512)])
    first = slices.next_for("a", workers=1, number=1)
    assert first is not None and len(first.tasks) == 64
    assert slices.lose("a", "/staging/writer-a", done=()) == []
    again = slices.next_for("b", workers=1, number=1)
    assert again is not None and again.lend == ("/staging/writer-a",) and len(again.tasks) == len(first.tasks) // 8
    assert slices.next_for("b", workers=1, number=1) is None, "what else it had would be blamed with it"
    assert slices.next_for("c", workers=1, number=1) is not None


def test_a_source_that_was_alone_with_two_lost_workers_is_blamed_and_no_other() -> None:
    slices = slices_of([task(0), task(1)])
    assert slices.next_for("a", workers=8, number=1) is not None
    assert slices.lose("a", "", done=()) == []
    assert slices.next_for("b", workers=8, number=1) is not None
    assert [guilty.key[1] for guilty in slices.lose("b", "", done=())] == ["0000.txt"]
    other = slices.next_for("c", workers=8, number=1)
    assert other is not None and [one.key[1] for one in other.tasks] == ["0001.txt"]
    assert slices.answer("c", other.id, {("root", "0001.txt")}) and slices.done


def test_a_late_slice_is_given_to_an_idle_worker_too_and_the_first_answer_counts() -> None:
    clock = ClockJumps()
    slices = slices_of([task(number) for number in range(3)], clock)
    for _ in range(2):
        one = slices.next_for("quick", workers=1, number=1)
        assert one is not None
        clock.now += 1.0
        slices.answer("quick", one.id, {task.key for task in one.tasks})
    slow = slices.next_for("slow", workers=1, number=1)
    assert slow is not None and slices.next_for("quick", workers=1, number=1) is None
    clock.now += 1_000.0
    again = slices.next_for("quick", workers=1, number=1)
    assert again == slow
    assert slices.answer("quick", slow.id, {task.key for task in slow.tasks})
    assert slices.answer("slow", slow.id, {task.key for task in slow.tasks}) is None
    assert slices.done
