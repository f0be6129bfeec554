"""Rating what is on screen, as Prompt and Review share it: "saved" is said after the commit, and nothing moves before.

A key that comes within a blink of the one before waits for it, and then means what it means on what is on screen by
then. One that comes while "saving…" stands there is refused with a word.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from textual import work
from textual.content import Content

from storage.errors import WorkbenchError
from storage.feedback import kinds
from storage.feedback.guidelines import OVERALL
from storage.records import Rating, RatingKind, Sample
from workbench.shell.saving import BLINK
from workbench.text import one_line
from workbench.widgets.sheets import Sheets

if TYPE_CHECKING:
    from storage.feedback.guidelines import Guideline
    from storage.records import Prompt
    from workbench.desk import Desk
    from workbench.widgets.dialogs import Dialog

T = TypeVar("T")
_USES = {"held-out": " · held out", "ethics": " · ethics"}


def use_of(prompt: Prompt) -> str:
    """What stands beside a prompt that never trains: its ratings measure. Nothing for a training prompt."""
    return _USES.get(prompt.split, "")


def verdict(ratings: list[Rating], sample: Sample) -> str:
    """What a rater says of an answer, in a few signs; what is said often (of several other answers) once, with how
    often."""
    said = Counter(
        words if rating.attribute == OVERALL else f"{rating.attribute} {words}"
        for rating in ratings
        if (words := kinds.words(rating, sample.id))
    )
    return " ".join(words if times == 1 else f"{words} ×{times}" for words, times in said.items())


class Rater(Sheets):
    """What a screen with a `sample` in focus can do with it. The screen gives `sample` and `say`."""

    KEY: ClassVar[str] = ""
    _untaken = False  # a key came while "saving…" stood there

    def say(self, line: Content) -> None:
        """Show a line of what was done."""
        raise NotImplementedError

    @property
    def asked(self) -> Guideline:
        """What raters are asked."""
        return self.workbench.session.asked

    def scores(self, digit: object) -> bool:
        """Whether a digit scores on the scale that is set."""
        return isinstance(digit, int) and self.asked.scale.value_of(digit) is not None

    def circumstances(self) -> dict[str, Any]:
        """What else to keep with a rating: how long it took, say."""
        return {}

    async def record(
        self,
        write: Callable[[Desk], Awaitable[T]],
        words: str,
        stored: Callable[[T], None] | None = None,
        failed: Callable[[WorkbenchError], None] | None = None,
    ) -> None:
        """Write a rating. `stored` is called when it is committed and synced (by default, that is said), `failed` when
        it could not be: until then it stays on screen, and can be given again."""
        desk, saver = self.desk, self.workbench.saver
        if desk is None:
            return

        def done(result: T) -> None:
            if stored is None:
                self.saved(words)
            else:
                stored(result)

        def refused(error: WorkbenchError) -> None:
            self._untaken = False
            self.workbench.report(error)
            self.say(Content.assemble(("✕ not saved", "bold $text-error"), f"  {one_line(words)}: try it again"))
            if failed is not None:
                failed(error)

        task = saver.begin(self.KEY, words, lambda: write(desk), done, refused)
        if task is None:
            self.workbench.bell()
            self._untaken = True
            before = saver.under_way[self.KEY].words
            self.say(Content.styled(f"saving… {one_line(before)}; what you pressed was not taken", "$text-warning"))
            return
        await asyncio.wait({task}, timeout=BLINK)
        if not task.done():
            self.say(Content.styled(f"saving… {one_line(words)}", "$text-warning"))

    async def judge(
        self,
        write: Callable[[Desk], Awaitable[object]],
        words: str,
        failed: Callable[[WorkbenchError], None] | None = None,
    ) -> None:
        """Write what settles the answer in focus: a screen that asks one thing after the other goes on from here."""
        await self.record(write, words, failed=failed)

    def saved(self, words: str) -> None:
        said = Content.assemble(("saved ✓", "$text-success"), f"  {one_line(words)}")
        if self._untaken:  # it must not go unseen because the write ended a moment later
            said = Content.assemble(said, ("  what you pressed meanwhile was not taken", "$text-warning"))
        self._untaken = False
        self.say(said)

    async def action_score(self, digit: int) -> None:
        scale = self.asked.scale
        value = scale.value_of(digit)
        if (sample := self.sample) is not None and value is not None:
            more = self.circumstances()
            words = f"{value} of {scale.high} {scale.anchor(value)}".rstrip()
            await self.judge(lambda desk: desk.score(sample, value, **more), words)

    async def action_good(self) -> None:
        await self._label(True, "good")

    async def action_bad(self) -> None:
        await self._label(False, "bad")

    async def _label(self, good: bool, words: str) -> None:
        if (sample := self.sample) is not None:
            more = self.circumstances()
            await self.judge(lambda desk: desk.label(sample, good, **more), words)

    async def action_undo(self) -> None:
        await self._turn(lambda desk: desk.undo(), "taken back", "there is nothing to take back")

    async def action_redo(self) -> None:
        await self._turn(lambda desk: desk.redo(), "brought back", "there is nothing to bring back")

    async def _turn(self, change: Callable[[Desk], Awaitable[Rating | None]], done: str, nothing: str) -> None:
        def turned(rating: Rating | None) -> None:
            if rating is None:
                self.say(Content.styled(nothing, "$text-muted"))
            else:
                self.turned(rating, f"{rating.kind} {done}")

        await self.record(change, f"a rating {done}", turned)

    def turned(self, rating: Rating, words: str) -> None:
        """A rating was taken back or brought back."""
        self.saved(words)

    @work(exclusive=True, group="edit")
    async def action_edit(self) -> None:
        """Write a better answer, starting from what this rater made of it before."""
        sample = self.sample
        said = await self.said_of(sample)
        if sample is None or said is None:
            return
        from workbench.widgets.editing import EditDialog

        edited = [rating.text or "" for rating in said if rating.kind == RatingKind.EDIT]
        before = edited[-1] if edited else sample.text
        self._write_text(
            "A better answer", sample, before, "edited", lambda desk, text: desk.edit(sample, text),
            edits=True, dialog=partial(EditDialog, original=sample.text),
        )  # fmt: skip

    def action_tell(self, kind: str) -> None:
        """Say something of the answer in words, as the kind of rating asks for it."""
        from workbench.widgets import telling
        from workbench.widgets.dialogs import TextDialog

        told = RatingKind(kind)
        asked, sample, scale = kinds.KINDS[told].asked, self.sample, self.asked.scale
        if sample is None or asked is None:
            return

        def write(desk: Desk, text: str) -> Awaitable[Rating]:
            if told != RatingKind.OUTCOME:
                return desk.tell(sample, told, text)
            said = telling.read(text, scale).fields
            return desk.tell(sample, told, said.pop("text"), **said)

        dialog = partial(telling.OutcomeDialog, scale=scale) if told == RatingKind.OUTCOME else TextDialog
        self._write_text(asked.title, sample, "", asked.stored, write, dialog=dialog)

    def _write_text(
        self,
        title: str,
        sample: Sample,
        before: str,
        words: str,
        write: Callable[[Desk, str], Awaitable[Rating]],
        *,
        dialog: Callable[..., Dialog[str]],
        edits: bool = False,
        kept: str = "",
    ) -> None:
        """Ask for a text and store it; one that could not be stored comes back in its dialog (`kept`), and so does one
        that was half written when the app closed. One that `edits` the answer settles it."""
        half, key = self.workbench.half_written, f"{words} {sample.id}"
        left = half.get(key, "")

        async def written(text: str | None) -> None:
            if text is None or not (kept or left or text != before):
                self.workbench.saver.give_up(self.KEY)
                half.pop(key, None)
                return

            async def store(desk: Desk) -> Rating:
                stored = await write(desk, text)
                half.pop(key, None)
                return stored

            await (self.judge if edits else self.record)(store, words, failed=lambda _: again(text))

        def again(text: str) -> None:
            self._write_text(title, sample, before, words, write, dialog=dialog, edits=edits, kept=text)

        hint = "it is not stored yet; accept to try again" if kept or left else ""

        def changed(now: str) -> None:
            if now in ("", before):
                half.pop(key, None)
            else:
                half[key] = now

        self.workbench.push_screen(dialog(title, kept or left or before, hint=hint, changed=changed), written)

    def action_copy(self) -> None:
        if (sample := self.sample) is not None:
            self.workbench.copy_to_clipboard(sample.text)
            self.say(Content.styled("copied", "$text-muted"))
