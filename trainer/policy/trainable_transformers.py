"""The differentiable forward pass of any causal language model of transformers, under an adapter or full tuning.

The modules are transformers' own, loaded once and frozen, and serve to sample as well. Full tuning puts the learned
weights in a layer's place while it computes. Sequences are padded at the right, where a causal model needs no mask: no
real token sees what comes after it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from storage.errors import UsageError, WorkbenchError
from storage.wording import counted
from trainer.policy.full import FullUpdate, Update
from trainer.policy.layout import TokenLayout
from trainer.policy.logprobs import OutputHead
from trainer.policy.models.module import load_module
from trainer.policy.sharding import shard
from trainer.policy.transformers_network import (
    TransformersNetwork,
    in_force,
    linear_layers,
    linear_shape,
    places_of,
    replaced,
)

# How far our log-probabilities of a probe may be from the model's own, in nats on average: rounding only.
PROBE_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 2e-2}
PROBE_LENGTHS = (9, 5)  # tokens


class TrainableTransformers(TransformersNetwork):
    """Hidden states of a causal language model, as :class:`trainer.policy.llama.LlamaNetwork` gives them.

    Its layers are run all together: a trunk is merely the token ids, and an upper part everything from them on, with
    updates in the upper layers alone.

    Args:
        mesh: the processes that share the weights of the layers, if any.

    Attributes:
        checkpointing: whether the backward pass computes each layer again instead of keeping what it needs.

    Raises:
        UsageError: the model computes something that training would not; nothing was changed.
    """

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype, mesh: Any = None) -> None:
        model: Any = load_module(folder, dtype).eval().requires_grad_(False)
        config = getattr(model.config, "text_config", None) or model.config
        self.layers = _decoder_layers(model, config.num_hidden_layers)
        if mesh:
            for layer in self.layers:
                shard(layer, mesh)
        super().__init__(model.to(device))
        self.dtype = dtype
        self.checkpointing = False
        self.head = OutputHead.of(model, config)
        self._update: Update | None = None
        self._prefixes = {module: f"{name}." for name, module in model.named_modules() if module in self.layers}
        self._called: set[str] = set()
        for layer in self.layers:
            self._wrap(layer)
        self._probe(folder.name)

    @property
    def hidden_size(self) -> int:
        return self.head.weight.shape[1]

    @property
    def head_weight(self) -> Tensor:
        return self.head.weight

    def adaptable(self, first_layer: int = 0) -> dict[str, tuple[int, int]]:
        """Names and (out, in) shapes of the linear layers from `first_layer` on (fused experts are none)."""
        prefixes = tuple(self._prefixes[layer] for layer in self.layers[first_layer:])
        return {
            name: shape
            for name, module in linear_layers(self.model).items()
            if name.startswith(prefixes) and name in self._called and (shape := linear_shape(module))
        }

    def layer_weights(self) -> list[str]:
        """Names of all weights of the layers."""
        return [f"{self._prefixes[layer]}{name}" for layer in self.layers for name, _ in layer.named_parameters()]

    def embed(self, layout: TokenLayout) -> Tensor:
        """(N,) the token ids themselves."""
        return layout.ids

    def embeddings(self, ids: Tensor) -> Tensor:
        """(N,) token ids -> (N, embedding_size) their embeddings."""
        return self.model.get_input_embeddings()(ids)

    @property
    def embedding_size(self) -> int:
        return self.model.get_input_embeddings().weight.shape[1]

    def run(
        self, x: Tensor, layout: TokenLayout, update: Update | None, first: int = 0, last: int | None = None
    ) -> Tensor:
        """As :meth:`trainer.policy.llama.LlamaNetwork.run`, all layers at once.

        Args:
            x: (N,) from :meth:`embed`.
            last: when given, nothing is computed yet and `x` comes back.

        Returns:
            (N, hidden) after the final norm.
        """
        if last is not None:
            return x
        self._update = update
        try:
            found = self.model.base_model(input_ids=x[layout.gather] * layout.real, use_cache=False)
        finally:
            self._update = None
        return found.last_hidden_state.flatten(0, 1)[layout.slots]

    def run_vectors(self, embedded: Tensor, layout: TokenLayout, update: Update | None) -> Tensor:
        """As :meth:`run`, from the vectors of tokens (N, embedding_size), which take the place of what is embedded."""
        table = self.model.get_input_embeddings()
        instead = table.register_forward_hook(lambda *_: layout.padded(embedded).to(self.dtype))
        try:
            return self.run(layout.ids, layout, update)
        finally:
            instead.remove()

    def _wrap(self, layer: nn.Module) -> None:
        """Make a layer apply the update in force, and compute again in the backward pass where that is wanted."""
        forward: Callable[..., Any] = layer.forward
        prefix = self._prefixes[layer]
        places = {f"{prefix}{name}": place for name, place in places_of(layer).items()}

        def learned(get: Callable[[str], Tensor | None], *args: Any, **kwargs: Any) -> Any:
            with replaced({place: get(name) for name, place in places.items()}):
                return forward(*args, **kwargs)

        def under(update: Update | None, *args: Any, **kwargs: Any) -> Any:
            if isinstance(update, FullUpdate):
                return update.layers[prefix](learned, *args, **kwargs)
            if update is None:
                return forward(*args, **kwargs)
            with in_force(partial(update.matrices, dtype=self.dtype)):
                return forward(*args, **kwargs)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if not (self.checkpointing and torch.is_grad_enabled()):
                return under(self._update, *args, **kwargs)
            run = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
            return run(under, self._update, *args, **kwargs)

        layer.forward = wrapped

    @torch.no_grad()
    def _probe(self, name: str) -> None:
        """Compare log-probabilities of random texts with the model's own, and note which linear layers are called."""
        generator = torch.Generator().manual_seed(0)
        vocabulary = self.head.weight.shape[0]
        rows = [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in PROBE_LENGTHS]
        layout = TokenLayout.build([row[:1] for row in rows], [row[1:] for row in rows], self.head.weight.device)
        with in_force(self._called.add):
            hidden = self.run(self.embed(layout), layout, None)
        found, _ = self.head.chosen(hidden[layout.before], layout.said, 1.0)
        own = []
        for row in rows:
            ids = torch.tensor([row], device=hidden.device)
            logprobs = self.model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
            own.append(logprobs.gather(-1, ids[0, 1:, None])[:, 0])
        difference = float((found - torch.cat(own)).abs().mean())
        if not difference <= PROBE_TOLERANCE[self.dtype]:
            raise UsageError(
                f"{name} cannot be trained here: its log-probabilities are {difference:.3g} nats from what training "
                f"computes, so its {self.model.config.model_type} architecture does something of its own",
                "train another model; this one can be prompted and rated",
            )


def _decoder_layers(model: Any, count: int) -> list[nn.Module]:
    """The blocks of the decoder. Raises WorkbenchError when they are not where every known model has them."""
    for module in model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    raise WorkbenchError(
        f"no list of {counted(count, 'layer')} was found in {type(model).__name__}",
        "train another model; this one can be rated",
    )
