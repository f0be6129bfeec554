"""Forms over the settings: the few that shape an answer, or all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from storage.errors import WorkbenchError
from workbench.shell import models
from workbench.shell.session import SETTINGS, Session, Setting, changed
from workbench.widgets.dialogs import Field, FormDialog
from workbench.widgets.parsing import one_of

if TYPE_CHECKING:
    from workbench.shell.app import WorkbenchApp


def form(title: str, settings: Sequence[Setting], session: Session, beside: dict[str, Any]) -> FormDialog:
    """A field a setting; `beside` holds, by name, the values that are kept beside the session."""

    def shown(setting: Setting) -> str:
        return setting.shown(setting.of(session) if setting.path else beside[setting.name])

    return FormDialog(
        title,
        [
            Field(one.name, one.title, shown(one), one.parse, one.help, exactly=one.parse is str, choices=one.choices)
            for one in settings
        ],
    )


class SettingsDialog(FormDialog):
    """All settings. A theme is on while it is looked at, and Escape brings back the one before."""

    previews_themes = True

    def __init__(self, app: WorkbenchApp, beside: dict[str, Any]) -> None:
        themes = tuple(sorted(app.available_themes))
        fields = form("", SETTINGS, app.session, beside).form
        super().__init__("Settings", [
            replace(one, choices=themes, parse=one_of(*themes), heard=self._look) if one.name == "theme" else one
            for one in fields
        ])  # fmt: skip

    def _look(self, theme: str) -> None:
        self.workbench.theme = theme

    def action_cancel(self) -> None:
        self.workbench.theme = self.workbench.session.theme
        super().action_cancel()


async def ask_settings(app: WorkbenchApp) -> None:
    """Show all settings, and store what is changed."""
    desk = app.desk
    if desk is None:
        return
    try:
        share = await desk.held_out_share()
    except WorkbenchError as error:
        app.report(error)
        return

    def chosen(values: dict[str, Any] | None) -> None:
        if values is None:
            return
        apply(app, SETTINGS, values)
        if values["held-out-share"] != share:
            app.saver.begin(
                "held-out share", "the held-out share", lambda: desk.set_held_out_share(values["held-out-share"]),
                lambda _: app.say("the share holds for prompts that are stored from now on"), app.report,
            )  # fmt: skip

    app.push_screen(SettingsDialog(app, {"held-out-share": share}), chosen)


def apply(app: WorkbenchApp, settings: Sequence[Setting], values: dict[str, Any]) -> None:
    """Go on with other settings, by name."""
    by_path = {one.path: values[one.name] for one in settings if one.path and one.name in values}
    wanted = changed(app.session, by_path)
    if wanted.follow != app.session.follow:
        app.follow(wanted.follow)
    if app.desk is not None:
        app.desk.rater = wanted.rater
    if wanted.model != app.session.model:
        models.use(app, models.whole(wanted.model))
        wanted = changed(wanted, {"model": app.session.model})
    app.update_session(**{name: getattr(wanted, name) for name in wanted.__struct_fields__})
    app.theme = wanted.theme
    app.turn_texts(wanted.bidi)
