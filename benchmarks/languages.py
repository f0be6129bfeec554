"""What models make of twelve languages: how many tokens their words cost, and what becomes of their answers.

    python -m benchmarks.languages --model smollm2 --model gemma
    python -m benchmarks.languages --model smollm2 --tokens-only
    python -m benchmarks.languages --model gemma --answers-of demo-workspace

The texts are the prompt packs that come with the program, each written in its own language. Tokens are told by the
byte and by the word; by the character where words are not separated. Answers are sampled at temperature 1 to the packs'
prompts of dialogue, summary and creative writing, and judged as `trainer evaluate` judges them; with --answers-of those
are judged that the base model gave in a workspace, but for translations. Models are measured as they come.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import environment, finish, parser, prepare
from storage import packs
from storage.database import read_database
from storage.languages import spoken
from storage.records import Sampling
from storage.workspace import Workspace
from trainer.evaluation.answers import judged
from trainer.evaluation.figures import figures
from trainer.evaluation.items import UNSPACED, Outcome, Question
from trainer.evaluation.suites import languages, read
from trainer.evaluation.trying import attempt

ASKED = ("dialogue", "summary", "creative")  # whose answers are in the language of the question
FIGURES = ("answered", "refused", "incoherent", "wrong_language", "cut")
MAX_NEW_TOKENS = 64


def main() -> None:
    options = _options()
    workspace = prepare(options)
    rows = [row for model in options.model or ["smollm2"] for row in _measured(workspace, model, options)]
    result = {"environment": environment(), "max_new_tokens": MAX_NEW_TOKENS, "rows": rows}
    head = ("model", "language", "bytes/token", "tokens/unit", "unit", "n", *FIGURES[:1], "interval", *FIGURES[1:])
    finish("languages", result, head, [_cells(row) for row in rows], options)


def _options() -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--model", action="append", help="may be given several times (default: smollm2)")
    made.add_argument("--answers-of", type=Path, metavar="DIR", help="judge the answers of v0 in this workspace")
    made.add_argument("--tokens-only", action="store_true", help="measure the tokenizer alone")
    return made.parse_args()


def tokens_of(tokenizer: Any, texts: list[str], language: str) -> dict[str, Any]:
    """How many bytes a token holds, and how many tokens a word costs (a character, where words are not separated).

    Args:
        tokenizer: has `encode_response(text, end=False)`, which returns token ids.
    """
    count = sum(len(tokenizer.encode_response(text, end=False)) for text in texts)
    unspaced = spoken(language) in UNSPACED
    units = sum(len("".join(text.split())) if unspaced else len(text.split()) for text in texts)
    return {
        "bytes_per_token": sum(len(text.encode()) for text in texts) / count,
        "tokens_per_unit": count / units,
        "unit": "character" if unspaced else "word",
    }


def refusals_of(language: str) -> tuple[str, ...]:
    """The refusal phrases of a language and of English."""
    return tuple({*read("en").refusals, *(read(language).refusals if language in languages() else ())})


def questions(language: str) -> list[Question]:
    """The pack's prompts that are to be answered in its own language."""
    return [
        Question("packs", language, f"{pack.task} {place}", text, language, refusals_of(language))
        for pack in packs.every()
        if pack.language == language and pack.task in ASKED
        for place, text in enumerate(pack.prompts)
    ]


def answers_of(place: Path) -> dict[str, list[Outcome]]:
    """What became of the answers of v0 that a workspace holds, by language; translations are left out, as nothing says
    which language they should be in."""
    found: dict[str, list[Outcome]] = {}
    with read_database(Workspace(place.expanduser().absolute())) as database:
        for row in database.rows(
            """SELECT language, samples.text, finish_reason FROM samples JOIN prompts ON prompts.id = prompt_id
               WHERE samples.version = 'v0' AND task != 'translation' ORDER BY samples.sequence"""
        ):
            language, own = row["language"], found.setdefault(row["language"], [])
            asked = Question("packs", language, str(len(own)), "", language, refusals_of(language))
            ended = row["finish_reason"] == "eos"
            own.append(Outcome(asked, judged(row["text"], language, asked.refusals, ended=ended), row["text"]))
    return found


def told(outcomes: Sequence[Outcome], language: str) -> dict[str, Any]:
    """How many answers there are, and each figure with its 95% interval."""
    found = {one.metric: one.interval for one in figures(outcomes) if one.language == language}
    return {"n": len(outcomes)} | {name: [found[name].mean, found[name].low, found[name].high] for name in FIGURES}


def _measured(workspace: Workspace, model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    from trainer.policy import devices, models
    from trainer.policy.chat import ChatTokenizer
    from trainer.policy.decoding import Decoder

    folder = models.resolve(model, workspace)
    tokenizer = ChatTokenizer.load(folder.path)
    sampled = not options.tokens_only and options.answers_of is None
    decoder = Decoder.load(folder.path, *devices.choose("auto", "auto")) if sampled else None
    stored = answers_of(options.answers_of) if options.answers_of else {}
    rows = []
    for language in dict.fromkeys(pack.language for pack in packs.every()):
        texts = [text for pack in packs.every() if pack.language == language for text in pack.prompts]
        row: dict[str, Any] = {"model": model, "language": language, **tokens_of(tokenizer, texts, language)}
        began = time.monotonic()
        if decoder is not None:
            sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS)
            row |= told(attempt(decoder, tokenizer, questions(language), sampling), language)
            row["seconds"] = round(time.monotonic() - began, 1)
        elif language in stored:
            row |= told(stored[language], language)
        rows.append(row)
    return rows


def _cells(row: dict[str, Any]) -> list[Any]:
    mean, low, high = row.get(FIGURES[0], (None, None, None))
    return [
        row["model"], row["language"], row["bytes_per_token"], row["tokens_per_unit"], row["unit"], row.get("n"), mean,
        "" if mean is None else f"[{low:.2f}, {high:.2f}]", *(row.get(name, [None])[0] for name in FIGURES[1:]),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
