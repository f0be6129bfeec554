"""A version told to a colleague: the README.md of a folder that it is exported to, in the form of a model card."""

from __future__ import annotations

import json
from typing import Any

from storage import jobs, versions
from storage.database import Database
from storage.records import Version
from trainer.policy.models import ModelFolder

_OPENED_BY = {
    "adapter": '`peft.AutoPeftModelForCausalLM.from_pretrained("DIR")`, or as an adapter on its base model',
    "merged": '`transformers.AutoModelForCausalLM.from_pretrained("DIR")`',
    "gguf": "`llama-cli -m {name}.gguf`, or `llama-cli -m BASE.gguf --lora {name}-lora.gguf`",
}


def card(database: Database, version: Version, base: ModelFolder, kind: str) -> str:
    """The card as Markdown with the front matter that model hubs read. No person is named in it.

    Args:
        kind: adapter, merged or gguf, how the folder is written.
    """
    languages = _ratings_by(database, version)
    front = ["---", f"base_model: {base.hub or base.name}", f"library_name: {_library(kind)}"]
    front += ["language:", *(f"- {name}" for name in languages if name != "und")] if languages.keys() - {"und"} else []
    front += ["tags:", "- alignment", "- human-feedback", "---"]
    parts = [
        "\n".join(front),
        f"# {base.name} {version.name}",
        f"{version.name} of {base.name}, trained on a person's feedback with Alignment Workbench on "
        f"{version.created_at[:10]}. State when it was exported: {version.state}.",
        "## Use",
        f"Opened by {_OPENED_BY[kind].format(name=version.name)}. Its base model's weights have the SHA-256 "
        f"`{version.base_digest}`; its own file has `{version.sha256}`. Its base model's licence holds for it too.",
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


def _library(kind: str) -> str:
    return {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}[kind]


def _ratings_by(database: Database, version: Version) -> dict[str, dict[str, int]]:
    """How many ratings of each kind, by language, the jobs of a version and of those before it learned from."""
    made_by = [one.job_id for one in versions.lineage(database, version).values() if one.job_id]
    rows = database.rows(
        "SELECT prompts.language, ratings.kind, count(DISTINCT ratings.id) AS n FROM job_ratings "
        "JOIN ratings ON ratings.id = job_ratings.rating_id JOIN samples ON samples.id = ratings.sample_id "
        "JOIN prompts ON prompts.id = samples.prompt_id WHERE job_ratings.job_id IN (SELECT value FROM json_each(?)) "
        "GROUP BY prompts.language, ratings.kind ORDER BY prompts.language",
        (json.dumps(made_by),),
    )
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["language"], {})[row["kind"]] = row["n"]
    return found


def _training(database: Database, version: Version) -> str:
    if version.job_id is None:
        return f"Its parent is {version.parent}; no job of this workspace made it."
    job = jobs.get(database, version.job_id)
    line = f"By `{job.kind}` from {version.parent}, to step {version.step}."
    settings = [[name, value] for name, value in sorted(_flat(job.config).items()) if value not in (None, "", [])]
    return line + "\n\n" + _table(["setting", "value"], settings)


def _flat(config: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by dotted names; paths of the machine it was trained on are left out."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        elif not (isinstance(value, str) and "/" in value):
            flat[before + name] = value
    return flat


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
