"""A workspace with ratings to learn from, for tests that train on a tiny model."""

from __future__ import annotations

import random
from pathlib import Path

from tiny_model import CORPUS

from storage import prompts, ratings, samples
from storage.database import Database
from storage.records import Split

LANGUAGES = ("en", "es", "fr", "de", "pt", "zh", "ar", "hi", "ja", "sw")
# Small and quick; the same numbers on one thread.
QUICK = (
    "--threads", "1", "--dtype", "fp32", "--device", "cpu", "--batch", "8", "--answers", "2", "--minibatch", "4",
    "--max-new-tokens", "8", "--rank", "4", "--reward-rank", "4", "--reward-epochs", "1", "--gate-prompts", "6",
)  # fmt: skip


def fill(database: Database, count: int = 24) -> None:
    """Prompts in ten languages with one scored answer each; longer answers score higher. Every sixth is held out."""
    chosen = random.Random(0)
    for number in range(count):
        place = number % len(LANGUAGES)
        words = CORPUS[place].split()
        split = Split.HELD_OUT if number % 6 == 5 else Split.TRAIN
        prompt = prompts.add(database, f"{words[0]} {number}", language=LANGUAGES[place], split=split)
        length = chosen.randint(1, 5)
        answer = samples.new(prompt.id, " ".join(chosen.choices(words, k=length)))
        samples.add(database, [answer])
        ratings.append(database, ratings.score(answer.id, length, "amina"))


def run_options(model: Path, *more: str) -> list[str]:
    """Arguments of `trainer run` for a quick run."""
    return ["run", "--model", str(model), *QUICK, *more]
