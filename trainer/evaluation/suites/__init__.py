"""Suites: what measures bias, over-refusal, local norms and tasks, each language written by itself in TAG.toml.

No text here is ever learned from: training refuses prompts that are among them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources

import msgspec

from storage.errors import UsageError
from storage.forms import folded, text_key
from storage.languages import OFFERED
from storage.records import Prompt
from trainer.evaluation.items import Item, Options, Question, gap, rotated
from trainer.leaks import sayings

# Figures of a choice that leans where nothing says so: towards what a prejudice expects, the other, or nowhere.
LEANING = (1.0, -1.0, 0.0)
STEREOTYPED: dict[str, tuple[float, ...]] = {"stereotyped": (1.0, 0.0)}
UNKIND: dict[str, tuple[float, ...]] = {"unkind": (1.0, 0.0)}
SUITES = {
    "bias": "who did it? with nothing said, and with the answer said",
    "swaps": "two sentences that differ in the group alone",
    "refusal": "harmless questions that sound harmful",
    "norms": "what is done and said here, and what elsewhere",
    "toxicity": "a remark that is to be ended, unkindly or not",
    "tasks": "dialogue, translation, summary, sentiment and creative writing",
}
FREE_TASKS = ("dialogue", "summary", "creative")


class Bias(msgspec.Struct, forbid_unknown_fields=True):
    """A question about who of two it was. The context does not say; `for_expected` says that it was the one whom a
    prejudice expects, and `for_other` that it was the other."""

    about: str
    context: str
    question: str
    expected: str
    other: str
    for_expected: str
    for_other: str


class Swap(msgspec.Struct, forbid_unknown_fields=True):
    """A sentence as a prejudice has it, and the same of another group."""

    about: str
    stereotyped: str
    swapped: str


class Norm(msgspec.Struct, forbid_unknown_fields=True):
    """A question about what is customary where the language is spoken, with the fitting answer and others."""

    question: str
    fitting: str
    others: list[str]


class Remark(msgspec.Struct, forbid_unknown_fields=True):
    """The beginning of a remark with an unkind and a civil end."""

    start: str
    unkind: str
    civil: str


class Translation(msgspec.Struct, forbid_unknown_fields=True):
    prompt: str
    into: str


class Sentiment(msgspec.Struct, forbid_unknown_fields=True):
    """A text to be called one of the file's `sentiments`; `label` is the place of the right one."""

    text: str
    label: int


class Tasks(msgspec.Struct, forbid_unknown_fields=True):
    dialogue: list[str]
    translation: list[Translation]
    summary: list[str]
    sentiment: list[Sentiment]
    creative: list[str]


class Suites(msgspec.Struct, forbid_unknown_fields=True):
    """All suites of a language.

    Attributes:
        choose: asks for one of the options that follow. unknown: the option that nobody can tell.
        feels: asks for the feeling of the text that follows. sentiments: positive, negative and neutral.
        refusals: phrases of which a refusal has one at its beginning.
    """

    choose: str
    unknown: str
    feels: str
    sentiments: list[str]
    refusals: list[str]
    bias: list[Bias]
    swaps: list[Swap]
    refusal: list[str]
    norms: list[Norm]
    toxicity: list[Remark]
    tasks: Tasks


@cache
def languages() -> tuple[str, ...]:
    """Those that there are suites in, in the order in which the app offers them."""
    found = {file.name.removesuffix(".toml") for file in resources.files(__name__).iterdir()} & set(OFFERED)
    return tuple(sorted(found, key=OFFERED.index))


@cache
def read(language: str) -> Suites:
    """The suites of a language."""
    text = (resources.files(__name__) / f"{language}.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), Suites)


@cache
def every() -> tuple[Item, ...]:
    """All items of all suites and languages."""
    return tuple(item for language in languages() for item in _items(language, read(language)))


def chosen(suites: Sequence[str] = (), tags: Sequence[str] = ()) -> list[Item]:
    """The items of some suites in some languages; of all where none are named.

    Raises:
        UsageError: one of them is not there.
    """
    for given, known, what in ((suites, tuple(SUITES), "suite"), (tags, languages(), "suites in")):
        unknown = [one for one in given if one not in known]
        if unknown:
            raise UsageError(f"there is no {what} {unknown[0]}" if what == "suite" else f"there are no {what} "
                             f"{unknown[0]}", f"there are: {', '.join(known)}")  # fmt: skip
    return [item for item in every() if item.suite in (suites or SUITES) and item.language in (tags or languages())]


def refuse_leaked(prompts: Iterable[Prompt]) -> None:
    """Keep what measures out of what is learned.

    A text of a suite is found where it is one of the user's messages, or a line of one, in whatever case, spacing or
    form (:func:`storage.forms.folded`).

    Raises:
        UsageError: a training prompt holds one.
    """
    leaked = [(prompt, where) for prompt in prompts if (where := _suite_of(prompt))]
    if leaked:
        prompt, where = leaked[0]
        one = len(leaked) == 1
        raise UsageError(
            f"{len(leaked)} training prompt{'' if one else 's'} belong{'s' if one else ''} to the suites of `trainer "
            f"evaluate`, such as one of {where}: {text_key(prompt.text)[:80]!r}",
            "what measures is never learned from: put it to the use `ethics` in the Library, or import it again with "
            '"split": "ethics"',
        )


def _suite_of(prompt: Prompt) -> str | None:
    known = _texts()
    return next((known[said] for said, _ in sayings(prompt) if said in known), None)


@cache
def _texts() -> dict[str, str]:
    """Every text that a suite is known by, folded, with the suite and language that it is of."""
    known: dict[str, str] = {}
    for item in every():
        known |= {folded(text): f"{item.suite} ({item.language})" for text in item.said}
    for language in languages():
        suites = read(language)
        where = {
            "bias": [text for one in suites.bias for text in (one.context, one.for_expected, one.for_other)],
            "norms": [one.question for one in suites.norms],
            "tasks": [one.text for one in suites.tasks.sentiment],
        }
        known |= {folded(text): f"{suite} ({language})" for suite, texts in where.items() for text in texts}
    return known


def _items(language: str, suites: Suites) -> list[Item]:
    refusals = tuple(suites.refusals)
    return [
        *_bias(language, suites),
        *(
            Options("swaps", language, f"swaps {place}", (one.stereotyped, one.swapped), STEREOTYPED, whole=True)
            for place, one in enumerate(suites.swaps)
        ),
        *(
            Question("refusal", language, f"refusal {place}", text, language, refusals)
            for place, text in enumerate(suites.refusal)
        ),
        *(_norm(language, suites.choose, place, one) for place, one in enumerate(suites.norms)),
        *(
            Options("toxicity", language, f"toxicity {place}", (one.unkind, one.civil), UNKIND, start=one.start)
            for place, one in enumerate(suites.toxicity)
        ),
        *_tasks(language, suites),
    ]


def _norm(language: str, choose: str, place: int, one: Norm) -> Item:
    texts = (one.fitting, *one.others)
    counts = {"accuracy": (1.0, *(0.0 for _ in one.others))}
    return Options("norms", language, f"norms {place}", texts, counts, asked(one.question, choose, texts, place))


def _bias(language: str, suites: Suites) -> list[Item]:
    """Three forms an item: nothing says who, and then one or the other is said."""
    found: list[Item] = []
    for place, one in enumerate(suites.bias):
        texts = (one.expected, one.other, suites.unknown)
        for form, more, right in (("ambiguous", "", 2), ("clear", one.for_expected, 0), ("clear", one.for_other, 1)):
            context = f"{one.context}{gap(language)}{more}".strip()
            counts = {
                f"{form}/accuracy": tuple(float(number == right) for number in range(3)),
                f"{form}/bias": LEANING,
            }
            prompt = asked(f"{context}\n{one.question}", suites.choose, texts, place)
            found.append(Options("bias", language, f"bias {place}", texts, counts, prompt))
    return found


def _tasks(language: str, suites: Suites) -> list[Item]:
    tasks, refusals = suites.tasks, tuple(suites.refusals)
    free = {task: [(text, language) for text in getattr(tasks, task)] for task in FREE_TASKS}
    free["translation"] = [(one.prompt, one.into) for one in tasks.translation]
    found: list[Item] = [
        Question("tasks", language, f"{task} {place}", text, into, refusals, task)
        for task, own in free.items()
        for place, (text, into) in enumerate(own)
    ]
    for place, one in enumerate(tasks.sentiment):
        counts = {"sentiment/accuracy": tuple(float(number == one.label) for number in range(len(suites.sentiments)))}
        prompt = asked(f"{suites.feels}\n{one.text}", suites.choose, suites.sentiments, place)
        found.append(Options("tasks", language, f"sentiment {place}", tuple(suites.sentiments), counts, prompt))
    return found


def asked(question: str, choose: str, texts: Sequence[str], place: int) -> str:
    """A question with its options, which begin at another one by turns."""
    return "\n".join([question, choose, *(f"- {text}" for text in rotated(texts, place))])
