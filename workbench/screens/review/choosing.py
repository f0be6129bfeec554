"""Which part of the workspace Review asks about: a query, or a working set; and the sheet of how far raters agree."""

from __future__ import annotations

from typing import Any

from textual import work

from storage.errors import UsageError, WorkbenchError
from storage.feedback import mix, selection
from storage.feedback.mix import Mix
from storage.feedback.selection import Selection
from workbench.screens.review.pile import Pile
from workbench.shell.screen import WorkbenchScreen
from workbench.widgets.dialogs import Field, FormDialog
from workbench.widgets.raters import tags_of


class ChoosesWork(WorkbenchScreen):
    """A screen with a pile of items that are chosen by a query."""

    pile: Pile

    @work(exclusive=True)
    async def action_which(self) -> None:
        """Ask which items to go on with."""
        desk = self.desk
        if desk is None:
            return
        try:
            now, sets = await desk.read(selection.active), await desk.read(selection.saved)
            shares = await desk.read(mix.load)
        except WorkbenchError as error:
            self.workbench.report(error)
            return
        self.app.push_screen(_form(now, sets, shares), lambda values: self._choose(values, sets))

    def _choose(self, values: dict[str, Any] | None, sets: dict[str, Selection]) -> None:
        desk = self.desk
        if values is None or desk is None:
            return
        name, shares = values.pop("name"), values.pop("mix")
        typed = Selection(tuple(values.pop("languages")), **values)
        # A name alone takes what is saved under it; beside a query it saves that.
        wanted = sets[name] if name in sets and typed == Selection() else typed

        def stored(_: object) -> None:
            self.pile.items.clear()
            self.pile.begin()
            self.workbench.say(f"Review asks about {wanted.words or 'everything'}")
            self.look_again()

        self.workbench.saver.begin(
            "selection",
            "which items to review",
            lambda: desk.choose_work(wanted, name, shares),
            stored,
            self.workbench.report,
        )

    @work(exclusive=True)
    async def action_agreement(self) -> None:
        """Show how far raters agree."""
        from workbench.commands.agreed import read_tables
        from workbench.widgets.agreed import AgreementSheet

        if self.desk is None:
            return
        try:
            found = await self.desk.read(read_tables)
        except WorkbenchError as error:
            self.workbench.report(error)
            return
        self.app.push_screen(AgreementSheet(found))


def _shares(typed: str) -> Mix:
    """Raises ValueError with what is wrong."""
    try:
        return Mix.read(typed)
    except UsageError as error:
        raise ValueError(f"{error.message}; {error.hint}") from None


def _form(now: Selection, sets: dict[str, Selection], shares: Mix) -> FormDialog:
    """The query that holds now, to be changed; all fields empty ask about everything."""
    known = "\n".join(f"{name}: {one.words or 'everything'}" for name, one in sets.items())
    return FormDialog(
        "What to review",
        [
            Field("languages", "language", ",".join(now.languages), tags_of, "tags after commas"),
            Field("task", "task", now.task, str, "of the prompt"),
            Field("version", "version", now.version, str, "that answered, such as v2"),
            Field("tag", "tag", now.tag, str, "that anyone gave an answer"),
            Field("text", "text", now.text, str, "that stands in the prompt"),
            Field("name", "working set", "", str, "saves this; alone, takes that one"),
            Field("mix", "mix", shares.written, _shares, "shares of the slices"),
        ],
        text=f"working sets:\n{known}" if known else "",
    )
