"""Who rates from now on: one of those that are known, or somebody new, who says which languages they read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.content import Content

from storage import raters
from storage.languages import BadTagError, normal
from storage.raters import KINDS, Rater
from storage.wording import counted
from workbench.text import one_line
from workbench.widgets.dialogs import Field, FormDialog, PickDialog
from workbench.widgets.parsing import one_of

if TYPE_CHECKING:
    from workbench.shell.app import WorkbenchApp


async def ask_rater(app: WorkbenchApp) -> None:
    """Show the raters; what is typed may be a new one. Whoever is chosen rates from now on."""
    desk = app.desk
    if desk is None:
        return
    known = {rater.name: (rater, count) for rater, count in await desk.read(raters.every)}
    known.setdefault(desk.rater, (Rater(desk.rater), 0))

    async def find(typed: str) -> list[tuple[str, Content]]:
        wanted = typed.strip()
        found = [(name, _line(*one)) for name, one in known.items() if wanted.casefold() in name.casefold()]
        if wanted and wanted not in known:
            found.append((wanted, Content.assemble((one_line(wanted), "bold"), ("  somebody new", "$text-muted"))))
        return found

    def chosen(name: str | None) -> None:
        if name is None:
            return
        if name in known:
            switch(app, name)
        else:
            app.push_screen(_form(name), lambda values: _introduce(app, name, values))

    app.push_screen(PickDialog("Who rates", find, placeholder="a name"), chosen)


def switch(app: WorkbenchApp, name: str) -> None:
    """Let somebody rate from now on: what they have said, and what they are asked, is theirs."""
    if app.desk is not None:
        app.desk.rater = name
        app.update_session(rater=name)
        app.say(f"{one_line(name)} rates from now on")


def _introduce(app: WorkbenchApp, name: str, values: dict[str, Any] | None) -> None:
    desk = app.desk
    if values is None or desk is None:
        return
    app.saver.begin(
        "rater", f"the rater {name}", lambda: desk.put_rater(name, values["kind"], values["languages"]),
        lambda _: switch(app, name), app.report,
    )  # fmt: skip


def _form(name: str) -> FormDialog:
    return FormDialog(
        f"{name} is new",
        [
            Field("languages", "languages", "", tags_of, "they read: sw,en; empty is all"),
            Field("kind", "kind", "human", one_of(*KINDS), f"one of {', '.join(KINDS)}"),
        ],
    )


def tags_of(typed: str) -> list[str]:
    """Language tags after commas, in their normal form. Raises ValueError with what is wrong."""
    try:
        return [normal(tag) for tag in typed.split(",") if tag.strip()]
    except BadTagError as error:
        raise ValueError(str(error)) from None


def _line(rater: Rater, count: int) -> Content:
    about = [rater.kind, ", ".join(rater.languages) or "every language", counted(count, "rating")]
    about += ["gold"] if rater.gold else []
    return Content.assemble((one_line(rater.name), "bold"), (f"  {one_line(' · '.join(about))}", "$text-muted"))
