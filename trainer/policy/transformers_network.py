"""The sampling loop's view of any causal language model of transformers: slower than the fast path, and general."""

from __future__ import annotations

import copy
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from storage.errors import WorkbenchError
from trainer.policy.adapters import HEAD, Adapter
from trainer.policy.linear import exact_product
from trainer.policy.models.module import load_module

if TYPE_CHECKING:
    from trainer.policy.weights import Changes, Weights


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
    """Prefill and single steps through `model.forward`; logits in fp32.

    Attributes:
        pristine: whether the weights are those of the untouched base model.
        continuous: the model's own cache has one length for all rows: none can be given to another prompt.
    """

    continuous = False

    def __init__(self, model: Any, *, pristine: bool) -> None:
        self.model = model
        self.pristine = pristine
        head = model.get_output_embeddings()
        head.forward = lambda x: exact_product(x.flatten(0, -2), head.weight, head.bias).unflatten(0, x.shape[:-1])

    @classmethod
    def load(
        cls,
        folder: Path,
        weights: Weights,
        device: torch.device,
        dtype: torch.dtype,
        like: TransformersNetwork | None = None,
    ) -> TransformersNetwork:
        """Build the module and change in it what a full version changes.

        Changes go by the names of the module's own parameters; a base model's files may use others, of an older form.

        Args:
            like: of the same base model; where it is pristine, all weights that do not change are shared with it.

        Raises:
            WorkbenchError: the version was made for another model.
        """
        if like is not None and like.pristine and weights.changes:
            model: Any = sharing_copy(like.model, weights.changes.names)
        else:
            model = load_module(folder, dtype).to(device).eval()
        if weights.is_full:
            _fill(model, weights)
        elif weights.changes:
            _replace(model, weights, weights.changes)
        return cls(model, pristine=not weights.is_full and not weights.changes)

    def adapted(self, adapter: Adapter) -> TransformersNetwork:
        """This network with an adapter beside its weights; the module is copied, its parameters are shared.

        Raises:
            WorkbenchError: the adapter changes weights that the model does not have, or of another shape.
        """
        made = TransformersNetwork(sharing_copy(self.model), pristine=False)
        head = made.model.get_output_embeddings()
        linears = {f"{name}.weight": module for name, module in made.model.named_modules() if linear_shape(module)}
        linears.setdefault(HEAD, head)  # a tied head, or one of another name
        unknown = adapter.names - linears.keys()
        if unknown:
            raise WorkbenchError(
                f"the version changes weights that the model lacks, such as {min(unknown)}",
                "this version was trained on another base model",
            )
        for name in adapter.names:
            module = linears[name]
            parts = adapter.update(name, linear_shape(module) or module.weight.shape)
            # As in learning, the update is computed in the format of the weights; beside fp32 logits it stays fp32.
            dtype = torch.float32 if module is head else module.weight.dtype
            down, up = (part.to(module.weight.device, dtype) for part in parts)
            module.register_forward_hook(partial(_beside, down, up))
        return made

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
def _replace(model: Any, weights: Weights, changes: Changes) -> None:
    """Copy what a full version changes over the pristine weights in the module."""
    parameters = dict(model.named_parameters())
    for name in changes.names & parameters.keys():
        parameters[name].copy_(changes.merge(name, parameters[name]))
        weights.mark_used(name)


def _beside(down: Tensor, up: Tensor, module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """A linear layer's output with its low-rank update added."""
    return output + (args[0].to(down.dtype) @ down.T) @ up.T


def linear_shape(module: Any) -> tuple[int, int] | None:
    """(out, in) of a linear layer; None for any other module. The weights of a Conv1D (GPT-2) are stored (in, out)."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, torch.nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, Conv1D):
        return module.weight.shape[1], module.weight.shape[0]
    return None


def _check_shape(name: str, value: Tensor, target: Tensor) -> None:
    if target.shape != value.shape:
        raise WorkbenchError(
            f"{name} is {tuple(value.shape)}, the model needs {tuple(target.shape)}",
            "this version was trained on another base model",
        )
