"""Rating what is on screen, as Prompt and Review share it: record first, say "saved" after the commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from textual.content import Content

from workbench.text import one_line, safe_text

if TYPE_CHECKING:
    from storage.records import Prompt, Rating, Sample
    from workbench.desk import Store
    from workbench.shell.app import WorkbenchApp

_USES = {"held-out": " · held out", "ethics": " · ethics"}


def use_of(prompt: Prompt) -> str:
    """What stands beside a prompt that never trains: its ratings measure. Nothing for a training prompt."""
    return _USES.get(prompt.split, "")


class Rater:
    """What a screen with a `sample` in focus can do with it. The screen gives `sample`, `say` and `read`."""

    if TYPE_CHECKING:

        @property
        def workbench(self) -> WorkbenchApp: ...

        @property
        def store(self) -> Store | None: ...

        @property
        def sample(self) -> Sample | None: ...
        def say(self, line: Content) -> None: ...
        async def read(self) -> None: ...
        def call_later(self, callback: Callable[..., object]) -> bool: ...

    def circumstances(self) -> dict[str, Any]:
        """What else to keep with a rating: how long it took, say."""
        return {}

    def record(self, write: Callable[[Store], object], words: str) -> bool:
        """Write a rating; "saved" is said only once it is committed and synced."""
        if self.store is None:
            return False
        try:
            write(self.store)
        except Exception as error:  # whatever it was, nothing was stored, and the rater must hear it
            self.workbench.report(error)
            return False
        self.saved(words)
        return True

    def saved(self, words: str) -> None:
        self.workbench.refresh_facts()
        self.say(Content.assemble(("saved ✓", "$text-success"), f"  {one_line(words)}"))
        self.call_later(self.read)

    def action_score(self, value: int) -> None:
        if (sample := self.sample) is not None:
            self.record(lambda store: store.score(sample, value, **self.circumstances()), f"{value} of 5")

    def action_good(self) -> None:
        if (sample := self.sample) is not None:
            self.record(lambda store: store.label(sample, True, **self.circumstances()), "good")

    def action_bad(self) -> None:
        if (sample := self.sample) is not None:
            self.record(lambda store: store.label(sample, False, **self.circumstances()), "bad")

    def action_undo(self) -> None:
        self._turn(lambda store: store.undo(), "taken back", "there is nothing to take back")

    def action_redo(self) -> None:
        self._turn(lambda store: store.redo(), "brought back", "there is nothing to bring back")

    def _turn(self, change: Callable[[Store], Rating | None], done: str, nothing: str) -> None:
        if self.store is None:
            return
        try:
            rating = change(self.store)
        except Exception as error:
            self.workbench.report(error)
            return
        if rating is None:
            self.say(Content.styled(nothing, "$text-muted"))
        else:
            self.saved(f"{rating.kind} {done}")

    def action_edit(self) -> None:
        from workbench.widgets.dialogs import TextDialog

        sample = self.sample
        if sample is None:
            return

        def written(text: str | None) -> None:
            if text is not None and text != safe_text(sample.text):
                self.record(lambda store: store.edit(sample, text), "edited")

        self.workbench.push_screen(TextDialog("A better answer", sample.text), written)

    def action_note(self) -> None:
        from workbench.widgets.dialogs import TextDialog

        sample = self.sample
        if sample is None:
            return

        def written(text: str | None) -> None:
            if text is not None:
                self.record(lambda store: store.note(sample, text), "noted")

        self.workbench.push_screen(TextDialog("A note on this answer"), written)

    def action_copy(self) -> None:
        if (sample := self.sample) is not None:
            self.workbench.copy_to_clipboard(safe_text(sample.text))
            self.say(Content.styled("copied", "$text-muted"))
