"""What Library asks in forms: which prompts to show, and what is corrected about one, with what follows from that."""

from __future__ import annotations

from collections.abc import Mapping

from storage.conversations import is_less_strict
from storage.feedback.kinds import KINDS, TURNS
from storage.languages import is_tag, name, normal
from storage.library import Hanging
from storage.records import Prompt, Split
from storage.wording import counted
from workbench.widgets.dialogs import Field, FormDialog
from workbench.widgets.parsing import one_of

_KINDS = tuple(kind.value for kind in KINDS if kind not in TURNS)
MOST_NAMED = 3  # jobs


def tag(text: str) -> str:
    """A language tag in its normal form; nothing stays nothing."""
    if text and not is_tag(text):
        raise ValueError("want a language tag such as en or pt-BR")
    return text and normal(text)


def needed(text: str) -> str:
    """A language tag. Raises ValueError where there is none."""
    if not text:
        raise ValueError("want a language tag such as en, or und where it is not known")
    return tag(text)


def filter_form(only: Mapping[str, str]) -> FormDialog:
    """Which prompts to show: an empty field shows all."""
    asked = (
        ("language", "language", tag, "empty: all"),
        ("split", "split", one_of("", *Split), ", ".join(Split)),
        ("task", "task", str, "empty: all"),
        ("version", "version", str, "one that answered"),
        ("kind", "rated by", one_of("", *_KINDS), "a kind of rating, such as pair"),
        ("tag", "tag", str, "its name, or what it says"),
        ("answer", "answer", str, "words in an answer"),
    )
    fields = [Field(key, label, only.get(key, ""), parse, hint) for key, label, parse, hint in asked]
    return FormDialog("Show only", fields)


def use_form(prompt: Prompt, hanging: Hanging) -> FormDialog:
    """Language, split and task of a prompt. A split that is less strict is refused where it is typed, and why."""

    def wrong(values: dict[str, object]) -> str:
        split = Split(str(values["split"]))
        if not is_less_strict(split, prompt.split):
            return ""
        measured = f", {counted(hanging.began, 'job')} may have measured with it" if hanging.began else ""
        return (
            f"a prompt that is {prompt.split} never becomes {split}{measured}: a gain on what was learned from"
            " means nothing"
        )

    fields = [
        Field("language", "language", prompt.language, needed, "its answers go with it"),
        Field("split", "split", prompt.split, one_of(*Split), "never less strict"),
        Field("task", "task", prompt.task, str),
    ]
    return FormDialog("What the prompt is", fields, wrong=wrong)


def follows(prompt: Prompt, hanging: Hanging, language: str, split: Split) -> str:
    """What follows from another language and a stricter split; empty where nothing does."""
    lines = []
    if split != prompt.split:
        lines += _of_split(prompt.split, split, hanging)
    if language != prompt.language:
        lines += _of_language(prompt.language, language, hanging)
    return "\n".join(lines)


def _of_language(was: str, language: str, hanging: Hanging) -> list[str]:
    by_ai = f" ({hanging.judged} by AI)" if hanging.judged else ""
    what = f"{counted(hanging.answers, 'answer')} and {counted(hanging.ratings, 'rating')}{by_ai}"
    lines = [f"Its {what} count as {name(language)} from now on, in every figure and in the queue."]
    if hanging.learned:
        lines.append(f"{_jobs(hanging)} learned from it as {name(was)}: that stays as it was.")
    return [*lines, f"The same text asked or imported as {was} again is another prompt."]


def _of_split(was: Split, split: Split, hanging: Hanging) -> list[str]:
    which = "It is" if hanging.prompts == 1 else f"The {hanging.prompts} prompts that open with this text are"
    if was != Split.TRAIN:
        return [f"{which} kept apart as {split} from now on, and {was} no more; neither is trained on."]
    lines = [f"{which} never trained on again: {counted(hanging.taught, 'rating')} will measure and teach no more."]
    if hanging.learned:
        lines.append(f"{_jobs(hanging)} learned from it, and what was learned stays: their gain on it proves nothing.")
    if (others := hanging.began - len(hanging.learned)) > 0:
        lines.append(f"{counted(others, 'other job')} began since it is there, and may have practised on it.")
    if not hanging.began:
        lines.append("No job has learned from it yet.")
    return lines


def _jobs(hanging: Hanging) -> str:
    more = len(hanging.learned) - MOST_NAMED
    return ", ".join(hanging.learned[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
