"""The open workspace: asked from the event loop, worked on threads of its own, so that the loop never waits.

What a method of :class:`Desk` is marked as says where it runs (`shell/hands.py`): `@reads` gives a snapshot of one
moment, `@writes` is one transaction, committed and synced to disk when its await returns. Whatever goes wrong is a
`WorkbenchError` that says what happened and what is safe.

Loaded after the first paint, because the database layer is slow to import.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from storage import comparison, conversations, jobs, packs, raters, versions
from storage.comparison import Comparison, Curves
from storage.database import Database
from storage.errors import WorkbenchError
from storage.feedback import census, guidelines, log, mix, queue, rankings, selection, winning
from storage.feedback.guidelines import Guideline
from storage.feedback.mix import Mix
from storage.feedback.queue import ReviewItem
from storage.feedback.selection import Selection
from storage.feedback.sitting import Sitting
from storage.feedback.stock import Stock, take_stock
from storage.feedback.winning import WinRate
from storage.packs import Added, Pack
from storage.raters import Rater, RaterKind
from storage.records import Choice, Job, Message, Prompt, Rating, RatingKind, Sample, Split, Version
from storage.troubles import ReadOnlyError, is_locked
from storage.workspace import Workspace
from workbench.engine.recording import store_answers
from workbench.screens.prompt.conversation import Exchange
from workbench.shell import left, models, session
from workbench.shell.hands import Hands, reads, writes
from workbench.shell.left import Left
from workbench.shell.news import Seen, look
from workbench.shell.session import Session
from workbench.training.launcher import Trainers
from workbench.training.view import History, TrainView, train_view


class Desk(Hands):
    """The workspace as the app works with it. `rater` is whose ratings it writes and reads."""

    def __init__(self, workspace: Workspace, rater: str) -> None:
        super().__init__(workspace)
        self.rater = rater
        self.trainers = Trainers(workspace)
        self.figures = History()  # of the reading thread
        self.sitting = Sitting(0)  # of the writing thread
        self.asked = Guideline()  # what the ratings that it writes answer to
        self.read_only: ReadOnlyError | None = None  # why nothing can be stored; it can all be read

    @classmethod
    async def open(cls, workspace: Workspace, rater: str, *, waits: Callable[[WorkbenchError], None]) -> Desk:
        """Open the database, creating or migrating it; while another program holds it, tell `waits` and go on trying.
        One that may not be written is opened to read: `read_only` says so, and each write is refused with that.

        Raises:
            WorkbenchError: as `open_database`.
        """
        desk = cls(workspace, rater)
        while True:
            try:
                try:  # the one that may migrate comes first
                    desk.sitting = Sitting(await desk.writing.do(log.position))
                except ReadOnlyError as error:
                    desk.read_only = error
                await desk.reading.do(lambda database: None)
                return desk
            except WorkbenchError as error:
                if not is_locked(error):
                    desk.end()
                    raise
                waits(error)

    # What is remembered between sessions

    @reads
    def session(self, database: Database) -> Session:
        """The choices of the last session."""
        return session.load(database)

    @writes
    def save_session(self, database: Database, chosen: Session, before: Session | None = None) -> None:
        """Store what differs from `before` (the defaults); what others have set meanwhile stays."""
        session.save_changes(database, before or Session(), chosen)

    @writes
    def remember_model(self, database: Database, reference: str) -> None:
        """Note that a model was loaded."""
        models.remember(database, reference)

    @reads
    def left(self, database: Database, seat: int) -> left.Found:
        """What the last window in a seat was at."""
        return left.find(database, seat)

    @reads
    def seats_left(self, database: Database) -> list[int]:
        """The seats whose window has left something that it had not sent."""
        return left.seats(database)

    @writes
    def keep(self, database: Database, seat: int, at: Left) -> None:
        """Remember what the window in a seat is at."""
        left.keep(database, seat, at)

    @reads
    def held_out_share(self, database: Database) -> float:
        return conversations.held_out_share(database)

    @writes
    def set_held_out_share(self, database: Database, share: float) -> None:
        conversations.set_held_out_share(database, share)

    # Prompts and answers

    @writes
    def remember_prompt(
        self, database: Database, text: str, language: str, system: str, earlier: tuple[Message, ...] = ()
    ) -> Prompt:
        """Store what is asked, as typed, after what was said before."""
        return conversations.add(database, text, language=language, system=system, earlier=earlier)

    @writes
    def put_to_use(
        self, database: Database, prompt: Prompt, split: Split, task: str, language: str | None = None
    ) -> Prompt:
        """Give a prompt a stricter split, a task and another language. Raises UsageError as storage does."""
        return conversations.put_to_use(database, prompt.id, split, task, language=language, by=self.rater)

    @writes
    def remember_answers(self, database: Database, exchange: Exchange) -> list[Sample]:
        """Store the answers of a finished exchange, in the order they stand on screen."""
        asked = exchange.ask.generate
        answers = list(exchange.answers.values())
        return store_answers(database, exchange.ask.prompt.id, answers, asked.sampling, asked.request)

    @reads
    def history(self, database: Database, search: str = "", limit: int = 200) -> list[Prompt]:
        """Earlier prompts, newest first."""
        return conversations.recent(database, limit, search)

    @writes
    def add_packs(self, database: Database, chosen: list[Pack]) -> Added:
        """Store the prompts of packs that are not there yet."""
        return packs.add(database, chosen)

    # Ratings

    @writes
    def score(self, database: Database, sample: Sample, value: int, **more: Any) -> Rating:
        scale = (self.asked.scale.low, self.asked.scale.high)
        return self._said(database, log.score(sample.id, value, self.rater, scale, **more))

    @writes
    def label(self, database: Database, sample: Sample, good: bool, **more: Any) -> Rating:
        return self._said(database, log.label(sample.id, good, self.rater, **more))

    @writes
    def pair(self, database: Database, a: Sample, b: Sample, choice: Choice, **more: Any) -> Rating:
        return self._said(database, log.pair(a.id, b.id, choice, self.rater, **more))

    @writes
    def prefer(self, database: Database, best: Sample, shown: list[Sample], **more: Any) -> list[Rating]:
        """The best of several, as they stood: one gesture, a preference against each of the others."""
        return self._gesture(database, log.best_of(best.id, [sample.id for sample in shown], self.rater, **more))

    @writes
    def tie(self, database: Database, shown: list[Sample], **more: Any) -> list[Rating]:
        """No difference between any two of the answers, as they stood: one gesture."""
        return self._gesture(database, log.equally_good([sample.id for sample in shown], self.rater, **more))

    @writes
    def rank(self, database: Database, tiers: list[list[str]], shown: list[str], **more: Any) -> list[Rating]:
        """Several answers from best to worst, by their keys: one gesture, a preference for every two of them."""
        return self._gesture(database, log.ranking(tiers, shown, self.rater, **more))

    @writes
    def reject(self, database: Database, shown: list[str], **more: Any) -> list[Rating]:
        """None of several answers is acceptable: one gesture."""
        return self._gesture(database, log.none_acceptable(shown, self.rater, **more))

    @writes
    def tag(self, database: Database, sample: Sample, tags: dict[str, Any], **more: Any) -> Rating:
        """What is wrong with an answer, all of it: what was tagged before is replaced."""
        return self._said(database, log.tags(sample.id, tags, self.rater, **more))

    @writes
    def tell(self, database: Database, sample: Sample, kind: RatingKind, text: str, **more: Any) -> Rating:
        """What is said of an answer in words: what came of it, a note."""
        return self._said(database, log.in_words(kind, sample.id, text, self.rater, **more))

    @writes
    def edit(self, database: Database, sample: Sample, text: str, **more: Any) -> Rating:
        return self._said(database, log.edit(sample.id, text, self.rater, **more))

    @writes
    def skip(self, database: Database, item: ReviewItem, *, cannot_judge: bool = False, **more: Any) -> list[Rating]:
        """Pass over an item, all of it: one gesture."""
        return self._gesture(database, log.pass_over(item.keys, self.rater, cannot_judge=cannot_judge, **more))

    def _said(self, database: Database, rating: Rating) -> Rating:
        return self._gesture(database, [rating])[0]

    def _gesture(self, database: Database, ratings: list[Rating]) -> list[Rating]:
        """Store what one key said, under the guideline that it answers to."""
        version = guidelines.version_of(database, self.asked)
        under = (msgspec.structs.replace(rating, guideline=version) for rating in ratings)
        return self.sitting.gesture(database, under)

    @writes
    def undo(self, database: Database) -> Rating | None:
        return self.sitting.undo(database, self.rater)

    @writes
    def redo(self, database: Database) -> Rating | None:
        return self.sitting.redo(database, self.rater)

    @writes
    def put_rater(self, database: Database, name: str, kind: RaterKind, languages: list[str]) -> Rater:
        """Introduce a rater."""
        return raters.put(database, name, kind=kind, languages=languages)

    @writes
    def choose_work(self, database: Database, wanted: Selection, name: str, shares: Mix) -> None:
        """Let Review ask about this, so mixed; under a name it is a working set."""
        selection.activate(database, wanted)
        mix.save(database, shares)
        if name:
            selection.save(database, name, wanted)

    @reads
    def ratings_of(self, database: Database, samples: list[Sample]) -> dict[str, list[Rating]]:
        """What this rater says of each sample today, by its key."""
        return {one.id: log.effective(database, rater=self.rater, sample_id=one.id) for one in samples}

    @reads
    def rated_by_language(self, database: Database) -> list[tuple[str, int]]:
        """This rater's ratings by language, most first."""
        found = census.ratings_by_language(database, self.rater)
        return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))

    @reads
    def next_items(
        self, database: Database, limit: int, session_start: int | None, ranked: bool = False
    ) -> tuple[list[ReviewItem], int]:
        """What this rater should review next, best first, and where the session began in the log: here, if None.
        `ranked` asks for three or four answers at once, where there are so many."""
        start = log.position(database) if session_start is None else session_start
        wanted = selection.active(database)
        found = queue.next_items(database, self.rater, limit, session_start=start, selection=wanted)
        return rankings.widened(database, self.rater, found) if ranked else found, start

    # Training

    @reads
    def stock(self, database: Database, version: str) -> Stock:
        """What there is to train on, for the base model of a version (by default, of the served one)."""
        of = versions.find(database, version) or versions.served(database)
        return take_stock(database, of.base_digest if of else "")

    @reads
    def jobs(self, database: Database, limit: int = 200) -> list[Job]:
        """The newest jobs, newest first."""
        return jobs.every(database, limit)

    @reads
    def compared(self, database: Database, job_ids: list[str]) -> tuple[Comparison, Curves]:
        """Runs beside each other, and their curves."""
        found = comparison.compare(database, job_ids)
        return found, comparison.curves(database, found.runs)

    @reads
    def train_view(self, database: Database, width: int) -> TrainView:
        """The newest job as it stands; curves are thinned to about two points a column of `width`."""
        return train_view(database, self.workspace, self.figures, width)

    async def start_job(self, stage: str, config: dict[str, Any], steps: int) -> Job:
        """Queue a job, and start its worker once it is on disk. Raises WorkbenchError; a job that is queued stays."""
        job = await self.queue_job(stage, config, steps)
        return await self._spawn(job)

    async def resume_job(self, job: Job) -> Job:
        """Start a worker for a job that was paused, failed or abandoned. Raises WorkbenchError as `start_job`."""
        return await self._spawn(await self.requeue_job(job))

    @writes
    def queue_job(self, database: Database, stage: str, config: dict[str, Any], steps: int) -> Job:
        return self.trainers.enqueue(database, stage, config, steps)

    @writes
    def requeue_job(self, database: Database, job: Job) -> Job:
        """Give a job a new log, for the worker that goes on with it."""
        return self.trainers.log_anew(database, job)

    @writes
    def cancel_job(self, database: Database, job: Job) -> Job:
        """Ask the worker to stop after its step. Raises UsageError when the job has ended already."""
        return jobs.request_cancel(database, job.id)

    async def _spawn(self, job: Job) -> Job:
        await asyncio.to_thread(self.trainers.spawn, job)
        return job

    # Versions

    @reads
    def versions(self, database: Database) -> tuple[list[Version], Version | None]:
        """All versions, newest first, and the one that is served."""
        return versions.every(database), versions.served(database)

    @reads
    def win_rates(self, database: Database) -> list[WinRate]:
        """How often each version's answers were preferred to an earlier one's, as `winning.win_rates`."""
        return winning.win_rates(database)

    @reads
    def served_before(self, database: Database) -> Version | None:
        """The version that a roll back goes to."""
        return versions.served_before(database)

    @reads
    def find_version(self, database: Database, name: str) -> Version | None:
        return versions.find(database, name)

    async def publish(self, name: str) -> Version:
        """Serve a version from now on. Its file is hashed before anything is held. Raises WorkbenchError."""
        await self._verify(await self.find_version(name))
        return await self.serve(name)

    async def rollback(self) -> Version:
        """Go back to the version served before the served one. Raises WorkbenchError as `versions.rollback`."""
        await self._verify(await self.served_before())
        return await self.serve_before()

    @writes
    def serve(self, database: Database, name: str) -> Version:
        return versions.serve(database, name, f"published by {self.rater}")

    @writes
    def serve_before(self, database: Database) -> Version:
        return versions.serve_before(database, f"rolled back by {self.rater}")

    async def _verify(self, version: Version | None) -> None:
        if version is not None:
            await asyncio.to_thread(versions.verify, self.workspace, version)

    # What is new

    @reads
    def look(self, database: Database, seen: Seen, *, closely: bool) -> Seen:
        """How things stand; the same as `seen` where nothing has moved."""
        return look(database, self.trainers, seen, closely=closely)


def writes_of(kind: type) -> tuple[str, ...]:
    """The names of all methods that write."""
    return tuple(name for name, member in vars(kind).items() if getattr(member, "writes", False))
