"""The registry of actions: whole, without clashes, and behind the documentation."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import pytest

from workbench.shell import keymap
from workbench.shell.actions import ACTIONS, BY_ID, NUMBERS, SCREENS, keys_page, of_screen, spoken

ROOT = Path(__file__).resolve().parents[2]


def test_every_action_is_named_once_and_explained():
    assert len(BY_ID) == len(ACTIONS)
    for action in ACTIONS:
        assert action.screen in SCREENS
        assert action.id.startswith(f"{action.screen}.")
        assert action.keys
        assert action.label
        assert action.help[0].isupper()
        assert not action.help.endswith(".")


def test_no_key_means_two_things_at_one_moment():
    for screen in SCREENS:
        meanings = Counter((key, action.when) for action in of_screen(screen) for key in action.keys)
        assert [pair for pair, times in meanings.items() if times > 1] == []
        always = {key for action in of_screen(screen) for key in action.keys if not action.when}
        sometimes = {key for action in of_screen(screen) for key in action.keys if action.when and not action.sheet}
        assert not always & sometimes


ALIKE = (
    {"prefer", "left", "right", "rank"},  # the answer with this letter
    {"bad", "both bad", "none good"},
    {"tie", "equal"},
    {"filter", "which"},  # what is listed or asked about
    {"next", "other", "previous", "columns", "answers"},  # to the side
    {"send", "unfold", "go on", "open", "load", "start", "choose", "accept"},  # what is in front of one
    {"stop", "back", "cancel"},
    {"attribute", "figure"},  # the one above or below
)
"""Labels that say of different things, each on its own screen, that the same is done with them."""

UNLIKE = {
    "b": "bad, roll back",  # where one answer stands alone, and of versions: no answer b is there to prefer
    "c": "can't judge, cancel",  # one answer and two have no c; a ranking has, and there it is C
    "f": "follow",
    "o": "answers",
    "p": "publish",
    "r": "resume",
    "v": "compare",
}
"""Keys that mean something else where versions and runs are listed, or where their usual meaning cannot be. A new
screen takes a key that is free."""


def test_a_key_means_one_thing_over_all_screens():
    """Sheets of choices aside, whose keys are all that a screen does while they are open."""
    meanings: dict[str, set[str]] = {}
    for action in ACTIONS:
        for key in () if action.sheet else action.keys:
            alike = next((labels for labels in ALIKE if action.label in labels), {action.label})
            if action.label not in UNLIKE.get(key, "").split(", "):
                meanings.setdefault(key, set()).add(min(alike))
    assert {key: sorted(said) for key, said in meanings.items() if len(said) > 1} == {}
    told = {(key, action.label) for action in ACTIONS for key in action.keys}
    assert {(key, label) for key, labels in UNLIKE.items() for label in labels.split(", ")} <= told, "none is left over"


@pytest.mark.parametrize("screen", list(NUMBERS))
def test_every_action_of_a_screen_has_its_method(screen: str):
    module = importlib.import_module(f"workbench.screens.{screen}.screen")
    kind = getattr(module, f"{screen.title()}Screen")
    for action in of_screen(screen):
        name = action.method.split("(")[0]
        if not name.startswith("app."):
            assert callable(getattr(kind, f"action_{name}", None)), action.id


def test_every_action_of_everywhere_has_its_method():
    from workbench.shell.app import WorkbenchApp

    for action in of_screen("app"):
        assert callable(getattr(WorkbenchApp, f"action_{action.method.split('(')[0]}", None)), action.id


def test_each_screen_has_the_function_key_of_its_number_and_nothing_else_has_it():
    for screen, number in NUMBERS.items():
        assert [action.id for action in ACTIONS if f"f{number}" in action.keys] == [f"app.show-{screen}"]
    assert list(NUMBERS.values()) == sorted(set(NUMBERS.values())), "the tabs stand in the order of their keys"


def test_bindings_carry_the_ids_of_their_actions():
    for screen in SCREENS:
        bound = {binding.id for _, binding in keymap.bindings(screen, {})}
        assert bound == {action.id for action in of_screen(screen)}


def test_keys_are_spoken_as_people_write_them():
    assert [spoken(key) for key in ("ctrl+p", "question_mark", "equals_sign", "escape", "f1", "a")] == [
        "^p", "?", "=", "esc", "f1", "a",
    ]  # fmt: skip


def test_the_page_of_keys_is_current():
    page = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    assert page == keys_page(), "write it anew: python -m workbench.shell.actions > docs/keys.md"
