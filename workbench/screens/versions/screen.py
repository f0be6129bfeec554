"""Versions: what was trained, whether it passed its gate, and which one answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from rich.text import Text
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from storage.errors import WorkbenchError
from storage.feedback import winning
from storage.feedback.winning import WinRate
from storage.records import Version, VersionState
from workbench.screens.versions.detail import detail, offer
from workbench.shell.actions import spoken
from workbench.shell.messages import EngineMoved, RatingsChanged, SessionChanged, VersionsChanged
from workbench.shell.screen import WorkbenchScreen, present
from workbench.text import cell, one_line
from workbench.training import verdict
from workbench.training.outcome import swap_figures
from workbench.widgets.table import RowTable

if TYPE_CHECKING:
    from workbench.desk import Desk

_STATES = {
    VersionState.CANDIDATE: "◌ candidate",
    VersionState.PUBLISHED: "✓ published",
    VersionState.REJECTED: "✕ rejected",
    VersionState.ROLLED_BACK: "↶ rolled back",
}
CONTROL = "⊘ control"


class VersionsScreen(WorkbenchScreen):
    """A table, newest first, and everything about the row in focus."""

    CSS_PATH = "style.tcss"
    KEY = "versions"
    AUTO_FOCUS = "RowTable"
    NEWS = (VersionsChanged, RatingsChanged, EngineMoved, SessionChanged)
    sought = ""  # a version that is to come into focus

    def body(self) -> ComposeResult:
        yield Static(id="follow", markup=False)
        yield Static(id="lost", markup=False)
        yield Static(id="empty", markup=False)
        yield RowTable(cursor_type="row", zebra_stripes=False, fixed_columns=2)
        yield Static(id="detail", classes="pane", markup=False)

    def on_mount(self) -> None:
        self.versions: list[Version] = []
        self.served: Version | None = None
        self.before: Version | None = None
        self.rates: list[WinRate] = []
        self.shown: object = None
        self.query_one("#detail").border_title = Content("")
        self._add_columns()

    def _add_columns(self) -> None:
        """How often a version won stands first, where any pair was judged."""
        won = [("won", 19)] if self.rates else []
        for name, width in (("", 2), ("version", 7), *won, ("state", 13), ("gate", 9), ("reward", 7), ("KL", 5),
                            ("from", 9), ("step", 5), ("job", 8), ("made", 16)):  # fmt: skip
            self.table.add_column(Text(name), key=name or "mark", width=width)

    @property
    def table(self) -> RowTable:
        return self.query_one(RowTable)

    async def reload(self) -> None:
        if self.desk is not None:
            self.versions, self.served = await self.desk.versions()
            self.before, self.rates = await self.desk.served_before(), await self.desk.win_rates()
            await self.draw()

    async def paint(self) -> None:
        loaded = self.workbench.engine.version
        wanted = (tuple(self.versions), self.served and self.served.name, loaded, tuple(self.rates))
        if wanted != self.shown:
            self.shown = wanted
            row = self.table.cursor_row
            self.table.clear(columns=True)
            self._add_columns()
            for version in self.versions:
                won = (
                    [Text(rate.short if (rate := winning.headline(self.rates, version)) else "")] if self.rates else []
                )
                mark, label, *others = _row(version, self.served, loaded)
                self.table.add_row(mark, label, *won, *others, key=version.name)
            self.table.move_cursor(row=min(row, max(0, len(self.versions) - 1)))
        self._seek()
        for name in ("RowTable", "#detail"):
            present(self.query_one(name), bool(self.versions))
        present(self.query_one("#empty"), not self.versions)
        self.query_one("#empty", Static).update(_nothing())
        self._draw_follow(self.served, loaded)
        self._draw_lost()
        self._draw_detail()

    def go_to(self, name: str) -> None:
        """Put a version in focus, as soon as it is among those that were read."""
        self.sought = name
        self.look_again()

    def _seek(self) -> None:
        row = next((row for row, version in enumerate(self.versions) if version.name == self.sought), None)
        if row is not None:
            self.table.move_cursor(row=row)
            self.sought = ""

    def _draw_follow(self, served: Version | None, loaded: str) -> None:
        follow = self.workbench.session.follow
        proof = one_line(self.workbench.engine.proof)
        word = "following what is published" if follow else "pinned: stays on the loaded version"
        self.query_one("#follow", Static).update(
            Content.assemble(
                ("● ", "$text-success"), f"loaded {one_line(loaded or 'nothing yet')}",
                (f" ({proof})   " if proof else "   ", "$text-muted"),
                ("◆ ", "$accent"), f"served {served.name if served else 'nothing yet'}   ", (word, "$text-muted"),
            )
        )  # fmt: skip

    @property
    def lost(self) -> WinRate | None:
        """The win rate by which the served version is worse than the one served before it, where it is."""
        return winning.lost(self.rates, self.served, self.before)

    def _draw_lost(self) -> None:
        line = self.query_one("#lost", Static)
        present(line, self.lost is not None)
        if self.lost is not None:
            line.update(offer(self.lost, spoken(self.workbench.keys["versions.rollback"][0])))

    def _draw_detail(self) -> None:
        version = self.selected
        if version is not None:
            self.query_one("#detail").border_title = Content(version.name)
            self.query_one("#detail", Static).update(detail(version, self.rates, self.size.width - 6))
        self.refresh_bindings()

    def on_data_table_row_highlighted(self) -> None:
        self._draw_detail()

    @property
    def selected(self) -> Version | None:
        row = self.table.cursor_row
        return self.versions[row] if 0 <= row < len(self.versions) else None

    # Acting

    def action_load(self) -> None:
        """Answer with the selected version from now on, whatever is published."""
        version = self.selected
        if version is None:
            return
        served = self.served
        self.workbench.follow(served is not None and served.name == version.name)
        if version.name != self.workbench.engine.version:
            self.workbench.follower.load(version.name)

    def action_answers(self) -> None:
        """Read the held-out answers before and after."""
        from workbench.screens.versions.answers import AnswersSheet

        if self.selected is not None:
            self.app.push_screen(AnswersSheet(self.selected))

    def action_explain(self) -> None:
        """Show the ratings behind the selected version, with their influence."""
        from workbench.widgets.trainer_sheet import TrainerSheet

        if self.selected is not None:
            name = self.selected.name
            self.app.push_screen(TrainerSheet(f"{name}: the ratings behind it", ["explain", name]))

    def action_columns(self, by: int) -> None:
        self.table.scroll_columns(by)

    def action_follow(self) -> None:
        self.workbench.follow(not self.workbench.session.follow)

    def action_publish(self) -> None:
        version = self.selected
        if version is None:
            return
        if control := verdict.control_of(version.metrics):
            what = f"{version.name} is a control: it learned from {control} ratings"
            self.workbench.report(WorkbenchError(what, "a control is never published"))
            return
        failed = [one_line(str(gate.get("gate", "?"))) for gate in version.gates if not gate.get("passed")]
        warning = f"\nIt did not pass: {', '.join(failed)}." if failed else ""
        self._confirm(
            f"Publish {version.name}", f"New answers will come from {version.name}.{warning}",
            lambda desk: desk.publish(version.name), f"{version.name} is published",
        )  # fmt: skip

    def action_rollback(self) -> None:
        served, before = self.served, self.before
        if served is None or before is None:
            self.workbench.report(WorkbenchError("there is nothing to roll back", "nothing was served before"))
            return
        why = f"It lost: {self.lost.short} blind pairs against {before.name}.\n" if self.lost else ""
        self._confirm(
            f"Roll back {served.name}",
            f"{why}New answers will come from {before.name} again. {served.name} stays here.",
            lambda desk: desk.rollback(), f"back on {before.name}",
        )  # fmt: skip

    def _confirm(self, title: str, text: str, change: Callable[[Desk], Awaitable[Version]], done: str) -> None:
        from workbench.widgets.dialogs import ConfirmDialog

        desk, app = self.desk, self.workbench

        def stored(version: Version) -> None:
            app.say(done)
            app.follower.served = version
            app.follow(app.session.follow)

        def decided(yes: bool | None) -> None:
            if (
                yes
                and desk is not None
                and not app.saver.begin(self.KEY, title, lambda: change(desk), stored, app.report)
            ):
                app.say("not taken: what you asked for before is still being saved")

        app.push_screen(ConfirmDialog(title, text), decided)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "columns":
            return self.table.is_cut
        if action in ("load", "publish", "answers", "explain"):
            return bool(getattr(self, "versions", None)) and (action != "load" or self.workbench.engine.is_ready)
        return True


def _row(version: Version, served: Version | None, loaded: str) -> list[Text]:
    figures = dict(swap_figures(version.metrics))
    mark = ("●" if version.name == loaded else " ") + ("◆" if served and version.name == served.name else " ")
    passed = sum(bool(gate.get("passed")) for gate in version.gates)
    sign = "✓" if passed == len(version.gates) else "✕"
    gate = f"{sign} {passed} of {len(version.gates)}" if version.gates else ""
    return [
        Text(mark), cell(version.name, "bold"), _state(version), Text(gate),
        Text(figures.get("reward", ""), justify="right"), Text(figures.get("KL", ""), justify="right"),
        cell(version.parent or ""), Text("" if version.step is None else str(version.step), justify="right"),
        cell((version.job_id or "")[-8:]), Text(version.created_at[:16].replace("T", " ")),
    ]  # fmt: skip


def _state(version: Version) -> Text:
    """The state; of a control only that it is one, whatever its gate said."""
    return Text(CONTROL, style="bold reverse") if verdict.control_of(version.metrics) else Text(_STATES[version.state])


def _nothing() -> Content:
    first = "No version yet."
    second = "v0, the untouched base model, appears as soon as the engine has loaded it."
    return Content("\n").join([Content.styled(first, "bold"), Content.styled(second, "$text-muted")])
