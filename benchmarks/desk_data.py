"""A large workspace for `benchmarks.desk`, made by bulk SQL at schema 3, so that every later schema migrates a copy.

Six raters judge answers to prompts in ten languages: scores, labels, pairs, edits, tags, notes and skips, of which some
replace earlier ones, some are taken back, and a few of those brought back. Everything is `simulated`. Which events
count is kept as it goes and written to `rating_effects`. One paused job has 2,000 steps of curves in ten languages.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from pathlib import Path
from typing import Any

from storage.schema.migrations import MIGRATIONS
from storage.splits import DEFAULT_SHARE, fraction
from workbench.demo.languages import prompts

SCHEMA = 3
RATER = "amina"  # who sits at the desk
RATERS = (RATER, "bela", "chidi", "dana", "emeka", "fatou")
SHARES = {"en": 28, "es": 14, "fr": 12, "de": 10, "pt": 9, "zh": 9, "ar": 6, "hi": 5, "ja": 4, "sw": 3}
KINDS = {"score": 560, "pair": 230, "label": 120, "skip": 25, "edit": 20, "tags": 15, "undo": 15, "note": 10,
         "cannot-judge": 5}  # fmt: skip
REPLACING = ("score", "label", "pair", "tags")
REDONE = 0.2  # of what is taken back
UNSEEN = 2000  # of the newest answers, which she at the desk has not rated
VERSIONS, ANSWERS_A_PROMPT, JOB_STEPS = 4, 4, 2000
Said = tuple[str, str, str, str | None]
BEGAN = datetime(2026, 1, 5, tzinfo=UTC)
BY_LANGUAGE = ("objective/scores", "objective/kl", "support/outside", "response/length")
IN_ALL = ("objective/entropy", "objective/kl_coef", "policy/clipfrac", "policy/approxkl", "policy/sampler_gap",
          "loss/policy", "loss/value", "value/explained_variance", "throughput/tokens_per_second",
          "memory/peak")  # fmt: skip


def make(path: Path, ratings: int, answers: int, seed: int = 0) -> Path:
    """Write the database, whole or not at all; returns its path."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(partial, isolation_level=None)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.create_function("text_fraction", 1, fraction, deterministic=True)
    for step in MIGRATIONS[:SCHEMA]:
        database.executescript(step.sql)
    database.execute(f"PRAGMA user_version = {SCHEMA}")
    database.execute("BEGIN")
    _Making(database, random.Random(seed), ratings, answers).all()
    database.execute("COMMIT")
    database.execute("PRAGMA journal_mode = DELETE")
    database.close()
    return partial.replace(path)


def words() -> dict[str, list[str]]:
    """Pieces of the demo's prompts by language: words, or two characters each where none stand between spaces."""
    found: dict[str, list[str]] = {language: [] for language in SHARES}
    for asked in prompts():
        if asked.language in found:
            text, apart = asked.text, asked.language not in ("zh", "ja")
            found[asked.language] += text.split() if apart else [text[n : n + 2] for n in range(0, len(text) - 1, 2)]
    return found


class _Making:
    """The rows, table by table."""

    def __init__(self, database: sqlite3.Connection, chance: random.Random, ratings: int, answers: int) -> None:
        self.database = database
        self.random = chance
        self.ratings = ratings
        self.words = words()
        self.moment = BEGAN
        prompts = -(-answers // ANSWERS_A_PROMPT)
        self.languages = chance.choices(list(SHARES), SHARES.values(), k=prompts)
        self.prompts: list[str] = []
        self.answers: list[str] = []  # of the prompt `place // ANSWERS_A_PROMPT`
        self.count = answers

    def all(self) -> None:
        self._versions()
        self._insert("prompts", self._prompt_rows())
        self._insert("samples", self._answer_rows())
        effects = bytearray(self.ratings)
        ids: list[str] = []
        self._insert("ratings", self._rating_rows(ids, effects))
        self._insert("rating_effects", zip(ids, effects, strict=True))
        self._job()

    def _insert(self, table: str, rows: Any) -> None:
        rows = iter(rows)
        while some := list(islice(rows, 10_000)):
            marks = ", ".join("?" * len(some[0]))
            self.database.executemany(f"INSERT INTO {table} VALUES ({marks})", some)

    def _next(self, seconds: float) -> tuple[str, str]:
        """A key and a moment, some time after the last."""
        self.moment += timedelta(seconds=self.random.uniform(0.1, 2) * seconds)
        milliseconds = int(self.moment.timestamp() * 1000)
        low = self.random.getrandbits(62)
        whole = f"{milliseconds << 80 | 7 << 76 | self.random.getrandbits(12) << 64 | 2 << 62 | low:032x}"
        key = "-".join((whole[:8], whole[8:12], whole[12:16], whole[16:20], whole[20:]))
        return key, self.moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _text(self, language: str, low: int, high: int) -> str:
        said = self.random.choices(self.words[language], k=self.random.randint(low, high))
        return ("" if language in ("zh", "ja") else " ").join(said)

    def _versions(self) -> None:
        for number in range(VERSIONS):
            key, at = self._next(60)
            trained = number > 0
            self.database.execute(
                "INSERT INTO versions VALUES (?,?,?,?,NULL,?,?,?,'tiny',?,'[]','{}','published',?)",
                (key, f"v{number}", "lora" if trained else "base", f"v{number - 1}" if trained else None,
                 JOB_STEPS if trained else None, f"versions/v{number}.safetensors" if trained else None,
                 "0" * 64 if trained else None, "0" * 64, at),
            )  # fmt: skip

    def _prompt_rows(self) -> Iterator[tuple[Any, ...]]:
        for number, language in enumerate(self.languages):
            key, at = self._next(20)
            text = f"{self._text(language, 5, 12)} ({number})"
            split = "held-out" if fraction(text) < DEFAULT_SHARE else "train"
            self.prompts.append(key)
            yield key, text, text, "", language, "", split, "typed", at

    def _answer_rows(self) -> Iterator[tuple[Any, ...]]:
        sampling = json.dumps({"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 128,
                               "repetition_penalty": 1.0})  # fmt: skip
        group = ""
        for number in range(self.count):
            prompt, position = divmod(number, ANSWERS_A_PROMPT)
            key, at = self._next(20)
            group = key if position == 0 else group
            version = f"v{number * VERSIONS // self.count}"
            text = f"[{number}] {self._text(self.languages[prompt], 8, 40)}"
            tokens = json.dumps([self.random.randrange(49152) for _ in range(len(text) // 4)])
            self.answers.append(key)
            yield (key, self.prompts[prompt], version, text, tokens, "eos", sampling, number, group, position, "model",
                   at)  # fmt: skip

    def _rating_rows(self, ids: list[str], effects: bytearray) -> Iterator[tuple[Any, ...]]:
        """Rows of `ratings`; notes the key of each in `ids`, and in `effects` whether it counts today."""
        newest: dict[Said, int] = {}  # what counts, by who says what about which answers
        said: dict[int, Said] = {}
        earlier: dict[int, int] = {}  # what a rating replaced
        last: dict[str, int] = {}  # of each rater, where it may be taken back
        back: dict[str, tuple[int, int]] = {}  # of each rater, the undo and what it took back, until the next rating
        kinds, weights = list(KINDS), list(KINDS.values())

        def turn(number: int, on: bool) -> None:
            """A rating counts again or no more, and what it had replaced the other way round."""
            effects[number] = on
            before = earlier.get(number)
            if before is not None:
                effects[before] = not on
            if on or before is not None:
                newest[said[number]] = number if on else before  # type: ignore[assignment]
            else:
                newest.pop(said[number], None)

        for number in range(self.ratings):
            key, at = self._next(15)
            ids.append(key)
            effects[number] = 1
            rater = self.random.choice(RATERS)
            kind = self.random.choices(kinds, weights)[0]
            if rater in back and self.random.random() < REDONE:
                undo, taken = back.pop(rater)
                effects[undo] = 0
                turn(taken, True)
                last[rater] = taken
                yield self._row(key, at, rater, "redo", supersedes=ids[undo])
                continue
            if kind == "undo" and rater in last:
                taken = last.pop(rater)
                back[rater] = number, taken
                turn(taken, False)
                yield self._row(key, at, rater, "undo", supersedes=ids[taken])
                continue
            kind = "score" if kind == "undo" else kind
            row = self._judgement(rater, kind)
            said[number] = (rater, kind, row["sample_id"], row.get("other_sample_id"))
            if kind in REPLACING and said[number] in newest:
                earlier[number] = newest[said[number]]
                row["supersedes"] = ids[earlier[number]]
            turn(number, True)
            last[rater] = number
            back.pop(rater, None)
            yield self._row(key, at, rater, kind, **row)

    def _judgement(self, rater: str, kind: str) -> dict[str, Any]:
        """What one event says, of which answer or pair of answers."""
        place = self.random.randrange(self.count - (UNSEEN if rater == RATER else 0))
        chance = self.random.random()
        row: dict[str, Any] = {"sample_id": self.answers[place], "duration_ms": int(1000 + 9000 * chance)}
        match kind:
            case "score":
                row |= {"value": float(self.random.randint(1, 5)), "scale_low": 1.0, "scale_high": 5.0}
            case "label":
                row["value"] = float(chance < 0.6)
            case "pair":
                first = place - place % ANSWERS_A_PROMPT
                other = first + (place - first + 1 + int(chance * (ANSWERS_A_PROMPT - 1))) % ANSWERS_A_PROMPT
                a, b = sorted((place, min(other, self.count - 1)))
                if a == b:
                    a = b - 1
                row |= {"sample_id": self.answers[a], "other_sample_id": self.answers[b], "blind": 1,
                        "choice": self.random.choices(("a", "b", "tie", "both-bad"), (40, 40, 15, 5))[0],
                        "shown_order": self.random.choice(("ab", "ba"))}  # fmt: skip
            case "edit" | "note":
                row["text"] = self._text(self.languages[place // ANSWERS_A_PROMPT], 8, 30)
            case "tags":
                row["tags"] = json.dumps({"harm": "medical", "severity": self.random.randint(0, 3)})
        return row

    @staticmethod
    def _row(key: str, at: str, rater: str, kind: str, **more: Any) -> tuple[Any, ...]:
        get = more.get
        return (key, at, rater, kind, get("sample_id"), get("other_sample_id"), get("value"), get("choice"),
                get("text"), get("tags"), "overall", get("shown_order"), get("blind", 0), get("duration_ms"),
                "simulated", get("scale_low"), get("scale_high"), "", get("supersedes"))  # fmt: skip

    def _job(self) -> None:
        """A paused job with curves."""
        key, at = self._next(60)
        self.database.execute(
            """INSERT INTO jobs (id, kind, config, state, stage, step, steps, attempts, created_at, started_at)
               VALUES (?, 'ppo', '{}', 'paused', 'policy', ?, ?, 1, ?, ?)""",
            (key, JOB_STEPS, JOB_STEPS + 500, at, at),
        )
        self._insert("metrics", self._figures(key))
        self._insert("rollouts", self._rollouts(key))

    def _figures(self, job: str) -> Iterator[tuple[Any, ...]]:
        curves = [(name, language) for name in BY_LANGUAGE for language in (None, *SHARES)]
        curves += [(name, None) for name in IN_ALL]
        values = dict.fromkeys(curves, 1.0)
        for step in range(1, JOB_STEPS + 1):
            _, at = self._next(5)
            for name, language in curves:
                values[name, language] += self.random.gauss(0, 0.02)
                yield job, name, language, step, values[name, language], at

    def _rollouts(self, job: str) -> Iterator[tuple[Any, ...]]:
        for step, language in zip(count(1), list(SHARES) * 20, strict=False):
            key, _ = self._next(0.1)
            text = self._text(language, 8, 30)
            yield key, job, step * 10, self._text(language, 5, 9), language, text, self.random.gauss(0, 1), 0.1, 30
