"""A session of judging, by keys alone: three hundred judgements of every kind in ten languages, each row right; an end
and a start in the middle of it; and all of them taken back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from driving import opened, until, visible

from storage import conversations, samples, settings, versions
from storage.database import Database
from storage.feedback import log, progress
from storage.records import Choice, Rating, RatingKind
from storage.workspace import Workspace
from workbench.screens.review.screen import ReviewScreen
from workbench.shell.app import WorkbenchApp
from workbench.shell.session import Session, save

LANGUAGES = ("en", "es", "fr", "de", "pt", "zh", "ar", "hi", "ja", "sw")
RATER = "ana"
JUDGEMENTS = 300
FIRST = 150  # before the app is closed
SCALE = "0-3: useless, weak, good, perfect"


def furnish(database: Database) -> None:
    """Answers for singles, pairs of one version and of two, and rankings, in every language."""
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    newer = versions.add_candidate(database, base=base, parent="v0", file="v1", sha256="1" * 64).name
    for language in LANGUAGES:
        for kind, count in {"alone": 8, "two": 3, "old and new": 3, "three": 2, "four": 1}.items():
            for n in range(count):
                prompt = conversations.add(database, f"{kind} {n} in {language}?", language=language)
                many = {"alone": 1, "three": 3, "four": 4}.get(kind, 2)
                of = ("v0", newer) if kind == "old and new" else (newer,) * many
                made = [
                    samples.new(prompt.id, f"**{place}** {kind} {n} {language}", version=version, finish_reason="eos")
                    for place, version in enumerate(of)
                ]
                samples.add(database, made)
    chosen = Session(screen="review", rater=RATER, scale=SCALE, rankings=True, goal=JUDGEMENTS, shares="en 50, sw 50")
    save(database, chosen)


Row = tuple[Any, ...]


def row(kind: RatingKind, a: str, b: str | None = None, value: Any = None, attribute: str = "overall") -> Row:
    return (kind, a, b, value, attribute)


def stored(rating: Rating) -> Row:
    value = rating.value if rating.value is not None else rating.choice or rating.text or rating.tags
    return row(rating.kind, str(rating.sample_id), rating.other_sample_id, value, rating.attribute)


class Hand:
    """Judges what is in front, each time in another way, and knows the rows that must follow."""

    def __init__(self) -> None:
        self.turn: Counter[str] = Counter()
        self.rows: list[list[Row]] = []  # an act each

    def judge(self, screen: ReviewScreen) -> list[str]:
        """The keys for the item in front; its rows are noted."""
        item = screen.item
        assert item is not None
        turn = self.turn[item.kind]
        self.turn[item.kind] += 1
        keys: list[str] = []
        for pressed, rows in getattr(self, item.kind)(item, turn, screen.pile.attribute):
            keys += pressed
            self.rows.append(rows)
        return keys

    def single(self, item: Any, turn: int, attribute: str) -> Iterator[tuple[list[str], list[Row]]]:
        key = item.samples[0].id
        match turn % 10:
            case 0 | 1 | 2 | 3 as n:
                yield [str(n)], [row(RatingKind.SCORE, key, None, n, attribute)]
            case 4:
                yield ["g"], [row(RatingKind.LABEL, key, None, 1, attribute)]
            case 5:
                yield ["x"], [row(RatingKind.LABEL, key, None, 0, attribute)]
            case 6:
                tags = {"harm": "medical", "severity": 3, "bias": 2}
                yield ["t", "m", "3", "b", "2", "c", "c", "enter"], [row(RatingKind.TAGS, key, None, tags)]
                yield ["2"], [row(RatingKind.SCORE, key, None, 2, attribute)]
            case 7:
                yield ["s"], [row(RatingKind.SKIP, key)]
            case 8:
                yield ["c", "d"], [row(RatingKind.CANNOT_JUDGE, key, None, "domain")]
            case 9:
                yield ["n", "h", "m", "ctrl+j"], [row(RatingKind.NOTE, key, None, "hm")]
                yield ["e", "exclamation_mark", "ctrl+j"], [row(RatingKind.EDIT, key, None, item.samples[0].text + "!")]

    def pair(self, item: Any, turn: int, attribute: str) -> Iterator[tuple[list[str], list[Row]]]:
        a, b = item.samples
        left = Choice.B if item.shown_order == "ba" else Choice.A
        right = Choice.A if item.shown_order == "ba" else Choice.B
        pressed = ("a", "b", "equals_sign", "x")[turn % 4]
        choice = (left, right, Choice.TIE, Choice.BOTH_BAD)[turn % 4]
        yield [pressed], [row(RatingKind.PAIR, a.id, b.id, choice, attribute)]

    def ranking(self, item: Any, turn: int, attribute: str) -> Iterator[tuple[list[str], list[Row]]]:
        shown = [sample.id for sample in item.shown]
        if turn % 4 == 3:
            pairs = [(a, b) for n, a in enumerate(shown) for b in shown[n + 1 :]]
            yield ["x"], [row(RatingKind.PAIR, a, b, Choice.BOTH_BAD, attribute) for a, b in pairs]
            return
        order = [shown[1], shown[0], *shown[2:]]  # b, a, and the rest; b and a equal every other time
        equal = turn % 2 == 1
        pairs = [(a, b) for n, a in enumerate(order) for b in order[n + 1 :]]
        choices = [Choice.TIE if equal and n == 0 else Choice.A for n in range(len(pairs))]
        yield (
            ["c", "backspace", "b", *["equals_sign"] * equal, "a", *"cd"[: len(shown) - 2]],
            [row(RatingKind.PAIR, a, b, choice, attribute) for (a, b), choice in zip(pairs, choices, strict=True)],
        )


async def judging(pilot: Any) -> ReviewScreen:
    app = await opened(pilot)
    await until(pilot, lambda: isinstance(app.screen, ReviewScreen) and app.screen.item is not None)
    assert isinstance(app.screen, ReviewScreen)
    return app.screen


async def judge_until(pilot: Any, screen: ReviewScreen, hand: Hand, acts: int) -> None:
    while len(hand.rows) < acts:
        await until(pilot, lambda: screen.item is not None)
        before = screen.item
        for key in hand.judge(screen):
            await pilot.press(key)
        await until(pilot, lambda before=before: screen.item is not before)


def told(database: Database) -> list[list[Row]]:
    """The acts that count, in their order."""
    acts: dict[str, list[Row]] = {}
    for rating in log.effective(database, rater=RATER):
        acts.setdefault(rating.gesture or rating.id, []).append(stored(rating))
    return list(acts.values())


async def test_three_hundred_judgements_of_every_kind_by_keys_alone(workspace: Workspace, database: Database) -> None:
    furnish(database)
    hand = Hand()
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await judging(pilot)
        await judge_until(pilot, screen, hand, FIRST)
        front = screen.item
    assert told(database) == hand.rows
    assert front is not None

    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await judging(pilot)
        assert screen.item is not None
        assert (screen.item.keys, screen.item.shown_order) == (front.keys, front.shown_order), "exactly where one was"
        await until(pilot, lambda: screen.progress.items and f"{screen.progress.items + 1} of " in visible(app))
        await judge_until(pilot, screen, hand, JUDGEMENTS)
        await pilot.press("i")
        await until(pilot, lambda: "of 300" in visible(app) and "ranking" in visible(app))
        await pilot.press("enter")
        assert told(database) == hand.rows
        assert {kind for act in hand.rows for kind, *_ in act} >= set(RatingKind) - {
            RatingKind.OUTCOME, RatingKind.MISTAKE, RatingKind.UNDO, RatingKind.REDO,
        }  # fmt: skip
        found = progress.since(database, RATER, 0)
        assert found.items == len(screen.done) + screen.judged_before
        assert set(found.languages) == set(LANGUAGES)
        ratings = log.effective(database, rater=RATER)
        assert {rating.guideline for rating in ratings} == {"g1"}
        assert settings.get(database, "guidelines")[0]["guideline"]["scale"]["anchors"][3] == "perfect"
        scores = [rating for rating in ratings if rating.kind == RatingKind.SCORE]
        assert {(rating.scale_low, rating.scale_high) for rating in scores} == {(0, 3)}
        for _ in range(len(hand.rows) - FIRST):
            await pilot.press("u")
        await until(pilot, lambda: told(database) == hand.rows[:FIRST])

    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await judging(pilot)
        for _ in range(FIRST):
            await pilot.press("u")
        await until(pilot, lambda: told(database) == [])
        await pilot.press("u")
        await until(pilot, lambda: "there is nothing to take back" in visible(app))
        for _ in range(3):
            await pilot.press("ctrl+r")
        await until(pilot, lambda: told(database) == hand.rows[:3])
