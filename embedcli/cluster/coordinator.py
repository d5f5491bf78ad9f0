"""A run over workers: it gives slices of its plan away, and adopts what the workers have stored.

In: the record of a run and the owners of its work. Out: as from run/stream.py the sources that ended here, which are
those alone with workers that were lost; all others are in the staging folder and counted.
Not here: adopting (adopting.py), what is given to whom (slices.py), reaching the workers (crew.py), reading, embedding
and storing (worker.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from embedcli.cluster.adopting import Adopter
from embedcli.cluster.crew import Crew, Event, Leaving, LeftOut, Lost, Member, Ready, Said
from embedcli.cluster.job import job_of
from embedcli.cluster.messages import Collected
from embedcli.cluster.slices import Slices
from embedcli.engines.probe import Reference, compare_probe, least_agreement
from embedcli.errors import EmbedcliError, EngineError, Stopped
from embedcli.report import many
from embedcli.run.tasks import Refused

if TYPE_CHECKING:
    from embedcli.run.begin_work import Work
    from embedcli.run.pending import Ended
    from embedcli.run.record import Run

LOOK_S = 0.5
STOP_S = 30.0
OTHERS_S = 30.0
"""How long other workers may take to come after the last one was left out."""

LOST_BEFORE_THEY_ANSWER = 8
NICE = 10


@contextmanager
def stream_over_workers(run: Run, work: Work) -> Iterator[Iterator[list[Ended]]]:
    """The workers, for as long as the context lasts. Raises EmbedcliError."""
    if len(work.adopted) == run.plan.tasks.count:
        yield iter(())
        return
    with contextlib.closing(run.tools.workforce.start(run.device)) as transport:
        crew = Crew(transport, lambda: job_of(run, work))
        yield _Coordinator(run, work, crew).passes()
        for _ in crew.stop(STOP_S):  # what they say now is of slices that others have answered
            pass


class _Coordinator:
    """One loop: hear what the workers say, adopt it, give them more."""

    def __init__(self, run: Run, work: Work, crew: Crew) -> None:
        self._run = run
        self._work = work
        self._crew = crew
        tasks = run.plan.tasks
        self._slices = Slices(
            (task for task in tasks if task.key not in work.adopted), documents=tasks.count - len(work.adopted),
            size_bytes=tasks.size_bytes, moved=run.plan.moved,
        )  # fmt: skip
        self._adopter = Adopter(run, work, self._slices)
        self._number = work.checkpoints.number
        self._probe: Reference | None = None
        self._tokens: dict[str, int] = {}
        self._told: set[str] = set()
        self._patience = _Patience(run.tools.workforce.least, run.tools.workforce.wait_s)

    def passes(self) -> Iterator[list[Ended]]:
        progress, run = self._work.tally.progress, self._run
        started_s, progress.phase = time.monotonic(), "waiting for workers"
        try:
            while not self._slices.done:
                run.stop_if_asked("the workers finish what is in hand")
                if run.time.is_over():
                    self._finish_in_hand(max(run.time.reserve_s / 2, LOOK_S))
                    return
                yield self._pass()
        except Stopped:
            self._finish_in_hand(STOP_S)
            raise
        finally:
            self._work.tally.seconds["reading"] = time.monotonic() - started_s

    def _finish_in_hand(self, within_s: float) -> None:
        for event in self._crew.stop(within_s):
            if isinstance(event, Said):
                self._adopt_all(event.member, event.collected)

    def _pass(self) -> list[Ended]:
        if self._number != self._work.checkpoints.number:
            # published on the way: rows say in which generation they came
            self._number = self._work.checkpoints.number
            self._slices.close_all()
        ended: list[Ended] = []
        for event in self._crew.events(LOOK_S):
            ended += self._hear(event)
        self._patience.check(self._crew.members)
        self._offer()
        self._show()
        return ended

    def _hear(self, event: Event) -> list[Ended]:
        match event:
            case Ready(member, _):
                self._welcome(member)
            case Said(member, collected):
                self._tell(member, collected.lines)
                self._adopt_all(member, collected)
                if collected.ended:  # its time is over
                    self._let_go(member)
            case Leaving(member):
                self._run.report.line(f"worker {member.name} gets no more work: its machine is about to go")
                self._crew.replace()
            case LeftOut(member, error):
                self._leave_out(member, error)
            case Lost(member, reason):
                return self._lose(member, reason)
        return []

    # ---- who is there

    def _welcome(self, member: Member) -> None:
        """A worker is ready; it gets nothing before its vectors are those of the index, or of the other workers."""
        facts, work = member.facts, self._work
        assert facts is not None
        if self._probe is None:
            if work.embedder.reference is None:
                work.checkpoints.staging.keep_probe(facts.probe)
            self._probe = work.embedder.reference = Reference(facts.probe, self._run.settings.max_tokens)
            work.tally.progress.embedding_since = time.monotonic()
        agreement = compare_probe(facts.probe, self._probe.vectors)
        if not agreement >= least_agreement(self._run.settings.quantization, self._run.settings.dim):
            return self._leave_out(member, _other_vectors(agreement))
        work.embedder.precisions |= set(facts.precisions)
        self._run.report.line(f"worker {member.name} is ready: {', '.join(facts.precisions)} on {facts.device}")
        if facts.niceness >= NICE:
            self._say_once(
                f"note: workers run at nice {facts.niceness}; `RAY_worker_niceness=0` before `ray start` changes that"
            )

    def _leave_out(self, member: Member, error: EmbedcliError) -> None:
        mended = f" ({error.hint})" if error.hint else ""
        self._run.report.warn(f"worker {member.name} is left out: {error}{mended}")
        self._let_go(member)
        self._patience.note_left_out(error)

    def _let_go(self, member: Member) -> None:
        self._crew.leave(member)
        self._slices.drop(member.name)

    def _lose(self, member: Member, reason: str) -> list[Ended]:
        """A machine that was about to go has gone: no document is to blame, and another worker is asked for already."""
        self._run.report.warn(f"worker {member.name} is lost: {reason}")
        self._crew.leave(member)
        if not member.is_leaving:
            self._patience.note_lost(member, reason)
            self._crew.replace()
        done = self._adopter.adopt_from(member, self._number)
        guilty = self._slices.lose(member.name, member.writer, done, is_blamed=not member.is_leaving)
        for task in guilty:
            self._run.report.warn(f"`{task.source.uri}` is left out: two workers were lost with it")
            self._work.remaining.note(task, to_embed=0)
        return [Refused(task, "reader_crashed") for task in guilty]

    # ---- what they do

    def _offer(self) -> None:
        """One slice each, then a second one each: what is left is spread over all."""
        members = self._crew.at_work
        for _ in range(2):
            for member in members:
                one = self._slices.next_for(member.name, workers=len(members), number=self._number)
                if one is not None:
                    self._crew.offer(member, one)

    def _adopt_all(self, member: Member, collected: Collected) -> None:
        self._tokens[member.name] = collected.tokens
        for answer in collected.answers:
            doubt = self._adopter.doubt(answer)
            if doubt is not None:
                return self._leave_out(member, doubt)
            if self._adopter.adopt(member, answer):
                self._patience.note_answer()

    def _show(self) -> None:
        progress, at_work = self._work.tally.progress, len(self._crew.at_work)
        progress.phase = f"embedding on {many(at_work, 'worker')}" if at_work else "waiting for workers"
        progress.tokens = sum(self._tokens.values())
        progress.tokens_left = self._work.remaining.tokens

    def _tell(self, member: Member, lines: Sequence[str]) -> None:
        """A warning of each worker, and what is no warning once: they all say the same."""
        for line in lines:
            if line.startswith("warning: "):
                self._run.report.warn(f"worker {member.name}: {line.removeprefix('warning: ')}")
            else:
                self._say_once(line)

    def _say_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._run.report.line(line)


class _Patience:
    """How long a run waits for workers, and how many it may lose before one of them has done anything."""

    def __init__(self, least: int, wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._least = least
        self._wait_s = wait_s
        self._clock = clock
        self._until_s = clock() + wait_s
        self._error: EmbedcliError | None = None
        self._lost = 0

    def check(self, members: Sequence[Member]) -> None:
        """Raise EngineError, or what the last worker was left out for, where there were too few for too long."""
        if len(members) >= self._least:
            self._until_s, self._error = self._clock() + self._wait_s, None
        elif self._clock() > self._until_s:
            raise self._error or EngineError(
                f"{many(len(members), 'worker')} came in {self._wait_s / 60:.0f} minutes, {self._least} are needed",
                "`ray status` shows what the cluster has; the same command goes on where this run stopped",
            )

    def note_left_out(self, error: EmbedcliError) -> None:
        self._error = error
        self._until_s = min(self._until_s, self._clock() + min(OTHERS_S, self._wait_s))

    def note_answer(self) -> None:
        self._lost = 0

    def note_lost(self, member: Member, reason: str) -> None:
        self._lost += not member.has_answered
        if self._lost > LOST_BEFORE_THEY_ANSWER:
            raise EngineError(
                f"{self._lost} workers were lost before they had done anything: {reason}",
                "embedcli has to be installed in the Python of every machine; `ray logs` shows their last words",
            )


def _other_vectors(agreement: float) -> EngineError:
    return EngineError(
        f"it gives other vectors: cosine {agreement:.4f} on the probe set", "use the same engine everywhere"
    )
