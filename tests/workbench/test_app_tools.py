"""What is there on every screen: jumping, copying, themes that are looked at, keys that are changed, about and logs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from driving import answer, opened, ready, served_base, type_text, until, visible
from hypothesis import given
from hypothesis import strategies as st

from storage.database import open_database
from storage.workspace import Workspace
from workbench.shell import keyfile, keymap
from workbench.shell.actions import ACTIONS, BY_ID, spoken
from workbench.shell.app import WorkbenchApp
from workbench.shell.jump import JumpScreen
from workbench.text import UNSAFE
from workbench.widgets.about import AboutSheet, logs
from workbench.widgets.answers import AnswerCard
from workbench.widgets.editor import PromptInput, SafeInput
from workbench.widgets.rebinding import KeysDialog, PressDialog, found
from workbench.widgets.settings import SettingsDialog
from workbench.widgets.theming import ThemeDialog

RAW = "first \x1b[31mred\u202e\nsecond"


@pytest.fixture(autouse=True)
def no_clipboard_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "SSH_TTY", "WSL_DISTRO_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def app(workspace: Workspace) -> WorkbenchApp:
    with open_database(workspace) as database:
        served_base(database)
    return WorkbenchApp(workspace, start_engine=False)


async def with_answers(pilot, app: WorkbenchApp) -> None:  # type: ignore[no-untyped-def]
    await opened(pilot)
    ready(app)
    await type_text(pilot, "why")
    await pilot.press("enter")
    await until(pilot, lambda: app.conversation.current is not None)
    answer(app, RAW, "other")
    await until(pilot, lambda: len(app.screen.query(AnswerCard)) == 2 and not app.saver.pending)


def said(app: WorkbenchApp) -> list[str]:
    return [one.message for one in app._notifications]


def written(app: WorkbenchApp) -> list[str]:
    """What goes to the terminal beside what is drawn, from now on."""
    found: list[str] = []
    assert app._driver is not None
    app._driver.write = found.append  # type: ignore[method-assign]
    return found


def program(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that stands first in the path; returns the file that it may write to."""
    folder.mkdir(exist_ok=True)
    taken = folder / "taken"
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script} > '{taken}'\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return taken


async def test_letters_stand_on_what_takes_the_focus_and_clicks_go_there_too(app: WorkbenchApp):
    async with app.run_test(size=(100, 30)) as pilot:
        await with_answers(pilot, app)
        first, second = app.screen.query(AnswerCard)
        for key, goes_to in (("s", second), ("a", first), ("d", app.screen.query_one(PromptInput))):
            await pilot.press("alt+j")
            await until(pilot, lambda: isinstance(app.screen, JumpScreen) and " s " in visible(app))
            await pilot.press(key)
            await until(pilot, lambda goes_to=goes_to: app.focused is goes_to)
        await pilot.press("alt+j")
        await until(pilot, lambda: isinstance(app.screen, JumpScreen))
        await pilot.press("escape")
        await until(pilot, lambda: app.focused is app.screen.query_one(PromptInput))
        await pilot.click(second)
        await until(pilot, lambda: app.focused is second)
        await pilot.click(offset=(15, 1))  # the second of the tabs
        await until(pilot, lambda: app.current_mode == "review")


async def test_what_is_in_focus_is_copied_as_it_is_stored(
    app: WorkbenchApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with app.run_test(size=(100, 30)) as pilot:
        await with_answers(pilot, app)
        out = written(app)
        app.screen.query(AnswerCard).first().focus()
        await pilot.press("alt+c")
        await until(pilot, lambda: app.clipboard == RAW)
        assert any(text.startswith("\x1b]52;c;") for text in out)
        await until(pilot, lambda: f"copied {len(RAW)} characters by the terminal (OSC 52)" in said(app))
        out.clear()
        taken = program(tmp_path / "bin", "xclip", "cat", monkeypatch)
        monkeypatch.setenv("DISPLAY", ":9")
        app.screen.query_one(PromptInput).focus()
        await type_text(pilot, "a draft")
        await pilot.press("alt+c")
        await until(pilot, lambda: "copied 7 characters by xclip" in said(app))
        assert taken.read_text() == "a draft"
        assert not any("]52;" in text for text in out)
        await pilot.press("f5")
        await until(pilot, lambda: "why" in visible(app))
        await pilot.press("alt+c")
        await until(pilot, lambda: app.clipboard.startswith("en\twhy"))
        # Over SSH the clipboard of this machine is nobody's, and a program that fails is as good as none.
        for name, value in (("SSH_TTY", "/dev/pts/1"), ("PATH", str(tmp_path / "bin"))):
            monkeypatch.setenv(name, value)
            program(tmp_path / "bin", "xclip", "exit 1", monkeypatch)
            out.clear()
            await pilot.press("alt+c")
            await until(pilot, lambda: any("]52;" in text for text in out))
            monkeypatch.delenv("SSH_TTY", raising=False)


async def test_a_theme_is_on_while_it_is_looked_at_and_kept_when_taken(app: WorkbenchApp):
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await pilot.press("alt+t")
        await until(pilot, lambda: isinstance(app.screen, ThemeDialog))
        await pilot.press("up")
        await until(pilot, lambda: app.theme == "tokyo-night")
        assert app.session.theme == "workbench"
        await pilot.press("escape")
        await until(pilot, lambda: app.theme == "workbench" and not app.screen.is_modal)
        await pilot.press("alt+t", "up", "enter")
        await until(pilot, lambda: app.session.theme == app.theme == "tokyo-night")


async def test_settings_are_chosen_with_the_arrows_and_a_theme_is_looked_at(app: WorkbenchApp):
    async with app.run_test(size=(100, 34)) as pilot:
        await opened(pilot)
        for leave in ("escape", "ctrl+j"):
            await pilot.press("f7")
            await until(pilot, lambda: isinstance(app.screen, SettingsDialog))
            for name, key, value in (("theme", "up", "tokyo-night"), ("bidi", "down", "app"), ("follow", "down", "no")):
                field = app.screen.query_one(f"#field-{name}", SafeInput)
                field.focus()
                await pilot.press(key)
                await until(pilot, lambda field=field, value=value: field.value == value)
            await until(pilot, lambda: app.theme == "tokyo-night")
            assert app.session.theme == "workbench"
            await pilot.press(leave)
            await until(pilot, lambda: not app.screen.is_modal)
            if leave == "escape":
                assert (app.theme, app.session.bidi, app.session.follow) == ("workbench", "auto", True)
        await until(pilot, lambda: app.session.theme == app.theme == "tokyo-night")
        assert (app.session.bidi, app.session.follow) == ("app", False)


async def test_a_key_is_given_to_another_action_and_works_at_once(app: WorkbenchApp):
    path = app.workspace.root / keymap.FILE_NAME
    path.write_text('# mine\n"review.skip" = "z"\n')
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await pilot.press("f2")  # made before the keys are changed
        await until(pilot, lambda: app.current_mode == "review")
        await pilot.press("alt+k")
        await until(pilot, lambda: isinstance(app.screen, KeysDialog))
        await pilot.press("enter")  # on "Go to Prompt", with f1
        await until(pilot, lambda: isinstance(app.screen, PressDialog))
        await pilot.press("f2")
        await until(pilot, lambda: "'f2' already means app.show-review" in visible(app))
        assert "mine" in path.read_text()
        await pilot.press("alt+a")
        await until(pilot, lambda: isinstance(app.screen, PressDialog))
        await pilot.press("f9")
        await until(pilot, lambda: "• f1 alt+1 f9" in visible(app))
        assert path.read_text() == '# mine\n"review.skip" = "z"\n"app.show-prompt" = ["f1", "alt+1", "f9"]\n'
        await pilot.press("escape", "f9")
        await until(pilot, lambda: app.current_mode == "prompt")
        await pilot.press("alt+k")
        await until(pilot, lambda: isinstance(app.screen, KeysDialog))
        await type_text(pilot, "prompt goes")
        await until(pilot, lambda: "Go to Prompt" not in visible(app))
        await pilot.press(*["backspace"] * 11)
        await type_text(pilot, "f9")  # found by the key that it has now, and by it alone
        await until(pilot, lambda: "• f1" in visible(app) and "Go to Review" not in visible(app))
        await pilot.press("alt+d")
        await until(pilot, lambda: "• f1" not in visible(app))
        await pilot.press("escape", "f2", "f9")
        await until(pilot, lambda: app.current_mode == "review")
    assert keymap.load(app.workspace) == {"review.skip": ("z",)}


@given(st.sampled_from(ACTIONS), st.randoms(), st.sampled_from([str.lower, str.upper, str.title]))
def test_an_action_is_found_by_each_of_its_keys_and_by_words_of_what_it_does(action, random, written):
    keys = keymap.effective({"review.skip": ("ctrl+y",)})
    for key in keys[action.id]:
        for typed in (key, spoken(key), f" {spoken(key)} "):
            listed = found(ACTIONS, keys, typed)
            assert action in listed
            have = [key in keys[one.id] for one in listed]
            assert have == sorted(have, reverse=True), "those that have it come first"
    words = [*action.help.split(), action.label]
    typed = " ".join(written(word) for word in random.sample(words, min(3, len(words))))
    listed = found(ACTIONS, keys, typed)
    assert action in listed
    assert len(set(listed)) == len(listed)
    assert found(ACTIONS, keys, "") == list(ACTIONS)
    assert found(ACTIONS, keys, f"{typed} qqq") == []


FILES = (
    "",
    '"review.skip" = "z"',
    '# a note\nreview.undo = "!"\n\n[prompt]\nagain = ["f9"]  # of mine\n',
    '[review]\nskip = [\n"z",\n]\n',
)
Step = tuple[str, tuple[str, ...] | None]
names = st.sampled_from(("review.skip", "prompt.again", "app.help"))
choices = st.sampled_from((None, ("f4",), ("x", "z")))


@given(st.sampled_from(FILES), st.lists(st.tuples(names, choices), max_size=4))
def test_a_keymap_file_says_what_was_put_there_and_all_that_it_said(text: str, steps: list[Step]):
    wanted = keymap.flat(tomllib.loads(text))
    for action, keys in steps:
        text = keyfile.changed(text, action, keys)
        wanted.pop(action, None)
        if keys is not None:
            wanted[action] = list(keys)
        assert keymap.flat(tomllib.loads(text)) == wanted
        assert action in BY_ID


async def test_about_tells_what_runs_and_shows_the_logs_without_obeying_them(app: WorkbenchApp):
    logged = app.workspace.logs / "engine.log"
    logged.write_bytes(b"".join(b"line %d\n" % n for n in range(500)) + b"\x1b]52;c;aGk=\x07 \xff [/bold] \x9b31m\n")
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        ready(app)
        await pilot.press("alt+i")
        await until(pilot, lambda: isinstance(app.screen, AboutSheet) and "textual" in visible(app))
        await until(pilot, lambda: "SmolLM2" in visible(app))
        assert str(app.workspace.root)[-20:] in visible(app).replace("│\n", "")
        await pilot.press("end")
        await until(pilot, lambda: "[/bold]" in visible(app))
        assert UNSAFE.search(visible(app)) is None
        await until(pilot, lambda: "␛]52;c;aGk=␇" in visible(app))
    ((_, tail),) = logs(app.workspace.logs)
    assert tail.startswith("…\nline 44")


async def test_without_colour_there_is_none_on_any_screen(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        for key in ("f1", "f2", "f3", "f4", "f5", "f6", "f7"):
            await pilot.press(key)
            await pilot.pause()
            await until(pilot, lambda: len(visible(app).split()) > 10)
            for strip in app.screen._compositor.render_strips():
                for segment in strip:
                    for colour in filter(
                        None, (segment.style and segment.style.color, segment.style and segment.style.bgcolor)
                    ):
                        red, green, blue = colour.get_truecolor()
                        assert red == green == blue, (key, segment)
