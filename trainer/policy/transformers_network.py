"""The sampling loop's view of any causal language model of transformers: slower than the fast path, and general."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from storage.errors import WorkbenchError
from trainer.policy.adapters import HEAD

if TYPE_CHECKING:
    from trainer.policy.decoding import Changes, Weights


class GrowingCache:
    """The model's own cache, with the mask of real tokens (rows, length) beside it."""

    def __init__(self, past: Any, mask: Tensor) -> None:
        self.past = past
        self.mask = mask

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.past.batch_select_indices(rows)
        self.mask = self.mask[rows]


class TransformersNetwork:
    """Prefill and single steps through `model.forward`.

    Attributes:
        pristine: whether the weights are those of the untouched base model.
    """

    def __init__(self, model: Any, *, pristine: bool) -> None:
        self.model = model
        self.pristine = pristine

    @classmethod
    def load(
        cls,
        folder: Path,
        weights: Weights,
        device: torch.device,
        dtype: torch.dtype,
        like: TransformersNetwork | None = None,
    ) -> TransformersNetwork:
        """Build the module and change in it what the version changes.

        Changes go by the names of the module's own parameters; a base model's files may use others, of an older form.

        Args:
            like: of the same base model; where it is pristine, all weights that do not change are shared with it.

        Raises:
            WorkbenchError: the version was made for another model.
        """
        from transformers import AutoModelForCausalLM

        if like is not None and like.pristine and weights.changes:
            model: Any = sharing_copy(like.model, weights.changes.names)
        else:
            model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, trust_remote_code=False)
            model.to(device).eval()
        if weights.is_full:
            _fill(model, weights)
        elif weights.changes:
            _merge(model, weights, weights.changes)
        return cls(model, pristine=not weights.is_full and not weights.changes)

    def prefill(self, prompts: list[list[int]], rows: Tensor, capacity: int) -> tuple[Tensor, GrowingCache]:
        """As :meth:`trainer.policy.llama.LlamaNetwork.prefill`."""
        length = max(map(len, prompts))
        device = self.model.device
        ids = torch.zeros(len(prompts), length, dtype=torch.long, device=device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = torch.tensor(prompt, device=device)
            mask[row, length - len(prompt) :] = 1
        found = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp_min(0),
            use_cache=True,
            logits_to_keep=1,
        )
        cache = GrowingCache(found.past_key_values, mask)
        cache.keep(rows)
        return found.logits[rows, -1], cache

    def step(self, tokens: Tensor, cache: GrowingCache) -> Tensor:
        """As :meth:`trainer.policy.llama.LlamaNetwork.step`."""
        cache.mask = torch.nn.functional.pad(cache.mask, (0, 1), value=1)
        found = self.model(
            input_ids=tokens[:, None],
            attention_mask=cache.mask,
            position_ids=cache.mask.sum(-1, keepdim=True) - 1,
            past_key_values=cache.past,
            use_cache=True,
        )
        return found.logits[:, -1]


def sharing_copy(model: Any, own: Collection[str] = ()) -> Any:
    """A copy of a module that shares its parameters, but for those named in `own`."""
    shared = {id(value): value for name, value in model.named_parameters() if name not in own}
    return copy.deepcopy(model, shared)


@torch.no_grad()
def _fill(model: Any, weights: Weights) -> None:
    """Copy the weights of a full version into the module."""
    parameters = dict(model.named_parameters())
    for name in weights.names():
        value, target = weights.get(name), parameters.get(name)
        if value is not None and target is not None:
            _check_shape(name, value, target)
            target.copy_(value)


@torch.no_grad()
def _merge(model: Any, weights: Weights, changes: Changes) -> None:
    """Apply what a version changes to the pristine weights in the module."""
    from transformers.pytorch_utils import Conv1D

    parameters = dict(model.named_parameters())
    transposed = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
    for name in changes.names & parameters.keys():
        target = parameters[name].T if name in transposed and changes.kind == "lora" else parameters[name]
        target.copy_(changes.merge(name, target))
        weights.mark_used(name)
    if HEAD in changes.names - parameters.keys():  # tied to the embedding, or called otherwise: it gets its own
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(changes.merge(HEAD, head.weight), requires_grad=False)
        weights.mark_used(HEAD)


def _check_shape(name: str, value: Tensor, target: Tensor) -> None:
    if target.shape != value.shape:
        raise WorkbenchError(
            f"{name} is {tuple(value.shape)}, the model needs {tuple(target.shape)}",
            "this version was trained on another base model",
        )
