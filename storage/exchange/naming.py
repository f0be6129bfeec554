"""Foreign names of our fields: which are given (`--map ours=theirs`), and which could be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from storage.errors import UsageError
from storage.exchange.rows import Row

# What other tools call our fields, in lower case. A name that could be two of ours stands at one.
_LIKELY = {
    "prompt": ("instruction", "question", "query", "input", "ask", "context", "post", "source_text", "user", "human"),
    "response": ("answer", "reply", "output", "generation", "model_output", "model_response", "text", "assistant"),
    "chosen": ("preferred", "better", "winner_response", "accepted", "positive"),
    "rejected": ("dispreferred", "worse", "loser_response", "negative"),
    "score": (
        "overall", "overall_score", "rating", "ratings", "stars", "quality", "grade", "points", "mark", "reward",
        "value", "helpfulness", "likert",
    ),
    "label": ("is_good", "good", "thumbs", "thumbs_up", "accept", "acceptable", "feedback"),
    "rater": (
        "annotator", "annotator_id", "annotator_name", "annotatorid", "rater_id", "rater_name", "worker", "worker_id",
        "workerid", "user_id", "userid", "username", "user_name", "judge", "judge_id", "evaluator", "evaluator_id",
        "reviewer", "reviewer_id", "labeler", "labeller", "labeler_id", "coder", "participant", "participant_id",
        "crowdworker", "email",
    ),
    "language": ("lang", "locale", "language_code", "lang_code", "iso", "lg"),
}  # fmt: skip
_OURS_BY_NAME = {name: ours for ours, names in _LIKELY.items() for name in names}
_JUDGEMENTS = ("score", "label", "chosen", "rejected")


def could_be(names: Iterable[str]) -> dict[str, str]:
    """Fields that could be one of ours, each with that one's name."""
    return {name: _OURS_BY_NAME[name.lower()] for name in sorted(names) if name.lower() in _OURS_BY_NAME}


def advice(names: Iterable[str], missing: str = "") -> str:
    """In words, which fields could be one of ours and the option that reads them; of the missing one first."""
    found = could_be(names)
    wanted = [name for name, ours in found.items() if ours == missing] or list(found)
    return "; ".join(f"{name} could be the {found[name]} (--map {found[name]}={name})" for name in wanted)


def read_map(given: Iterable[str]) -> dict[str, str]:
    """`ours=theirs` options as a mapping of our names to theirs.

    Raises:
        UsageError: one has another form, or a name stands twice.
    """
    found: dict[str, str] = {}
    for one in given:
        ours, equals, theirs = one.partition("=")
        if not (ours.strip() and equals and theirs.strip()):
            raise UsageError(f"--map {one}: must be OURS=THEIRS", "for example --map score=overall")
        if ours.strip() in found:
            raise UsageError(f"--map names {ours.strip()} twice", "give each of our fields one of theirs")
        found[ours.strip()] = theirs.strip()
    return found


def renamed(row: Row, names: Mapping[str, str]) -> tuple[Row, set[str]]:
    """A row with their fields under our names, and which of our names were found.

    A name with dots leads into objects: `ratings.overall`. What stood under one of our names before gives way to what
    was named for it.
    """
    taken = {ours: value for ours, theirs in names.items() if (value := _at(row.fields, theirs)) is not None}
    gone = {names[ours] for ours in taken}
    fields = {name: value for name, value in row.fields.items() if name not in gone and name not in taken}
    columns, found = row.columns, set(taken)
    if columns is not None:  # a cell may be empty where its column is there
        found |= {ours for ours, theirs in names.items() if theirs in columns}
        back = {theirs: ours for ours, theirs in names.items()}
        columns = tuple(back.get(name, name) for name in columns)
    return Row(row.line, fields | taken, columns, row.decimal_comma), found


def _at(fields: Mapping[str, Any], name: str) -> Any:
    """The field of a name, or what its parts lead to."""
    if name in fields:
        return fields[name]
    found: Any = fields
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return found
