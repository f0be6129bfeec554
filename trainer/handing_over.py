"""A version as a folder that other programs open: a peft adapter that names its base model, one whole model, or the
GGUF files of both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors.torch import save_file

from storage import converted, jobs, settings, versions
from storage.database import Database
from storage.durable import sync_file, sync_folder
from storage.errors import UsageError, WorkbenchError
from storage.records import Version
from storage.workspace import Workspace
from trainer import model_card
from trainer.policy import models
from trainer.policy.adapters import Adapter
from trainer.policy.chat import ChatTokenizer
from trainer.policy.full import Snapshot, read_version
from trainer.policy.models.adapter_folder import tokenizer_files
from trainer.policy.models.end_tokens import vocabulary
from trainer.policy.models.folder import EMBEDDING, HEAD, ModelFolder, OnProgress, shapes_of, tensor_of
from trainer.policy.models.gguf import Converting
from trainer.policy.models.templates import chat_template
from trainer.policy.models.words import read_words

WHOLE = "model.safetensors"
CARD = "README.md"


def hand_over(
    workspace: Workspace,
    database: Database,
    version: Version,
    target: Path,
    kind: str,
    reference: str | None = None,
    on_progress: OnProgress = lambda text, fraction: None,
) -> ModelFolder:
    """Write a version to a folder, with the tokenizer that it was made with; returns its base model.

    Args:
        kind: adapter, merged or gguf. reference: the base model, where it is not to be found by itself.

    Raises:
        UsageError: it is no adapter, its base model is not known or is of a family that is not merged here, or
            something stands at `target`.
        WorkbenchError: its file is damaged.
        OSError: the folder cannot be written.
    """
    path = versions.path_of(workspace, version)
    if path is None:
        raise UsageError(
            f"{version.name} is an untouched base model: there is nothing to export",
            "`workbench versions` lists those that were trained",
        )
    versions.verify(workspace, version)
    base = base_of(workspace, database, version, reference, on_progress)
    changes = read_version(path, base.path)
    own = versions.words_of(database, workspace, version)
    with _made(target) as partial:
        if kind == "gguf":
            _write_gguf(changes, base, version, workspace, partial, on_progress)
        elif kind == "merged":
            _write_merged(changes, base, partial)
        elif changes.kind == "lora":
            changes.write(partial, base.reference)
        else:
            raise UsageError(f"{version.name} is fully tuned: no adapter can hold it", "use --as merged")
        if kind != "gguf" and (own or kind == "merged" or _fits(base.path)):  # GGUF files hold their words themselves
            for file in tokenizer_files(own or base.path):
                shutil.copyfile(file, partial / file.name)
        if chat_template(own or base.path) is None and (kind == "gguf" or tokenizer_files(partial)):
            # Whoever opens it is to ask as it learned to be asked.
            asked = ChatTokenizer.load(base.path, own).template
            (partial / "chat_template.jinja").write_text(asked, encoding="utf-8")
        (partial / CARD).write_text(model_card.card(database, version, base, kind), encoding="utf-8")
    return base


def _write_merged(changes: Snapshot, base: ModelFolder, folder: Path) -> None:
    """A model of its own. Each weight is merged in fp32 and rounded once, to what the base has."""
    shapes = shapes_of(base.path)
    if EMBEDDING not in shapes or changes.names - shapes.keys() - {HEAD}:
        raise UsageError(
            f"{base.name} is of a family that is not merged here",
            "export the adapter, open it with peft, and call merge_and_unload",
        )
    tensors = {name: changes.merge(name, tensor_of(base.path, name)).contiguous() for name in shapes}
    config = json.loads((base.path / "config.json").read_text(encoding="utf-8"))
    if HEAD in changes.names - shapes.keys():  # a head that was tied gets weights of its own
        tensors[HEAD] = changes.merge(HEAD, tensor_of(base.path, EMBEDDING)).contiguous()
        config["tie_word_embeddings"] = False
    save_file(tensors, str(folder / WHOLE), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    if (base.path / "generation_config.json").exists():
        shutil.copyfile(base.path / "generation_config.json", folder / "generation_config.json")


def _write_gguf(
    changes: Snapshot,
    base: ModelFolder,
    version: Version,
    workspace: Workspace,
    folder: Path,
    on_progress: OnProgress,
) -> None:
    """An adapter, where the version is one; the whole model, where its base came as a GGUF file that is still there."""
    from trainer import gguf_files  # half a second to import

    refused = []
    try:
        if not isinstance(changes, Adapter):
            raise UsageError(f"{version.name} is fully tuned: no adapter can hold it")
        gguf_files.write_adapter(changes, base.path, folder / f"{version.name}-lora.gguf")
    except UsageError as error:
        refused.append(error)
    try:
        with models.gguf_source(base, workspace) as source:
            on_progress(f"writing the model of {source.name} with {version.name} in it", None)
            gguf_files.write_merged(changes, base.path, source, folder / f"{version.name}.gguf")
    except UsageError as error:
        refused.append(error)
    if len(refused) == 2:
        raise UsageError(refused[0].message, refused[1].hint)
    for one in refused:
        on_progress(f"left out: {one.message}", None)


def _fits(folder: Path) -> bool:
    """Whether a model has embeddings of all tokens of its tokenizer. Where it has not, peft would make new ones up on
    finding the tokenizer beside an adapter."""
    return len(read_words(folder)) <= (vocabulary(folder) or 0)


def base_of(
    workspace: Workspace, database: Database, version: Version, reference: str | None, on_progress: OnProgress
) -> ModelFolder:
    """The base model of a version: the one named, else a converted copy of the workspace, else what its files name."""
    if reference is not None:
        named = models.resolve(reference, workspace, on_progress)
        if named.digest != version.base_digest:
            raise UsageError(
                f"{reference} is not the model that {version.name} was trained from ({version.base_model})",
                "name that one",
            )
        return named
    for folder, manifest in converted.every(workspace):
        if manifest.digest == version.base_digest:
            with suppress(WorkbenchError):  # it has no weights yet, and what it was made of is gone
                return Converting(workspace, on_progress).at(folder, version.base_model)
    for stated in [*_bases_named_by(workspace, database, version), version.base_model, *_in_use(database, version)]:
        try:
            found = models.resolve(stated, workspace, on_progress)
        except WorkbenchError:
            continue
        if found.digest == version.base_digest:
            return found
    raise UsageError(
        f"the base model of {version.name} ({version.base_model}) is not where it was", "name it: --model FOLDER"
    )


def _bases_named_by(workspace: Workspace, database: Database, version: Version) -> Iterator[str]:
    """What the files of a version, and of those that it goes back to, say that they belong to."""
    for one in versions.lineage(database, version).values():
        path = versions.path_of(workspace, one)
        try:
            stated = json.loads((path.parent / "adapter_config.json").read_text(encoding="utf-8")) if path else {}
        except (OSError, ValueError):
            continue
        if stated.get("base_model_name_or_path"):
            yield str(stated["base_model_name_or_path"])


def _in_use(database: Database, version: Version) -> Iterator[str]:
    """What the jobs of a version and of those that it goes back to were told to load, and what the app answers with."""
    for one in versions.lineage(database, version).values():
        if one.job_id:
            yield str(jobs.get(database, one.job_id).config.get("model", version.base_model))
    session = settings.get(database, "session")
    if isinstance(session, dict) and session.get("model"):
        yield str(session["model"])


@contextmanager
def _made(target: Path) -> Iterator[Path]:
    """A folder to write into that becomes `target` once it is whole and synced."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists already", "name a folder that does not exist yet, or an empty one")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in partial.iterdir():
            file.chmod(partial.stat().st_mode & 0o666)  # safetensors keeps what it writes from everyone else
            sync_file(file)
        sync_folder(partial)
        partial.replace(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
