"""Recorded runs opened to be played again: to go on in their own journal, or into a new one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from keyeloop.agent.answer_form import AnswerForm
from keyeloop.agent.inputs import CheckedTask
from keyeloop.agent.past import Past
from keyeloop.agent.replaying.playback import Playback
from keyeloop.agent.replaying.tape import Tape, of_the_loop
from keyeloop.runtime.clock import Clock
from keyeloop.runtime.errors import InputError, JournalError
from keyeloop.runtime.events import Event, Fork, Noticed, QuestionAsked, RequestSent, RunEnded, RunStart
from keyeloop.runtime.journal import JOURNAL, Journal
from keyeloop.runtime.journal.pictures import pictures_of
from keyeloop.runtime.journal.sources import link_own, located
from keyeloop.runtime.trajectory import Trajectory

RESUMED = ("in flight", "interrupted", "failed")
"""Statuses of runs that may go on where they were cut off."""


def task_of(asked: RunStart | QuestionAsked, start: RunStart, folder: Path) -> CheckedTask:
    """The recorded question of the run in ``folder``; its files are not opened."""
    documents, schema = start.config.get("documents"), asked.config.get("answer_schema")
    sources, form = located(start.inputs, folder), None if schema is None else AnswerForm(schema)
    return CheckedTask(asked.question, sources, None if documents is None else Path(documents), form)


def open_to_resume(folder: Path, clock: Clock) -> Playback:
    """The last question of the run in ``folder``, to go on where it was cut off; its journal is locked.

    Raises InputError for a run that has ended, JournalError for one that another process is at or that is damaged.
    """
    if not (folder / JOURNAL).is_file():
        raise InputError(f"no run in {folder}: name the folder of a run, the one that holds {JOURNAL}")
    journal = Journal.reopen(folder, clock)
    try:
        run = Trajectory.read(folder)
        require_resumable(run)
        require_pictures(run)
        number = len(run.exchanges)
        ended = [event for event in of_the_loop(_own(run, number)) if not isinstance(event, RunEnded)]
        tape = Tape(run.exchanges[-1].asked, ended, f"the run in {folder}")
        return Playback(
            journal,
            run.exchanges[-1].asked,
            tape,
            run.start,
            _before(run, number, journal),
            last_turn=max((step.turn for step in run.steps), default=0),
        )
    except BaseException:
        journal.close()
        raise


def open_to_fork(origin: Path, turn: int, folder: Path, run_id: str, clock: Clock) -> Playback:
    """The run up to where turn ``turn`` was asked, in a new journal, to be asked anew from there.

    Raises InputError for a turn that the run does not have.
    """
    run = Trajectory.read(origin)
    asked_turns = [event.turn for event in run.events if isinstance(event, RequestSent)]
    if turn not in asked_turns:
        most = max(asked_turns, default=0)
        raise InputError(f"the run in {run.folder} has the steps 1 to {most}: there is no step {turn} to go on from")
    number = next(one.number for one in run.exchanges if any(step.turn == turn for step in one.steps))
    asked = run.exchanges[number - 1].asked
    own = of_the_loop(_own(run, number))
    stop = next(place for place, event in enumerate(own) if not isinstance(event, Noticed) and _turn(event) >= turn)
    kept = own[:stop]
    journal = Journal.create(folder, clock)
    try:
        link_pictures(run, kept, journal, number)
        link_own(run.folder, folder)
        fork = Fork(run_id=run.start.run_id, turn=turn)
        start = run.start.model_copy(update={"run_id": run_id, "fork": fork})
        written = [journal.append(event) for event in (start, *run.events[1 : run.events.index(asked) + 1])]
        begun, again = written[0], written[-1]
        assert isinstance(begun, RunStart) and isinstance(again, RunStart | QuestionAsked)
        tape = Tape(asked, kept, f"the run in {run.folder}")
        before = _before(run, number, journal)
        return Playback(journal, again, tape, begun, before, writes=True, last_turn=turn - 1)
    except BaseException:
        journal.close()
        raise


def link_pictures(run: Trajectory, kept: Iterable[Event], journal: Journal, number: int) -> None:
    """Give the new run the pictures of what it takes over."""
    begin = run.events.index(run.exchanges[number - 1].asked)
    for sha256 in pictures_of([*run.events[: begin + 1], *kept]):
        journal.media.put_bytes(run.media.read(sha256))


def require_resumable(run: Trajectory) -> None:
    """Raise InputError for a run that has ended."""
    if run.status not in RESUMED:
        raise InputError(
            f"the run in {run.folder} has ended ({run.status}): there is nothing to resume; keyeloop ask goes on with "
            "another question"
        )


def require_pictures(run: Trajectory) -> None:
    """Raise JournalError for a run whose pictures are missing or were changed."""
    for sha256 in pictures_of(run.events):
        try:
            run.media.read(sha256)
        except JournalError as error:
            raise JournalError(f"the run in {run.folder} cannot be played again: {error}") from None


def _turn(event: Event) -> int:
    return getattr(event, "turn", 0)


def _own(run: Trajectory, number: int) -> Sequence[Event]:
    """The events behind question ``number``, up to the next."""
    begin = run.events.index(run.exchanges[number - 1].asked)
    stop = run.events.index(run.exchanges[number].asked) if number < len(run.exchanges) else len(run.events)
    return run.events[begin + 1 : stop]


def _before(run: Trajectory, number: int, journal: Journal) -> Past | None:
    if number == 1:
        return None
    begin = run.events.index(run.exchanges[number - 1].asked)
    return Past.of(journal, Trajectory(run.folder, run.events[:begin]))
