"""Editors hold what they are given to the character, whatever it is, and draw none of it raw."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Callable, Coroutine, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from rich.segment import Segment
from textual import events
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from storage.errors import WorkbenchError
from workbench.shell.terminal import PasteParser
from workbench.text import UNSAFE, drawn, pasted
from workbench.widgets.document import DrawnDocument, RawDocument
from workbench.widgets.editor import SafeInput, SafeTextArea, edit_outside

T = TypeVar("T")
# Text as it comes: any character but half of a surrogate pair, and often those that have gone wrong somewhere.
ODD = "\x00\x07\t\n\x0b\x0c\r\x1b\x1c\x85\x9b\xa0\xad\u061c\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202e\u2066\ufeff"
texts = some.text(
    some.one_of(some.sampled_from(ODD + "ab 語ש"), some.characters(exclude_categories=["Cs"])), max_size=40
)


class Editors(App[None]):
    """One of each, and nothing else."""

    def compose(self) -> ComposeResult:
        yield SafeTextArea()
        yield SafeInput()


def segments(widget: SafeTextArea | SafeInput) -> list[Segment]:
    """What a widget draws."""
    return [segment for y in range(widget.size.height) for segment in widget.render_line(y)]


@pytest.fixture(scope="module")
def drive() -> Iterator[Callable[[Callable[[Editors, Pilot[None]], Coroutine[None, None, None]]], None]]:
    """Has an app that stays open do one thing after the other."""
    loop = asyncio.new_event_loop()
    app = Editors()
    inside = contextvars.copy_context()

    def run(work: Coroutine[None, None, T]) -> T:
        return loop.run_until_complete(loop.create_task(work, context=inside))

    running = app.run_test(size=(30, 12))
    pilot = run(running.__aenter__())
    yield lambda work: run(work(app, pilot))
    run(running.__aexit__(None, None, None))
    loop.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(loaded=texts, put=texts, data=some.data())
def test_a_text_that_is_loaded_pasted_undone_and_redone_is_the_same_to_the_character(
    drive: Callable[..., None], loaded: str, put: str, data: some.DataObject
):
    at = data.draw(some.integers(0, len(loaded)))
    to = data.draw(some.integers(at, len(loaded)))
    wanted = loaded[:at] + pasted(put) + loaded[to:]

    async def work(app: Editors, pilot: Pilot[None]) -> None:
        area, field = app.query_one(SafeTextArea), app.query_one(SafeInput)
        area.load_text(loaded)
        assert area.text == loaded
        document = area.document
        assert isinstance(document, RawDocument)
        place = document.get_location_from_index
        area.selection = type(area.selection)(place(at), place(to))
        area._forward_event(events.Paste(put))  # as the app hands it to what has the focus
        field.value = loaded
        field.selection = type(field.selection)(at, to)
        field._forward_event(events.Paste(put))
        await pilot.pause()
        assert (area.text, field.value) == (wanted, wanted)
        if put or at != to:
            area.undo()
            assert area.text == loaded
            area.redo()
            assert area.text == wanted
            assert document.get_index_from_location(area.cursor_location) == at + len(pasted(put))
        assert not any(UNSAFE.search(segment.text) for segment in segments(area))
        assert not any(UNSAFE.search(segment.text) for segment in segments(field))

    drive(work)


@given(texts)
def test_what_is_drawn_has_a_place_for_each_character(text: str):
    assert len(drawn(text)) == len(text)
    assert UNSAFE.search(drawn(text).replace("\n", "")) is None
    raw = RawDocument(text)
    shown = DrawnDocument(raw)
    assert raw.text == text
    assert [len(line) for line in shown.lines] == [len(line) for line in raw.lines]


async def test_signs_stand_in_the_row_and_the_cursor_behind_them():
    app = Editors()
    async with app.run_test(size=(30, 12)):
        area = app.query_one(SafeTextArea)
        area.load_text("a\u200fb\u2028c\rd")
        area.move_cursor(area.document.end)
        assert "a⇽b␤c␍d" in "".join(segment.text for segment in segments(area))
        assert area.get_column_width(0, 7) == 7
        assert area.wrapped_document.location_to_offset((0, 7)).x == 7


@pytest.mark.parametrize("typed", ["\u200c", "\u200f", "\xa0", "\u3000"], ids=["ZWNJ", "RLM", "NBSP", "ideographic"])
async def test_keyboards_type_characters_that_have_no_shape(typed: str):
    app = Editors()
    async with app.run_test() as pilot:
        for editor in (app.query_one(SafeTextArea), app.query_one(SafeInput)):
            editor.focus()
            await pilot.pause()
            app.post_message(events.Key("x", "x"))
            app.post_message(events.Key("unknown", typed))
            await pilot.pause()
            assert (editor.text if isinstance(editor, SafeTextArea) else editor.value) == "x" + typed


@settings(max_examples=200)
@given(text=texts, before=some.text(some.sampled_from("ab\t\r"), max_size=5), data=some.data())
def test_a_paste_is_one_event_however_the_terminal_cuts_it(text: str, before: str, data: some.DataObject):
    text = text.replace("\x1b[201~", "")
    stream = f"{before}\x1b[200~{text}\x1b[201~x"
    cuts = sorted({0, len(stream), *data.draw(some.lists(some.integers(0, len(stream)), max_size=6))})
    if (after_escape := stream.index("\x1b[200~") + 1) in cuts:
        cuts.remove(after_escape)  # an ESC that comes alone is a key
    parser = PasteParser()
    heard = [message for start, end in itertools.pairwise(cuts) for message in parser.feed(stream[start:end])]
    assert [message.text for message in heard if isinstance(message, events.Paste)] == [text]
    assert [message.character for message in heard if isinstance(message, events.Key)] == [*before, "x"]


@pytest.mark.parametrize("text", ["", "\n", "a\n", "a\r\nb\r", "\ufeffשלום\u200f\u2028\x85\x1b[2J\n\n"])
def test_the_external_editor_gets_and_gives_the_text_as_it_is(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = tmp_path / "seen"
    script = tmp_path / "editor"
    script.write_text(f'#!/bin/sh\ncp "$1" {seen}\n')
    script.chmod(0o700)
    monkeypatch.setenv("EDITOR", str(script))
    app = Editors()
    monkeypatch.setattr(app, "suspend", nullcontext)  # there is no terminal to hand over
    assert edit_outside(app, text) == text  # type: ignore[arg-type]
    assert seen.read_bytes() == f"{text}\n".encode()
    script.write_text('#!/bin/sh\nprintf "\\303" > "$1"\n')
    with pytest.raises(WorkbenchError, match="cannot be read"):
        edit_outside(app, text)  # type: ignore[arg-type]
