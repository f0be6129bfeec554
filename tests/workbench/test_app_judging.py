"""What an item asks, and what can be said of it beside that: attributes, scales, tags, and a look back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from driving import answer, opened, ready, served_base, type_text, until, visible

from storage import conversations, samples
from storage.database import Database
from storage.feedback import guidelines, log
from storage.records import RatingKind, Sample
from storage.workspace import Workspace
from workbench.screens.review.ranking import Order
from workbench.screens.review.screen import ReviewScreen
from workbench.shell.app import WorkbenchApp
from workbench.shell.session import Session, save, shares_of
from workbench.widgets.judging import verdict


def furnish(database: Database, count: int = 2, **chosen: Any) -> list[Sample]:
    served_base(database)
    made = []
    for n in range(count):
        prompt = conversations.add(database, f"Question {n}?", language="en")
        made.append(samples.new(prompt.id, f"# Title {n}\n\n**bold** words", version="v0", finish_reason="eos"))
    samples.add(database, made)
    save(database, Session(screen="review", rater="ana", **chosen))
    return made


async def reviewing(pilot: Any) -> ReviewScreen:
    app = await opened(pilot)
    await until(pilot, lambda: isinstance(app.screen, ReviewScreen) and app.screen.item is not None)
    assert isinstance(app.screen, ReviewScreen)
    return app.screen


@pytest.mark.parametrize("size", [(40, 12), (120, 40)])
async def test_an_item_is_done_when_all_that_is_required_is_said(
    workspace: Workspace, database: Database, size: tuple[int, int]
) -> None:
    furnish(database, attributes="helpful, fluent?", scale="0-2: bad, fair, good")
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=size) as pilot:
        screen = await reviewing(pilot)
        first = screen.item
        assert first is not None
        await until(pilot, lambda: "▸ helpful" in visible(app))
        if size[1] > 18:
            await until(pilot, lambda: "0 bad   1 fair   2 good" in visible(app))
        await pilot.press("2")
        await until(pilot, lambda: screen.pile.attribute == "overall")  # fluent may be left out
        await pilot.press("k", "1")
        await until(pilot, lambda: len(log.effective(database)) == 2)
        assert screen.item is first, "overall is not said yet"
        await pilot.press("3", "g")  # 3 is not on the scale
        await until(pilot, lambda: screen.item is not first)
        said = [(one.attribute, one.kind, one.value) for one in log.effective(database)]
        assert said == [("helpful", "score", 2), ("fluent", "score", 1), ("overall", "label", 1)]
        assert {one.guideline for one in log.effective(database)} == {"g1"}


async def test_an_item_that_is_half_said_is_there_again_after_a_kill(workspace: Workspace, database: Database) -> None:
    made = furnish(database, 1, attributes="helpful, honest")
    log.append(database, log.score(made[0].id, 4, "ana", attribute="helpful"))
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await reviewing(pilot)
        await until(pilot, lambda: "helpful 4/5" in visible(app) and "▸ honest" in visible(app))
        await pilot.press("3", "5")
        await until(pilot, lambda: screen.item is None)


async def test_what_was_judged_is_seen_again_and_changed(workspace: Workspace, database: Database) -> None:
    furnish(database, 3)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await reviewing(pilot)
        seen = []
        for key in ("1", "s"):
            seen.append(screen.item)
            await pilot.press(key)
            await until(pilot, lambda: screen.item is not seen[-1])
            # Its version is said once it is judged, and not where it will be asked again.
            shown = "· v0" if key == "1" else "saved ✓  skipped"
            await until(pilot, lambda shown=shown: shown in visible(app).splitlines()[-2])
            assert ("v0" in visible(app).splitlines()[-2]) is (key == "1")
        front = screen.item
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: "1 back" in visible(app))
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: "2 back" in visible(app) and "1/5" in visible(app) and "en · v0" in visible(app))
        await pilot.press("5")
        await until(pilot, lambda: "changed: 5 of 5" in visible(app) and "5/5" in visible(app))
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: "nothing was judged before" in visible(app))
        await pilot.press("right_square_bracket", "right_square_bracket")
        await until(pilot, lambda: screen.item is front and "back ·" not in visible(app))
        assert [one.value for one in log.effective(database) if one.kind == RatingKind.SCORE] == [5]
        assert len(log.history(database, seen[0].samples[0].id)) == 2, "nothing is ever changed: it is superseded"
        await pilot.press("u")
        await until(pilot, lambda: [one.value for one in log.effective(database) if one.value] == [1])


async def test_a_session_has_a_goal_a_summary_and_an_end(workspace: Workspace, database: Database) -> None:
    furnish(database, 5, goal=2, shares="en 50, sw 50")
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await reviewing(pilot)
        await pilot.press("s", "c", "d")
        await until(pilot, lambda: screen.progress.passed_over == 2 and "0/2" in visible(app))
        await pilot.press("4")
        await until(pilot, lambda: "1/2" in visible(app) and "sw  0/1" in visible(app))
        await pilot.press("f1", "f2", "g")
        await until(pilot, lambda: "2/2 ✓" in visible(app) and "the goal is reached: S sums up" in visible(app))
        await pilot.press("S")
        await until(pilot, lambda: "2 items of 2: the goal is reached ✓ · 2 passed over" in visible(app))
        shown = visible(app)
        assert "score" in shown
        assert "label" in shown
        assert "taken back 0×" in shown
        await pilot.press("n")
        await until(pilot, lambda: "0/2" in visible(app) and screen.progress.items == 0)
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: "1 back" in visible(app))


async def test_markdown_is_shown_on_a_key_and_plain_text_first(workspace: Workspace, database: Database) -> None:
    furnish(database, 1)
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await reviewing(pilot)
        await until(pilot, lambda: "**bold** words" in visible(app))
        await pilot.press("v")
        await until(pilot, lambda: "bold words" in visible(app) and "**" not in visible(app))
        await pilot.press("v")
        await until(pilot, lambda: "**bold** words" in visible(app))


async def test_answers_on_prompt_are_tagged_and_what_was_tagged_is_there_again(
    workspace: Workspace, database: Database
) -> None:
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        served_base(database)
        ready(app)
        await type_text(pilot, "Why?")
        await pilot.press("enter")
        await until(pilot, lambda: app.conversation.current is not None)
        answer(app, "No.")
        await until(pilot, lambda: bool(samples.recent(database)))
        await pilot.press("escape", "t", "v", "2", "w")
        await until(pilot, lambda: "violence ● 2 serious" in visible(app) and "wrong language ● 1" in visible(app))
        await pilot.press("enter")
        await until(pilot, lambda: "saved ✓  tagged violence 2, wrong language 1" in visible(app))
        await pilot.press("t", "w", "escape", "t")
        await until(pilot, lambda: "wrong language ● 1" in visible(app))
        await pilot.press("w", "t")
        await until(
            pilot, lambda: [one.tags for one in log.effective(database)] == [{"harm": "violence", "severity": 2}]
        )


def test_a_ranking_is_typed_letter_by_letter() -> None:
    order = Order().put("b").put("b").put("a").level().put("c")
    assert (order.tiers, order.words) == (("b", "ac"), "b > a = c")
    assert order.without_last().words == "b > a ="
    assert order.without_last().without_last().words == "b > a"
    assert Order().level().put("a").tiers == ("a",)


@pytest.mark.parametrize(
    ("typed", "values", "keys"),
    [("1-5", (1, 5), {1: 1, 5: 5, 0: None}), ("0-3", (0, 3), {0: 0, 4: None}), ("1-10", (1, 10), {0: 10, 9: 9}),
     ("-2..2: a,b,c,d,e", (-2, 2), {1: -2, 5: 2, 6: None})],
)  # fmt: skip
def test_every_value_of_a_scale_has_a_digit(typed: str, values: tuple[int, int], keys: dict[int, int | None]) -> None:
    scale = guidelines.scale(typed)
    assert (scale.low, scale.high) == values
    assert {digit: scale.value_of(digit) for digit in keys} == keys
    assert guidelines.scale(scale.written) == scale
    assert len({scale.key_of(value) for value in scale.levels}) == len(scale.levels)


@pytest.mark.parametrize("typed", ["5-1", "0-10", "1", "1-3: only, two", "good"])
def test_a_scale_that_cannot_be_is_refused(typed: str) -> None:
    with pytest.raises(ValueError, match="want"):
        guidelines.scale(typed)


def test_attributes_and_shares_are_read_as_they_are_typed(database: Database) -> None:
    found = guidelines.attributes("Helpful, fluent?")
    assert guidelines.written(found) == "helpful, fluent?, overall"
    assert guidelines.attributes(guidelines.written(found)) == found
    for wrong in ("a, a", "overall?", "what!"):
        with pytest.raises(ValueError, match=r"want|once|overall"):
            guidelines.attributes(wrong)
    assert shares_of("en 30, sw 10") == {"en": 0.75, "sw": 0.25}
    asked = guidelines.Guideline(attributes=found)
    assert guidelines.version_of(database, guidelines.Guideline()) == ""
    names = [guidelines.version_of(database, one) for one in (asked, guidelines.Guideline(text="B"), asked)]
    assert names == ["g1", "g2", "g1"]
    assert guidelines.versions(database)[0].guideline == asked
    told = json.loads(run("settings", "--guidelines", "--json", "--workspace", str(database.path.parent)))
    assert [one["name"] for one in told] == ["g1", "g2"]
    assert told[0]["guideline"]["attributes"][1] == {"name": "fluent", "required": False}


def run(*arguments: str) -> str:
    from click.testing import CliRunner

    from workbench.cli import cli

    return CliRunner().invoke(cli, list(arguments), catch_exceptions=False).stdout


def test_what_is_said_of_an_answer_is_told_once_and_of_which_attribute():
    one = samples.new("prompt", "An answer.", version="v0", finish_reason="eos")
    said = [
        log.score(one.id, 4, "root", attribute="helpful"), log.score(one.id, 2, "root", attribute="fluent"),
        *log.best_of(one.id, [one.id, "b", "c", "d"], "root"), *log.pass_over([one.id], "root"),
    ]  # fmt: skip
    assert verdict(said, one) == "helpful 4/5 fluent 2/5 preferred ×3 skipped"
