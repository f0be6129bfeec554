"""Scripts that run from right to left, and the width of all others: one measure, and nothing stored is changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from bidi import get_display
from driving import answer, opened, ready, served_base, until, visible
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from textual._context import active_app
from textual.content import Content
from textual.style import Style
from textual.visual import RenderOptions, RulesMap
from wcwidth import iter_graphemes

from storage.database import open_database
from storage.workspace import Workspace
from workbench.commands.options import print_table
from workbench.shell import bidi
from workbench.shell.app import WorkbenchApp
from workbench.text import one_line, width
from workbench.widgets.dialogs import FormDialog
from workbench.widgets.editor import PromptInput, SafeInput
from workbench.widgets.marked_up import MarkedUp

# As the standard has it (UAX 9, L2): what is read, and what stands there from left to right.
LAID_OUT = (
    ("car means سيارة.", "car means ةرايس."),
    ("السيارة هي CAR.", ".CAR يه ةرايسلا"),
    ("שלום (abc) 12.", ".12 (abc) םולש"),
    ("המחיר 1,250.50 ₪ (כולל מע״מ)", "(מ״עמ ללוכ) ₪ 1,250.50 ריחמה"),
    ("العدد ١٢٣ هنا", "انه ١٢٣ ددعلا"),
    ("a [ש(ב)] c", "a [(ב)ש] c"),
    ("בְּרֵאשִׁית", "תישִׁארֵבְּ"),
    ("ar ▸ كيف (x)؟", "ar ▸ ؟(x) فيك"),
)
SAMPLES = (
    "कृपया क्षमा करें नमस्ते", "ขอบคุณที่อ่านนี่", "தமிழ் மொழி", "မြန်မာစာ", "雨水溶解岩石中的盐", "猫はなぜ昼間よく眠るの", "각하늘",
    "e\u0301le\u0300ve nai\u0308f", "👩‍👩‍👧 👍🏽 🇫🇷🇩🇪 ❤️ 1️⃣", "كيف يتكوّن قوس", "בְּרֵאשִׁית", "plain words", "ব্যাকরণ",
)  # fmt: skip
mixed = st.lists(st.sampled_from(SAMPLES) | st.sampled_from(("(", ")", " 12,5 ", "abc")), min_size=1, max_size=6)


class Turning:
    """An app, as far as drawing asks."""

    turns_texts = True


@pytest.fixture(scope="module", autouse=True)
def turning():
    token = active_app.set(Turning())  # type: ignore[arg-type]
    yield
    active_app.reset(token)


def drawn(text: str, cells: int, **rules: object) -> list[str]:
    """The lines of a text as a widget of this width draws it."""
    options = RenderOptions(lambda style: Style() if isinstance(style, str) else style, RulesMap(**rules))  # type: ignore[typeddict-item]
    return [strip.text for strip in Content(text).render_strips(cells, None, Style(), options)]


@pytest.mark.parametrize(("read", "seen"), LAID_OUT)
def test_texts_stand_as_the_standard_says(read: str, seen: str):
    assert [line.strip() for line in drawn(read, 60)] == [seen]


@given(st.text(st.sampled_from("אבجب ab12٣٤()[]<«,.:+-#$! \u0301\u064b\u200d"), min_size=1, max_size=40))
def test_every_character_stands_where_the_library_puts_it(text: str):
    of = bidi.paragraph(text)
    assert sorted(of.places) == list(range(len(text)))
    seen = "".join(text[n] for n in sorted(range(len(text)), key=of.places.__getitem__))
    assert seen == get_display(text)


@given(st.text(st.characters(codec=None, exclude_characters="\n"), max_size=30))
def test_whatever_a_text_holds_it_has_an_order(text: str):
    of = bidi.paragraph(text + "ש")
    assert sorted(of.places) == list(range(len(text) + 1))
    assert sorted(n for piece in bidi.standing(of.text, of) for n in range(piece.start, piece.end)) == [
        *range(len(text) + 1)
    ]


def test_a_paragraph_of_many_lines_is_turned_line_by_line_and_stands_at_the_right():
    lines = drawn("تنكسر أشعة الشمس داخل قطرات المطر (raindrops are round) وتنعكس", 24)
    assert len(lines) == 3
    assert all(cell_len(line) == 24 for line in lines)
    assert [line.strip() for line in lines] == ["لخاد سمشلا ةعشأ رسكنت", "raindrops) رطملا تارطق", "سكعنتو (are round"]


def test_a_line_without_a_letter_from_the_right_is_turned_with_its_paragraph():
    lines = drawn("ما هي عاصمة مصر (Cairo, the old city on the Nile).", 24)
    assert [line.strip() for line in lines] == ["Cairo,) رصم ةمصاع يه ام", "the old city on the", ".(Nile"]


def marked_up(text: str, cells: int) -> list[str]:
    console = Console(width=cells, legacy_windows=False)
    return ["".join(one.text for one in line) for line in console.render_lines(MarkedUp(text), pad=False)]


@given(mixed.map("".join).filter(lambda text: text.strip() and not text.strip()[0].isdigit()), st.integers(12, 40))
def test_markdown_is_turned_as_plain_text_is(text: str, cells: int):
    words = " ".join(text.split())
    assert [line.strip() for line in marked_up(words, cells)] == [line.strip() for line in drawn(words, cells)]


def test_headings_lists_and_tables_are_turned():
    text = "# עיר (א)\n\n- שלום (abc) 12.\n\n| שם | x |\n|---|---|\n| **אב** גד | 1 |\n"
    shown = "\n".join(marked_up(text, 40))
    assert all(part in shown for part in ("(א) ריע", ".12 (abc) םולש", "םש", "דג בא"))


@given(mixed, st.integers(4, 40))
def test_what_is_drawn_is_as_wide_as_it_was_measured(parts: list[str], cells: int):
    text = "".join(parts)
    for line in drawn(text, cells):
        assert cell_len(line) <= cells
    (whole,) = drawn(text, 400)
    assert cell_len(whole.strip()) == cell_len(text.strip()) == width(text.strip())


@given(mixed, st.integers(2, 40))
def test_no_grapheme_cluster_is_cut_in_two(parts: list[str], cells: int):
    text = " ".join("".join(parts).split())
    clusters = list(iter_graphemes(text))
    whole = {"".join(clusters[:n]) for n in range(len(clusters) + 1)}
    for cut in (one_line(text, cells), Content(text).truncate(cells, ellipsis=True).plain):
        assert width(cut) <= cells
        assert cut.removesuffix("…") in whole
    sorted_line = sorted("".join(drawn(text, 400)).split())
    assert sorted("".join(sorted_line)) == sorted("".join(text.split())) or any(c in text for c in "()")


def test_tables_of_commands_stand_in_columns_in_every_script(capsys: pytest.CaptureFixture[str]):
    print_table(["text", "n"], [(text, "|") for text in SAMPLES])
    rows = capsys.readouterr().out.splitlines()[1:]
    assert len({width(row.partition("|")[0]) for row in rows}) == 1


async def test_answers_and_editors_are_turned_and_what_is_stored_is_not(workspace: Workspace):
    prompt, said = "كيف يتكوّن (ABC) قوس 123؟", "يظهر بعد the rain المطر."
    with open_database(workspace) as database:
        served_base(database)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        ready(app)
        editor = app.screen.query_one(PromptInput)
        editor.focus()
        editor.write(prompt)
        await until(pilot, lambda: "؟123 سوق (ABC) نوّكتي فيك" in visible(app))
        at_end = editor.cursor_screen_offset
        assert editor.text == prompt
        await pilot.press("home")
        assert editor.cursor_screen_offset.x == at_end.x + width(prompt)  # the first letter stands at the right
        await pilot.press("left")
        assert editor.cursor_location == (0, 1)  # left goes on in what runs to the left
        await pilot.press("x", "backspace", "right")
        assert (editor.text, editor.cursor_location) == (prompt, (0, 0))
        left = editor.content_region.x
        await pilot.click(offset=(at_end.x + 1, at_end.y))  # the question mark
        assert editor.cursor_location == (0, len(prompt) - 1), left
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.current is not None)
        answer(app, said, "b")
        await until(pilot, lambda: ".رطملا the rain دعب رهظي" in visible(app))
        await until(pilot, lambda: not app.saver.pending)
        current = app.conversation.current
        assert current is not None
        assert (current.ask.prompt.text, current.samples[0].text) == (prompt, said)
        for mode, shown in (("off", said), ("app", ".رطملا the rain دعب رهظي")):
            app.turn_texts(mode)
            await until(pilot, lambda shown=shown: shown in visible(app))


async def test_a_field_of_a_form_is_turned(workspace: Workspace):
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: isinstance(app.screen, FormDialog))
        field = app.screen.query_one("#field-rater", SafeInput)
        field.focus()
        field.value = "سارة (1)"
        field.cursor_position = len(field.value)
        await until(pilot, lambda: "(1) ةراس" in visible(app))
        end = field.cursor_screen_offset.x
        await pilot.press("home")
        assert field.cursor_screen_offset.x == end + width(field.value)
        assert field.value == "سارة (1)"


def test_who_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("KONSOLE_VERSION", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("TERM_PROGRAM", raising=False)
    assert bidi.app_turns("auto")
    monkeypatch.setenv("KONSOLE_VERSION", "230804")
    assert not bidi.app_turns("auto")
    assert bidi.app_turns("app")
    assert not bidi.app_turns("terminal")
    assert not bidi.app_turns("off")
