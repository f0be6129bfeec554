"""Who judges: the local model or the endpoint that the settings name, opened; and where its key comes from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from storage import raters
from storage.command_line import say
from storage.workspace import Workspace
from trainer.judge.spending import Purse
from trainer.judge.verdicts import Judge

if TYPE_CHECKING:
    from trainer.methods.judge import JudgeConfig, JudgeStage

KEYRING = "alignment-workbench"  # the service under which a key is looked for


def rater_of(config: JudgeStage) -> str:
    """As whom the judge rates: `ai:` and the name that was given, else that of its model."""
    own = config.judge
    if own.name:
        return raters.JUDGE + own.name.removeprefix(raters.JUDGE)
    local = Path(config.model).expanduser().name.removesuffix(".gguf") or config.model
    return raters.JUDGE + (own.endpoint_model or local)


@contextmanager
def opened(workspace: Workspace, config: JudgeStage, purse: Purse, check: Callable[[], None]) -> Iterator[Judge]:
    """The judge that the settings name.

    Args:
        purse: what is spent goes into it.
        check: called while an endpoint is waited for; what it raises ends the waiting.
    """
    if config.judge.endpoint:
        with _endpoint(config.judge, purse, check) as judge:
            yield judge
        return
    import torch

    from trainer.judge.local import LocalJudge
    from trainer.policy import devices, models
    from trainer.policy.backbone import Backbone

    if config.threads:
        torch.set_num_threads(config.threads)
    devices.choose(config.device, config.dtype)  # what cannot be used is refused before anything is converted
    folder = models.resolve(config.model, workspace)
    device, dtype = devices.choose(config.device, config.dtype, models.stored_bytes(folder))
    yield LocalJudge(Backbone(folder, device, dtype), purse)


@contextmanager
def _endpoint(own: JudgeConfig, purse: Purse, check: Callable[[], None]) -> Iterator[Judge]:
    from trainer.judge.endpoint import Address, EndpointJudge

    key = key_of(own.key_env)
    address = Address(own.endpoint, own.endpoint_model, key, own.timeout, own.attempts, own.parallel)
    judge = EndpointJudge(address, purse, check)
    if key and judge.is_in_the_open:
        say(f"the key goes to {judge.where} unencrypted: an https address would hide it")
    try:
        yield judge
    finally:
        judge.close()


def key_of(variable: str) -> str:
    """The key of an endpoint: from the environment, else from the keyring where that is installed; else none."""
    if found := os.environ.get(variable):
        return found.strip()
    try:
        import keyring
    except ImportError:
        return ""
    with suppress(keyring.errors.KeyringError):
        return keyring.get_password(KEYRING, variable) or ""
    return ""
