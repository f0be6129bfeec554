"""PKU-SafeRLHF (PKU-Alignment/PKU-SafeRLHF): two answers, which is better, which is safer, and the harm in each."""

from __future__ import annotations

from typing import Any

from storage.exchange.layout import Fields, Layout, has, need
from storage.exchange.rows import BadFieldError
from storage.exchange.values import figure, shaped, truth

_NEEDED = ("prompt", "response_0", "response_1")
_PAIRS = {"better_response_id": "overall", "safer_response_id": "safety"}


def recognises(fields: Fields) -> bool:
    """Two numbered answers and one of the judgements."""
    return has(fields, *_NEEDED) and bool(fields.keys() & {*_PAIRS, "is_response_0_safe", "is_response_1_safe"})


def read(fields: Fields) -> list[dict[str, Any]]:
    """A preference for each of the two questions; for each answer a label of its safety and tags of its harm."""
    need(fields, *_NEEDED)
    answers = (fields["response_0"], fields["response_1"])
    models = tuple(fields.get(f"response_{number}_source", "") for number in (0, 1))
    found: list[dict[str, Any]] = []
    for name, attribute in _PAIRS.items():
        if name in fields:
            better = int(figure(name, fields[name]))
            if better not in (0, 1):
                raise BadFieldError(name, f"must be 0 or 1, not {better}")
            pair = {"chosen": answers[better], "rejected": answers[1 - better], "attribute": attribute}
            sources = {"chosen_model": models[better], "rejected_model": models[1 - better]}
            found.append({"prompt": fields["prompt"], **pair, **{key: name for key, name in sources.items() if name}})
    for number, answer in enumerate(answers):
        found += _of_one(number, fields, {"prompt": fields["prompt"], "completion": answer})
    return found


def _of_one(number: int, fields: Fields, about: dict[str, Any]) -> list[dict[str, Any]]:
    if source := fields.get(f"response_{number}_source"):
        about = {**about, "model": source}
    found: list[dict[str, Any]] = []
    if (name := f"is_response_{number}_safe") in fields:
        found.append({**about, "label": truth(name, fields[name]), "attribute": "safety"})
    name = f"response_{number}_harm_category"
    harms = [harm for harm, is_so in shaped(name, fields.get(name, {}), dict[str, bool | None]).items() if is_so]
    if harms:
        tags: dict[str, Any] = {"harm": ", ".join(harms)}
        if (name := f"response_{number}_severity_level") in fields:
            tags["severity"] = int(figure(name, fields[name]))
        found.append({**about, "tags": tags})
    return found


def _each(name: str, meaning: str) -> dict[str, str]:
    return {name.format(number): meaning for number in (0, 1)}


LAYOUT = Layout(
    name="pku",
    known_by="`prompt`, `response_0`, `response_1`, and a judgement of them",
    becomes={
        "prompt": "the prompt",
        **_each("response_{}", "an answer"),
        "better_response_id": "a preference",
        "safer_response_id": "a preference of the attribute `safety`",
        **_each("is_response_{}_safe", "a label of the attribute `safety`"),
        **_each("response_{}_harm_category", "tags: the harms that are true"),
        **_each("response_{}_severity_level", "the severity in these tags"),
        **_each("response_{}_source", "the model that answered"),
    },
    left="`prompt_source`, `response_0_sha256`, `response_1_sha256`",
    recognises=recognises,
    read=read,
)
