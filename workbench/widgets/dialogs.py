"""Dialogs over a screen: confirm, write a text, fill in a few fields, pick from a list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, cast

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingsMap
from textual.containers import Horizontal, ScrollableContainer, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static, TextArea
from textual.widgets.option_list import Option
from textual.worker import WorkerFailed

from storage.errors import WorkbenchError
from workbench.shell import keymap
from workbench.shell.bars import KeyBar
from workbench.shell.screen import HEIGHTS, WIDTHS, present
from workbench.text import content, one_line
from workbench.widgets.editor import SafeInput, SafeTextArea, edit_outside

if TYPE_CHECKING:
    from workbench.shell.app import WorkbenchApp

Result = TypeVar("Result")
# More fields than this stand without a line between them, or a screen of 24 lines could not hold them.
MOST_APART = 6
ASIDE = 8  # cells that a sheet moves to a side by one key


class Dialog(ModalScreen[Result | None], Generic[Result]):
    """A box in the middle. Escape closes it with None. `CAN` says which of the actions that only some have it has."""

    KEY = "dialog"
    SOME = frozenset({"accept", "choose", "editor", "examples"})
    CAN: ClassVar[frozenset[str]] = frozenset({"accept"})
    AUTO_FOCUS = "Input, TextArea"
    HORIZONTAL_BREAKPOINTS = WIDTHS
    VERTICAL_BREAKPOINTS = HEIGHTS

    def __init__(self, title: str) -> None:
        super().__init__()
        self.box_title = title
        self._usual_bindings = self._bindings

    def take_keys(self, chosen_keys: dict[str, tuple[str, ...]]) -> None:
        """Go by these keys from now on."""
        self._bindings = BindingsMap.merge([self._usual_bindings, keymap.bindings("dialog", chosen_keys)])

    def on_mount(self) -> None:
        self.take_keys(self.workbench.chosen_keys)
        self.query_one("#dialog").border_title = content(one_line(self.box_title))
        self.refresh_bindings()

    @property
    def workbench(self) -> WorkbenchApp:
        return cast("WorkbenchApp", self.app)

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield from self.fields()
            yield Static(id="complaint", classes="absent", markup=False)
            yield KeyBar()

    def fields(self) -> ComposeResult:
        """What the dialog asks; every dialog has its own (an abstract class would clash with Textual's)."""
        raise NotImplementedError

    def complain(self, what: str) -> None:
        """Say what is wrong with the input, and keep it."""
        line = self.query_one("#complaint", Static)
        present(line, bool(what))
        line.update(content(what))

    def action_accept(self) -> object:
        """What a yes does; every dialog that can be accepted has its own."""
        raise NotImplementedError

    def action_cancel(self) -> None:
        self.dismiss(None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action not in self.SOME or action in self.CAN


class ConfirmDialog(Dialog[bool]):
    """A question that Enter answers with yes; one that is longer than its room scrolls."""

    AUTO_FOCUS = "#asked"
    BINDINGS: ClassVar = [("enter", "accept", "yes"), ("y", "accept", "yes"), ("n", "cancel", "no")]

    def __init__(self, title: str, text: str) -> None:
        super().__init__(title)
        self.text = text

    def fields(self) -> ComposeResult:
        with VerticalScroll(id="asked"):
            yield Static(content(self.text))
        yield Static(
            Content.assemble(("enter", "bold $accent"), " yes   ", ("esc", "bold $accent"), " no"), id="answer"
        )

    def action_accept(self) -> None:
        self.dismiss(True)


class Page(ScrollableContainer):
    """What a sheet shows; a table may be wider, and goes aside by some columns a key."""

    BINDINGS: ClassVar = [("h", "scroll_left", "left"), ("l", "scroll_right", "right")]

    def action_scroll_left(self) -> None:
        self.scroll_relative(x=-ASIDE, animate=False)

    def action_scroll_right(self) -> None:
        self.scroll_relative(x=ASIDE, animate=False)


class SheetDialog(Dialog[None]):
    """Something to read, over nearly the whole screen; arrows scroll, Escape closes it."""

    AUTO_FOCUS = "#page"
    CAN: ClassVar = frozenset[str]()
    BINDINGS: ClassVar = [("j", "scroll_page(1)", "down"), ("k", "scroll_page(-1)", "up"), ("q", "cancel", "close")]

    def fields(self) -> ComposeResult:
        self.add_class("sheet")
        with Page(id="page"):
            yield from self.page()

    def page(self) -> ComposeResult:
        """What there is to read; every sheet has its own, as every dialog its fields."""
        raise NotImplementedError

    def action_scroll_page(self, lines: int) -> None:
        self.query_one("#page").scroll_relative(y=lines, animate=False)


class TextDialog(Dialog[str]):
    """A text to write; the external editor is one key away. `changed` is called with each text that it becomes."""

    CAN: ClassVar = frozenset({"accept", "editor"})

    def __init__(
        self, title: str, text: str = "", *, hint: str = "", changed: Callable[[str], None] = lambda text: None
    ) -> None:
        super().__init__(title)
        self.text = text
        self.hint = hint
        self.changed = changed

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        self.changed(event.text_area.text)

    def fields(self) -> ComposeResult:
        if self.hint:
            yield Static(content(self.hint), id="hint")
        area = SafeTextArea(self.text)
        area.move_cursor(area.document.end)
        yield area

    def action_accept(self) -> None:
        text = self.query_one(SafeTextArea).text
        if not text.strip():
            self.complain("nothing is written yet")
            return
        self.dismiss(text)

    def action_editor(self) -> None:
        area = self.query_one(SafeTextArea)
        try:
            area.load_text(edit_outside(self.app, area.text))
        except WorkbenchError as error:
            self.complain(str(error))


@dataclass(frozen=True)
class Field:
    """One line of a form. `parse` raises ValueError with what is wrong; white space around is no part of it, unless the
    text is taken `exactly`. Up and down go through its `choices`; `heard` is told each value that can be read."""

    name: str
    label: str
    value: str
    parse: Callable[[str], object]
    hint: str = ""
    exactly: bool = False
    choices: tuple[str, ...] = ()
    heard: Callable[[str], None] = lambda value: None


class ChoiceInput(SafeInput):
    """A field that up and down fill with one choice after the other; what is typed need not be one of them."""

    BINDINGS: ClassVar = [("up", "choose(-1)", "the choice before"), ("down", "choose(1)", "the next choice")]

    def __init__(self, value: str, choices: tuple[str, ...], *, id: str) -> None:  # noqa: A002
        super().__init__(value, id=id, compact=True)
        self.choices = choices

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return bool(self.choices) if action == "choose" else super().check_action(action, parameters)

    def action_choose(self, step: int) -> None:
        typed = self.value.strip()
        at = self.choices.index(typed) + step if typed in self.choices else min(step, 0)
        self.value = self.choices[at % len(self.choices)]
        self.cursor_position = len(self.value)


class FormDialog(Dialog[dict[str, object]]):
    """A few fields, each with what is wrong with it below; Enter in any of them accepts all.

    `wrong` says what is wrong with the values of all fields together.
    """

    def __init__(
        self,
        title: str,
        fields: list[Field],
        *,
        text: str = "",
        wrong: Callable[[dict[str, object]], str] = lambda values: "",
    ) -> None:
        super().__init__(title)
        self.form = fields
        self.wrong = wrong
        self.set_class(len(fields) > MOST_APART, "many")
        self.text = text

    def fields(self) -> ComposeResult:
        if self.text:
            yield Static(content(self.text), id="hint")
        with VerticalScroll(id="form", can_focus=False):
            for field in self.form:
                with Horizontal(classes="field"):
                    yield Static(Content.styled(field.label, "bold"), classes="label")
                    yield ChoiceInput(field.value, field.choices, id=_entry(field))
                    arrows = Content.styled("↑↓ " if field.choices else "", "bold $accent")
                    yield Static(Content.assemble(arrows, (field.hint, "$text-muted")), classes="aside")
                yield Static(id=_fault(field), classes="fault", markup=False)

    def on_input_changed(self, event: Input.Changed) -> None:
        field = next(field for field in self.form if _entry(field) == event.input.id)
        if self._check(field):
            field.heard(self._typed(field))

    def on_input_submitted(self) -> None:
        self.action_accept()

    def action_accept(self) -> None:
        if (values := self.values()) is not None:
            self.dismiss(values)

    def values(self) -> dict[str, object] | None:
        """What is typed; None, once what is wrong with it is said."""
        wrong = [field for field in self.form if not self._check(field)]
        if wrong:
            self.query_one(f"#{_entry(wrong[0])}", Input).focus()
            return None
        values = {field.name: field.parse(self._typed(field)) for field in self.form}
        if together := self.wrong(values):
            self.complain(f"✕ {together}")
            return None
        return values

    def _check(self, field: Field) -> bool:
        """Whether a field can be read; if not, it says below why."""
        wrong = ""
        try:
            field.parse(self._typed(field))
        except ValueError as error:
            wrong = f"✕ {field.label}: {error}"
        fault = self.query_one(f"#{_fault(field)}", Static)
        fault.update(content(wrong))
        fault.set_class(bool(wrong), "said")
        return not wrong

    def _typed(self, field: Field) -> str:
        typed = self.query_one(f"#{_entry(field)}", Input).value
        return typed if field.exactly else typed.strip()


def _entry(field: Field) -> str:
    return "field-" + field.name.replace(".", "-")


def _fault(field: Field) -> str:
    return "fault-" + field.name.replace(".", "-")


class PickDialog(Dialog[str]):
    """A search field over a list; `find` gives the choices `(value, line)` for what is typed.

    What is found for what was typed before is not shown.
    """

    BINDINGS: ClassVar = [("down", "move(1)", "down"), ("up", "move(-1)", "up")]

    def __init__(
        self, title: str, find: Callable[[str], Awaitable[list[tuple[str, Content]]]], *, placeholder: str
    ) -> None:
        super().__init__(title)
        self.find = find
        self.placeholder = placeholder
        self.choices: list[tuple[str, Content]] = []

    def fields(self) -> ComposeResult:
        yield SafeInput(placeholder=self.placeholder, compact=True)
        yield OptionList(markup=False)

    def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False
        self.refill("")

    def on_input_changed(self, event: Input.Changed) -> None:
        self.refill(event.value)

    def refill(self, typed: str) -> None:
        self.search = self._refill(typed)

    @work(exclusive=True)
    async def _refill(self, typed: str) -> None:
        self.choices = await self.find(typed)
        listed = self.query_one(OptionList)
        listed.clear_options()
        listed.add_options(Option(line) for _, line in self.choices)
        listed.highlighted = 0 if self.choices else None

    def action_move(self, step: int) -> None:
        listed = self.query_one(OptionList)
        if self.choices:
            listed.highlighted = ((listed.highlighted or 0) + step) % len(self.choices)

    def on_input_submitted(self) -> None:
        self.action_accept()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.chosen(self.choices[event.option_index][0])

    def chosen(self, value: str) -> None:
        """A line was taken."""
        self.dismiss(value)

    @work(exclusive=True, group="accept")
    async def action_accept(self) -> None:
        """Take the line in focus, of those that fit all that is typed: they may not have been found yet."""
        search = None
        while search is not self.search:
            search = self.search
            with suppress(WorkerFailed):  # another search has taken its place
                await search.wait()
        highlighted = self.query_one(OptionList).highlighted
        if highlighted is None:
            self.complain("nothing fits what is typed")
            return
        self.chosen(self.choices[highlighted][0])
