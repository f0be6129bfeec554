"""Which chat template a model folder means: it may bring several, in several places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from storage.errors import WorkbenchError
from trainer.policy.models.folder import refuse_pointer

DEFAULT = "default"


def chat_template(folder: Path) -> str | None:
    """The template of a conversation without tools, as transformers chooses it; None where the folder has none.

    Files (`chat_template.jinja`, `additional_chat_templates/*.jinja`) replace what tokenizer_config.json states: one
    template, or a list of them with their names. The older chat_template.json counts where nothing else is there.

    Raises:
        WorkbenchError: there are several, and none of them is the default; or a file is damaged.
    """
    found = _of_files(folder) or _stated(folder / "tokenizer_config.json") or _stated(folder / "chat_template.json")
    if not found:
        return None
    if DEFAULT in found or len(found) == 1:
        return found.get(DEFAULT, next(iter(found.values())))
    raise WorkbenchError(
        f"{folder} has chat templates called {', '.join(sorted(found))}, and none that is the default",
        f"copy the one to use to {folder / 'chat_template.jinja'}",
    )


def _of_files(folder: Path) -> dict[str, str]:
    files = {path.stem: path for path in (folder / "additional_chat_templates").glob("*.jinja")}
    if (whole := folder / "chat_template.jinja").is_file():
        files[DEFAULT] = whole
    return {name: _text(path) for name, path in files.items()}


def _stated(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        stated: Any = json.loads(_text(path)).get("chat_template")
        named = stated if isinstance(stated, list) else [{"name": DEFAULT, "template": stated}] if stated else []
        return {str(one["name"]): str(one["template"]) for one in named}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WorkbenchError(f"the chat template in {path} cannot be read: {error}", "fetch the model again") from error


def _text(path: Path) -> str:
    refuse_pointer(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise WorkbenchError(f"{path} cannot be read: {error}", "fetch the model again") from error
