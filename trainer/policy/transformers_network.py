"""The sampling loop's view of any causal language model of transformers: slower than the fast path, and general."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
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
    from trainer.policy.weights import Weights

Pair = tuple[Tensor, Tensor]  # A (rank, in) and B (out, rank), scaled
# What stands beside a weight, by its name, in the forward pass of this thread: versions share one module.
_BESIDE: ContextVar[Callable[[str], Pair | None]] = ContextVar("beside", default=lambda name: None)


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

    Args:
        beside: what stands beside the weights of linear layers, A and B by the weights' names.
    """

    def __init__(self, model: Any, beside: Mapping[str, Pair] | None = None) -> None:
        self.model = model
        self.beside: Mapping[str, Pair] = beside or {}
        head = model.get_output_embeddings()
        if "forward" not in vars(head):
            head.forward = lambda x: exact_product(x.flatten(0, -2), head.weight, head.bias).unflatten(0, x.shape[:-1])
            for name, module in linear_layers(model).items():
                module.register_forward_hook(partial(_add_low_rank, name))

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
            like: the untouched base model; all weights that do not change are shared with it.

        Raises:
            WorkbenchError: the version was made for another model.
        """
        changes = weights.changes
        if like is not None and changes:
            model: Any = sharing_copy(like.model, changes.names)
        else:
            model = load_module(folder, dtype).to(device).eval()
        parameters = dict(model.named_parameters())
        if weights.is_full:
            new = ((name, weights.get(name)) for name in weights.names() if name in parameters)
        else:
            own = changes.names & parameters.keys() if changes else ()
            new = ((name, changes.merge(name, parameters[name])) for name in own if changes)
        with torch.no_grad():
            for name, value in new:
                assert value is not None
                _check_shape(name, value, parameters[name])
                parameters[name].copy_(value)
                weights.mark_used(name)
        return cls(model)

    def adapted(self, adapter: Adapter) -> TransformersNetwork:
        """This network, of the untouched base, with an adapter beside its weights, which both share.

        Raises:
            WorkbenchError: the adapter changes weights that the model does not have, or of another shape.
        """
        linears = linear_layers(self.model)
        unknown = adapter.names - linears.keys()
        if unknown:
            raise WorkbenchError(
                f"the version changes weights that the model lacks, such as {min(unknown)}",
                "this version was trained on another base model",
            )
        beside = {}
        for name in adapter.names:
            module = linears[name]
            parts = adapter.update(name, linear_shape(module) or module.weight.shape)
            # As in learning, the update is computed in the format of the weights; beside fp32 logits it stays fp32.
            dtype = torch.float32 if module is self.model.get_output_embeddings() else module.weight.dtype
            down, up = (part.to(module.weight.device, dtype) for part in parts)
            beside[name] = down, up
        return TransformersNetwork(self.model, beside)

    def prefill(self, prompts: list[list[int]], rows: Tensor, capacity: int) -> tuple[Tensor, GrowingCache]:
        """As :meth:`trainer.policy.llama.LlamaNetwork.prefill`."""
        length = max(map(len, prompts))
        device = self.model.device
        ids = torch.zeros(len(prompts), length, dtype=torch.long, device=device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = torch.tensor(prompt, device=device)
            mask[row, length - len(prompt) :] = 1
        with in_force(self.beside.get):
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
        with in_force(self.beside.get):
            found = self.model(
                input_ids=tokens[:, None],
                attention_mask=cache.mask,
                position_ids=cache.mask.sum(-1, keepdim=True) - 1,
                past_key_values=cache.past,
                use_cache=True,
            )
        return found.logits[:, -1]


def sharing_copy(model: Any, own: Collection[str]) -> Any:
    """A copy of a module that shares its parameters, but for those named in `own`."""
    shared = {id(value): value for name, value in model.named_parameters() if name not in own}
    made = copy.deepcopy(model, shared)
    for module in made.modules():
        vars(module).pop("forward", None)  # one that was put in its place calls the model that was copied
        module._forward_hooks.clear()
    return made


@contextmanager
def in_force(beside: Callable[[str], Pair | None]) -> Iterator[None]:
    """Run the model, or a layer, with what `beside` gives for the name of a weight beside that weight."""
    token = _BESIDE.set(beside)
    try:
        yield
    finally:
        _BESIDE.reset(token)


def _add_low_rank(name: str, module: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
    """A linear layer's output with its low-rank update added; None leaves it."""
    pair = _BESIDE.get()(name)
    return None if pair is None else output + (args[0].to(pair[0].dtype) @ pair[0].T) @ pair[1].T


def linear_layers(model: Any) -> dict[str, Any]:
    """The linear layers of a model by the names of their weights; the output head by `HEAD` as well."""
    found = {f"{name}.weight": module for name, module in model.named_modules() if linear_shape(module)}
    return {HEAD: model.get_output_embeddings()} | found


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
