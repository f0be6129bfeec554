"""Sheets of choices over the line of keys: while one is open, its keys are all that a screen does, so that keys typed
fast mean what they mean in their order, however long drawing takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual.content import Content
from textual.widgets import Static

from storage.errors import WorkbenchError
from storage.feedback import tag_sheet
from storage.feedback.tag_sheet import FLAWS, HARMS, REASONS, SEVERITIES
from storage.records import RatingKind
from workbench.shell.actions import of_screen, spoken
from workbench.shell.screen import packed, present

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from textual.screen import Screen

    from storage.records import Rating, Sample
    from workbench.desk import Desk
    from workbench.shell.app import WorkbenchApp

T = TypeVar("T")
_SHEETS = {"tag": "tags", "severity": "tags", "store_tags": "tags", "reason": "reasons"}
_TITLES = {"tags": "what is wrong with it", "reasons": "why it cannot be judged"}


class Sheet(Static):
    """Where the open sheet stands; a screen with sheets has one."""

    def __init__(self) -> None:
        super().__init__(id="sheet", classes="absent", markup=False)


class Sheets:
    """What a screen does with its sheets. `sheet` is the name of the open one; empty where none is."""

    KEY: ClassVar[str] = ""
    sheet: str = ""
    _tags = tag_sheet.Tags()
    _tagging: Sample | None = None

    if TYPE_CHECKING:

        @property
        def workbench(self) -> WorkbenchApp: ...

        @property
        def desk(self) -> Desk | None: ...

        @property
        def sample(self) -> Sample | None: ...
        async def record(
            self,
            write: Callable[[Desk], Awaitable[T]],
            words: str,
            stored: Callable[[T], None] | None = None,
            failed: Callable[[WorkbenchError], None] | None = None,
        ) -> None: ...
        def saved(self, words: str) -> None: ...

    def in_sheet(self, action: str) -> bool | None:
        """Whether an action works, where a sheet decides that: one of a sheet works while it is open, another does not
        while any is. None where no sheet has a say."""
        if action == "close_sheet":
            return bool(self.sheet)
        return self.sheet == _SHEETS.get(action, "-") if self.sheet or action in _SHEETS else None

    def open_sheet(self, name: str) -> None:
        """Open a sheet, or close the one that is open (an empty name)."""
        self.sheet = name
        self._draw_sheet()
        cast("Screen[None]", self).refresh_bindings()

    def action_close_sheet(self) -> None:
        self.open_sheet("")

    def _draw_sheet(self) -> None:
        sheet = cast("Screen[None]", self).query_one(Sheet)
        present(sheet, bool(self.sheet))
        if self.sheet:
            title = Content.styled(_TITLES[self.sheet], "bold")
            sheet.update(packed([title, *self._choices()], max(20, self.workbench.size.width - 4)))

    def _choices(self) -> list[Content]:
        """A key and what it chooses, each; what is chosen stands out by a sign and its severity."""
        if self.sheet == "reasons":
            return [self._choice(f"reason('{key}')", name, "") for key, name in REASONS.items()]
        signs = {name: f" ● {degree} {SEVERITIES[degree]}" for name, degree in self._tags.degrees.items()}
        found = [self._choice(f"tag('{key}')", name, signs.get(name, "")) for key, name in (HARMS | FLAWS).items()]
        return [*found, Content.styled("1-3 severity", "$text-muted")]

    def _choice(self, call: str, name: str, chosen: str) -> Content:
        action = next(one for one in of_screen(self.KEY) if one.call == call)
        key = spoken(self.workbench.keys[action.id][0])
        return Content.assemble((key, "bold $accent"), f" {name}", (chosen, "bold $text-warning"))

    async def said_of(self, sample: Sample | None) -> list[Rating] | None:
        """What this rater says of an answer today; None where there is none, or it cannot be read, which is told."""
        desk = self.desk
        if sample is None or desk is None:
            return None
        try:
            return (await desk.ratings_of([sample]))[sample.id]
        except WorkbenchError as error:
            self.workbench.report(error)
            return None

    # Tags

    async def action_tags(self) -> None:
        """Open the tags of the answer in focus, with those that this rater gave it."""
        sample = self.sample
        said = await self.said_of(sample)
        if sample is None or said is None:
            return
        before = [rating.tags or {} for rating in said if rating.kind == RatingKind.TAGS]
        self._tagging, self._tags = sample, tag_sheet.read(before[-1] if before else {})
        self.open_sheet("tags")

    def action_tag(self, key: str) -> None:
        self._tags = self._tags.pressed(key)
        self._draw_sheet()

    def action_severity(self, degree: int) -> None:
        self._tags = self._tags.graded(degree)
        self._draw_sheet()

    async def action_store_tags(self) -> None:
        sample, stored = self._tagging, self._tags.stored
        self.open_sheet("")
        if sample is not None:
            await self.record(lambda desk: desk.tag(sample, stored), tag_sheet.words(stored), self.said_more)

    def said_more(self, rating: Rating) -> None:
        """Something was said beside what an item asks: tags, a note."""
        self.saved(tag_sheet.words(rating.tags or {}))
