"""An adapter beside the weights of its base model, never merged into them: how every version is sampled from.

A weight of 16 bits gives itself back when less than half of its step is added to it, and a young update is mostly that:
after four updates a merged sampler had a third of the policy's shift. Beside the weights nothing is lost, and rounding
happens where it does in learning (:mod:`trainer.policy.trainable_llama`). All versions of a base model share its
weights, and weights that are read in 4 bits stay so. Each product costs two small ones more.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from storage.errors import WorkbenchError
from trainer.policy.adapters import HEAD, Adapter
from trainer.policy.layers import Layer, linear_shapes
from trainer.policy.linear import AdaptedLinear, AdaptedOutput, Linear

if TYPE_CHECKING:
    from trainer.policy.llama import LlamaNetwork

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
        down, up = (part.to(network.device) for part in adapter.update(HEAD, network.plain_head.shape))
        made.head = AdaptedOutput(network.head, down, up)
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
        return AdaptedLinear(base, down, up, network.dtype, alone=network.four_bit)

    return replace(
        layer,
        qkv=beside(layer.qkv, _ATTENTION),
        output=beside(layer.output, ("self_attn.o_proj",)),
        gate_up=beside(layer.gate_up, _GATE_UP),
        down=beside(layer.down, ("mlp.down_proj",)),
    )
