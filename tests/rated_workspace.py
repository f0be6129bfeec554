"""A workspace with ratings to learn from, for tests that train on a tiny model."""

from __future__ import annotations

import random
from pathlib import Path

from tiny_model import CORPUS

from storage import conversations, samples
from storage.database import Database
from storage.feedback import log
from storage.records import Split

LANGUAGES = ("en", "es", "fr", "de", "pt", "zh", "ar", "hi", "ja", "sw")
# Small and quick; the same numbers on one thread.
QUICK = (
    "--threads", "1", "--dtype", "fp32", "--device", "cpu", "--batch", "8", "--answers", "2", "--minibatch", "4",
    "--max-new-tokens", "8", "--rank", "4", "--reward-rank", "4", "--reward-epochs", "1", "--gate-prompts", "6",
)  # fmt: skip
UNWATCHED = 7  # rated held-out answers, which are too few for the watch
# No gate asks more of a few rounds than they can give; the judge has to know what it judges all the same.
LENIENT = ("--gate-min-gain=-100", "--gate-max-outside", "1")


def fill(database: Database, count: int = 72) -> None:
    """Prompts in ten languages with one scored answer each; what an answer says decides its score, whatever was asked,
    so that it can be foretold. Every sixth prompt is held out, of which too few are rated for the watch to judge by."""
    chosen = random.Random(0)
    for number in range(count):
        place = number % len(LANGUAGES)
        split = Split.HELD_OUT if number % 6 == 5 else Split.TRAIN
        prompt = conversations.add(
            database, f"{CORPUS[place].split()[0]} {number}", language=LANGUAGES[place], split=split
        )
        score = chosen.randint(1, 5)
        answer = samples.new(prompt.id, " ".join(CORPUS[score - 1].split()[: 2 + score]))
        samples.add(database, [answer])
        if split is Split.TRAIN or number < 6 * UNWATCHED:
            log.append(database, log.score(answer.id, score, "amina"))


def run_options(model: Path, *more: str) -> list[str]:
    """Arguments of `trainer run` for a quick run."""
    return ["run", "--model", str(model), *QUICK, *more]
