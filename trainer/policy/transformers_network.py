"""The sampling loop's view of any causal language model of transformers: slower than the fast path, and general."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.policy.adapters import HEAD, Adapter
from trainer.policy.layout import TokenLayout, said_logprobs
from trainer.policy.linear import exact_product
from trainer.policy.models.module import load_module
from trainer.policy.weights import Changes, Weights, check_known

Place = tuple[nn.Module, str]  # the module that has a parameter, and its key there
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

    Versions share one module: what they change in it is in force only while it runs.

    Attributes:
        beside: A and B beside the weights of linear layers, by the weights' names.
        instead: other values of weights, by their places. Only one thread at a time may sample from such versions.
        continuous: the model's own cache has one length for all rows: none can be given to another prompt.
    """

    continuous = False

    def __init__(self, model: Any) -> None:
        self.model = model
        self.beside: Mapping[str, Pair] = {}
        self.instead: Mapping[Place, Tensor | None] = {}
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
        """Build the module, of a full version's weights where they are those.

        Args:
            like: the untouched base model, whose module serves where weights are changed in memory.

        Raises:
            WorkbenchError: the version was made for another model.
        """
        if like is None or weights.full:
            like = cls(load_module(folder, dtype, weights.full and weights.full.parent).to(device).eval())
        return like.adapted(weights.changes) if weights.changes else like

    def adapted(self, changes: Changes) -> TransformersNetwork:
        """This network, of the untouched base, with what a version changes.

        Changes go by the names of the module's own parameters; a base model's files may use others, of an older form.

        Raises:
            WorkbenchError: it changes weights that the model does not have, or of another shape.
        """
        made = TransformersNetwork(self.model)
        if isinstance(changes, Adapter):
            linears = linear_layers(self.model)
            check_known(changes, set(linears))
            made.beside = {name: self._pair(linears[name], changes, name) for name in changes.names}
        else:
            places = places_of(self.model)
            check_known(changes, set(places))
            made.instead = {
                place: nn.Parameter(changes.merge(name, value), requires_grad=False)
                for name in changes.names
                if (value := (place := places[name])[0]._parameters[place[1]]) is not None
            }
        return made

    def _pair(self, module: Any, adapter: Adapter, name: str) -> Pair:
        """As in learning, an update is computed in the format of the weights; beside fp32 logits it stays fp32."""
        down, up = adapter.update(name, linear_shape(module) or module.weight.shape)
        dtype = torch.float32 if module is self.model.get_output_embeddings() else module.weight.dtype
        return down.to(module.weight.device, dtype), up.to(module.weight.device, dtype)

    def _logits(self, ids: Tensor, mask: Tensor, positions: Tensor, **kwargs: Any) -> Any:
        with in_force(self.beside.get), replaced(self.instead):
            return self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1, **kwargs
            )

    def prefill(self, prompts: list[list[int]], rows: Tensor, capacity: int) -> tuple[Tensor, GrowingCache]:
        """As :meth:`trainer.policy.llama.LlamaNetwork.prefill`."""
        length = max(map(len, prompts))
        device = self.model.device
        ids = torch.zeros(len(prompts), length, dtype=torch.long, device=device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = torch.tensor(prompt, device=device)
            mask[row, length - len(prompt) :] = 1
        found = self._logits(ids, mask, (mask.cumsum(-1) - 1).clamp_min(0))
        cache = GrowingCache(found.past_key_values, mask)
        cache.keep(rows)
        return found.logits[rows, -1], cache

    def step(self, tokens: Tensor, cache: GrowingCache) -> Tensor:
        """As :meth:`trainer.policy.llama.LlamaNetwork.step`."""
        cache.mask = torch.nn.functional.pad(cache.mask, (0, 1), value=1)
        positions = cache.mask.sum(-1, keepdim=True) - 1
        found = self._logits(tokens[:, None], cache.mask, positions, past_key_values=cache.past)
        return found.logits[:, -1]

    def log_likelihood(self, layout: TokenLayout) -> Tensor:
        """As :meth:`trainer.policy.llama.LlamaNetwork.log_likelihood`."""
        ids = layout.ids[layout.gather] * layout.real
        mask = layout.real.long()
        with in_force(self.beside.get), replaced(self.instead):
            logits = self.model(
                input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp_min(0), use_cache=False
            ).logits
        return layout.spread(said_logprobs(layout.unpadded(logits)[layout.before], layout))


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


def places_of(module: nn.Module) -> dict[str, Place]:
    """Where each parameter of a module is kept, by its name there: the module that has it, and its key."""
    return {
        f"{place}.{key}" if place else key: (child, key)
        for place, child in module.named_modules()
        for key, _ in child.named_parameters(recurse=False)
    }


@contextmanager
def replaced(values: Mapping[Place, Tensor | None]) -> Iterator[None]:
    """Put other weights in their places while the model, or a layer, runs."""
    own = {(module, key): module._parameters[key] for module, key in values}
    try:
        for (module, key), value in values.items():
            module._parameters[key] = value  # type: ignore[assignment]
        yield
    finally:
        for (module, key), before in own.items():
            module._parameters[key] = before
