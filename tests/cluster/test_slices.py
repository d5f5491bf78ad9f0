"""What is given to which worker: every source once, whatever answers and losses come in whatever order.

In: slices over sources that exist only by name, workers that are names. Not here: real workers (test_coordinator.py).
"""

from __future__ import annotations

import random

import pytest

from embedcli.cluster.slices import MOST_BYTES, MOST_DOCUMENTS, Slices
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


def test_a_slice_is_small_and_smaller_at_the_end() -> None:
    slices, sizes = slices_of([task(number) for number in range(1_000)]), []
    while (one := slices.next_for("w", workers=4, number=1)) is not None:
        slices.answer("w", one.id, {task.key for task in one.tasks})
        sizes.append(len(one.tasks))
    assert sizes[0] == 1_000 // 16 <= MOST_DOCUMENTS and sizes[-1] == 1 and sizes == sorted(sizes, reverse=True)
    large = slices_of([task(number, MOST_BYTES // 2 + 1) for number in range(8)])
    one = large.next_for("w", workers=1, number=1)
    assert one is not None and len(one.tasks) == 1


def test_what_lost_a_worker_is_given_away_alone_and_in_parts() -> None:
    slices = slices_of([task(number) for number in range(64)])
    first = slices.next_for("a", workers=1, number=1)
    assert first is not None
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
