"""Serving an adapter beside the weights of its base model instead of merging it into them.

All versions of a base model then share its weights: another version takes the memory of its adapter and no time to
merge, and weights that are read in 4 bits stay so. Each product costs two small ones more.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch.nn import functional

from storage.errors import WorkbenchError
from trainer.policy.adapters import HEAD, Adapter
from trainer.policy.linear import AdaptedLinear, FrozenLinear, Linear
from trainer.policy.llama import Layer, LlamaNetwork, linear_shapes

_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_GATE_UP = ("mlp.gate_proj", "mlp.up_proj")


def adapted(network: LlamaNetwork, adapter: Adapter) -> LlamaNetwork:
    """The network of a base model with an adapter beside its weights.

    Raises:
        WorkbenchError: the adapter changes weights that the model does not have, or of another shape.
    """
    names = {f"{prefix}{name}.weight" for prefix in _prefixes(network) for name in _shapes(network)}
    unknown = adapter.names - names - {HEAD}
    if unknown:
        raise WorkbenchError(
            f"the version changes weights that the model lacks, such as {min(unknown)}",
            "this version was trained on another base model",
        )
    made = copy.copy(network)
    made.layers = [
        _layer(network, prefix, layer, adapter)
        for prefix, layer in zip(_prefixes(network), network.layers, strict=True)
    ]
    if HEAD in adapter.names:
        made.head = FrozenLinear(adapter.merge(HEAD, network.plain_head))
    return made


def _prefixes(network: LlamaNetwork) -> list[str]:
    return [f"model.layers.{index}." for index in range(len(network.layers))]


def _shapes(network: LlamaNetwork) -> dict[str, tuple[int, int]]:
    """(out, in) of a block's linear weights."""
    return linear_shapes(network.heads, network.key_heads, network.head_size, network.hidden_size, network.inner_size)


def _layer(network: LlamaNetwork, prefix: str, layer: Layer, adapter: Adapter) -> Layer:
    shapes = _shapes(network)

    def beside(base: Linear, modules: tuple[str, ...]) -> Linear:
        """A layer that joins some weights, with the updates of those that the adapter changes."""
        downs, ups = [], []
        outs = [shapes[module][0] for module in modules]
        for place, module in enumerate(modules):
            name = f"{prefix}{module}.weight"
            if name not in adapter.names:
                continue
            down, up = adapter.update(name, shapes[module])
            if module in _ATTENTION[:2]:
                up = network.interleave(up)
            downs.append(down)
            ups.append(functional.pad(up, (0, 0, sum(outs[:place]), sum(outs[place + 1 :]))))
        if not downs:
            return base
        down, up = torch.cat(downs).to(network.device), torch.cat(ups, 1).to(network.device)
        return AdaptedLinear(base, down, up, network.dtype)

    return replace(
        layer,
        qkv=beside(layer.qkv, _ATTENTION),
        output=beside(layer.output, ("self_attn.o_proj",)),
        gate_up=beside(layer.gate_up, _GATE_UP),
        down=beside(layer.down, ("mlp.down_proj",)),
    )
