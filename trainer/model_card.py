"""A version told to a colleague: the README.md of a folder that it is exported to, in the form of a model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage import jobs, learned_from
from storage.database import Database
from storage.records import Source, Version
from storage.wording import counted
from trainer.policy.models import ModelFolder
from trainer.policy.models.templates import chat_template

_OPENED_BY = {
    "adapter": '`peft.AutoPeftModelForCausalLM.from_pretrained("DIR")`, or as an adapter on its base model',
    "merged": '`transformers.AutoModelForCausalLM.from_pretrained("DIR")`',
    "gguf": "`llama-cli -m {name}.gguf`, or `llama-cli -m BASE.gguf --lora {name}-lora.gguf`",
}

_PLAIN = (
    "Its base model has no chat template. It was asked, and learned, in plain lines, which `chat_template.jinja` "
    "writes: `Question: ...`, a line break, `Answer:`."
)


def card(database: Database, version: Version, base: ModelFolder, kind: str) -> str:
    """The card as Markdown with the front matter that model hubs read. No person is named in it.

    Args:
        kind: adapter, merged or gguf, how the folder is written.
    """
    made_by = learned_from.jobs_of_lineage(database, version)
    languages = learned_from.by_language_and_kind(database, made_by)
    front = ["---", f"base_model: {base.hub or base.name}", f"library_name: {_library(kind)}"]
    front += ["language:", *(f"- {name}" for name in languages if name != "und")] if languages.keys() - {"und"} else []
    sources = learned_from.counts(database, made_by)["source"]
    imitated = learned_from.imitated_in_words(learned_from.imitated(database, made_by))
    by_people = sources.keys() & {Source.HUMAN, Source.IMPORTED}
    front += ["tags:", "- alignment", *(["- human-feedback"] if by_people else []), "---"]
    parts = [
        "\n".join(front),
        f"# {base.name} {version.name}",
        f"{version.name} of {base.name}, trained {_on(sources, imitated)}with Alignment Workbench on "
        f"{version.created_at[:10]}. State when it was exported: {version.state}.",
        "## Use",
        f"Opened by {_OPENED_BY[kind].format(name=version.name)}. Its base model's weights have the SHA-256 "
        f"`{version.base_digest}`; its own file has `{version.sha256}`. Its base model's licence holds for it too.",
        *([] if chat_template(base.path) else [_PLAIN]),
        "## Training",
        _training(database, version),
        "## Ratings that it learned from",
        _table(["language", "ratings", "of which kinds"], [
            [name, sum(kinds.values()), ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))]
            for name, kinds in languages.items()
        ]) if languages else "None are recorded.",
        "## What its gate found",
        _gates(version),
        "## Limits",
        "The figures are of held-out prompts of the workspace that it was trained in, and say nothing of other "
        "prompts, languages or raters. A gate measures by a reward model, which is not the person. It was not tested "
        "for harm beyond what is named above.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _on(sources: Mapping[str, int], imitated: str) -> str:
    """What was imitated, and whose ratings: of people, of judge models, simulated; each is said."""
    count = sum(sources.values())
    told = ", ".join(f"{source} {n}" for source, n in sources.items())
    rated = f"{counted(count, 'rating')} ({told})" if count else ""
    learned = " and ".join(one for one in (imitated, rated) if one)
    return f"on {learned} " if learned else ""


def _library(kind: str) -> str:
    return {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}[kind]


def _training(database: Database, version: Version) -> str:
    if version.job_id is None:
        return f"Its parent is {version.parent}; no job of this workspace made it."
    job = jobs.get(database, version.job_id)
    line = f"By `{job.kind}` from {version.parent}, to step {version.step}."
    settings = [list(one) for one in learned_from.settings_of(job)]
    return line + "\n\n" + _table(["setting", "value"], settings)


def _gates(version: Version) -> str:
    if not version.gates:
        return "It was not asked."
    rows = [
        ["passed" if gate.get("passed") else "failed", gate.get("gate"), gate.get("detail", "")]
        for gate in version.gates
    ]
    return _table(["", "gate", "found"], rows)


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
