"""An adapter that others made becomes a version of this workspace, once: it answers and is learned on as any other."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open

from storage import digests, versions
from storage.database import Database
from storage.durable import sync_file, sync_folder
from storage.errors import WorkbenchError
from storage.records import Version
from storage.workspace import Workspace
from trainer.policy.adapters import BASE_LAYER, PREFIX, Adapter, read_adapter
from trainer.policy.models.adapter_folder import CONFIG_NAME, WEIGHTS_NAME, tokenizer_files
from trainer.policy.models.folder import EMBEDDING, HEAD, ModelFolder, shapes_of, tensor_of

PARTIAL = ".adopted"
ROUNDING = 2**-7  # of one 16-bit format to the other


def root_of(database: Database, workspace: Workspace, model: ModelFolder) -> Version:
    """Where a model that was named begins in this workspace: its base version, or the version of the adapter.

    An adapter is known by the content of its files. A version of it is a candidate: it is served where its folder is
    named, and elsewhere once it is published.

    Raises:
        WorkbenchError: the adapter is damaged, or does not fit the model that it names.
    """
    base = versions.ensure_base(database, model.name, model.digest)
    if model.adapter is None:
        return base
    brought = tokenizer_files(model.adapter)
    files = [model.adapter / WEIGHTS_NAME, model.adapter / CONFIG_NAME, *brought]
    digest, sha256 = digests.of_all(files, workspace), digests.remembered(workspace, files[0])
    if known := versions.adopted(database, base, digest, sha256):
        return known
    with _one_at_a_time(workspace):
        if known := versions.adopted(database, base, digest, sha256):  # another process was quicker
            return known
        adapter = read_adapter(files[0])
        _check(adapter, model)
        _check_beneath(files[0], model)
        partial = workspace.versions / PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        weights = adapter.write(partial, model.reference)
        for file in brought:
            sync_file(Path(shutil.copyfile(file, partial / file.name)))
        sync_folder(partial)
        written = versions.sha256_of(weights)
        with database.transaction():
            place = workspace.versions / versions.next_name(database)
            made = versions.add_candidate(
                database,
                base=base,
                parent=base.name,
                file=str((place / weights.name).relative_to(workspace.root)),
                sha256=written,
                metrics={"adopted": digest, "adopted_from": str(model.adapter)},
            )
            shutil.rmtree(place, ignore_errors=True)  # left by a crash between rename and commit: no row named it
            os.replace(partial, place)
            sync_folder(workspace.versions)
    return made


def _check(adapter: Adapter, model: ModelFolder) -> None:
    """Raise WorkbenchError where an update has another shape than the weight that it changes. Weights that the files
    call otherwise are left to the network: it knows how they are called now."""
    shapes = shapes_of(model.path)
    for name, (down, up) in adapter.pairs.items():
        given, wanted = (up.shape[0], down.shape[1]), shapes.get(name)
        if wanted is not None and given not in (tuple(wanted), tuple(wanted[::-1])):
            raise WorkbenchError(
                f"the adapter in {model.adapter} does not fit {model.name}: its {name} is {given[0]} x {given[1]}, the "
                f"model's {wanted[0]} x {wanted[1]}",
                f"name the model that it was made for in {CONFIG_NAME}",
            )
    unknown = adapter.names - shapes.keys() - {HEAD} if EMBEDDING in shapes else set()
    if unknown:
        raise WorkbenchError(
            f"the adapter in {model.adapter} changes weights that {model.name} lacks, such as {min(unknown)}",
            f"name the model that it was made for in {CONFIG_NAME}",
        )


def _check_beneath(file: Path, model: ModelFolder) -> None:
    """Raise WorkbenchError where an adapter's file brings a weight of the base model that is not the base model's."""
    with safe_open(str(file), framework="pt") as opened:
        brought = {key: opened.get_tensor(key) for key in opened.keys() if key.endswith(BASE_LAYER)}  # noqa: SIM118
    for key, given in brought.items():
        name = key.removeprefix(PREFIX).removesuffix(BASE_LAYER) + ".weight"
        mine = tensor_of(model.path, name if name in shapes_of(model.path) else EMBEDDING)
        if mine.shape != given.shape or not torch.allclose(mine.float(), given.float(), rtol=ROUNDING, atol=0):
            raise WorkbenchError(
                f"the adapter in {file.parent} brings another {name} than {model.name} has",
                "merge it into its base model with peft (`merge_and_unload`), and load the merged folder",
            )


@contextmanager
def _one_at_a_time(workspace: Workspace) -> Iterator[None]:
    """The lock goes with the process that holds it."""
    descriptor = os.open(workspace.versions / ".adopting.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
