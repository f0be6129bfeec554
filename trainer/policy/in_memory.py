"""The weights that are trained on as a source for a sampler: read from memory, not from the model's files again."""

from __future__ import annotations

from torch import Tensor

from trainer.policy.adapters import HEAD
from trainer.policy.decoding import Changes
from trainer.policy.llama import EMBEDDING
from trainer.policy.trainable_llama import TrainableLlama


class InMemory:
    """The frozen weights of a trainable network with the changes of a version, as :class:`trainer.policy.llama.Source`.

    What a version leaves alone is not copied.
    """

    def __init__(self, network: TrainableLlama, changes: Changes | None) -> None:
        self.network = network
        self.changes = changes

    @property
    def shares_embedding(self) -> bool:
        return not self.changed(EMBEDDING)

    @property
    def shares_head(self) -> bool:
        return self.shares_embedding and not self.changed(HEAD)

    def changed(self, name: str) -> bool:
        return self.changes is not None and name in self.changes.names

    def get(self, name: str) -> Tensor | None:
        made = name == HEAD and self.changed(HEAD)  # a head that was tied gets weights of its own
        tensor = self.network.head_weight if made else self.network.tensor(name)
        return tensor if tensor is None or self.changes is None else self.changes.merge(name, tensor)
