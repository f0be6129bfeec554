"""The reward model: an adapter on the backbone's upper layers and a scalar head on the last token of a response."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from storage.errors import WorkbenchError
from trainer.config import AdapterConfig
from trainer.policy.backbone import Backbone, ScalarHead
from trainer.policy.layout import TokenLayout


class RewardModel(nn.Module):
    """Scores responses; after :meth:`normalise`, with mean 0 and deviation 1 on the reference policy's answers."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, backbone: Backbone, config: AdapterConfig, seed: int) -> None:
        super().__init__()
        self.adapter = backbone.new_adapter(config, seed, upper=True)
        self.head = ScalarHead(backbone.hidden_size).to(backbone.device)
        self.register_buffer("mean", torch.zeros((), device=backbone.device))
        self.register_buffer("deviation", torch.ones((), device=backbone.device))
        self.__dict__["backbone"] = backbone  # shared, so neither a parameter nor saved

    backbone: Backbone

    def raw(self, trunk: Tensor, layout: TokenLayout) -> Tensor:
        """(B,) before normalisation; differentiable."""
        return self.head(self.backbone.upper(trunk, layout, self.adapter)[layout.last])

    @torch.no_grad()
    def score(self, trunk: Tensor, layout: TokenLayout) -> Tensor:
        """(B,) normalised rewards, in deviations of the reference policy's answers."""
        return (self.raw(trunk, layout) - self.mean) / self.deviation

    @torch.no_grad()
    def score_responses(self, prompts: Sequence[list[int]], responses: Sequence[list[int]], batch: int = 16) -> Tensor:
        """Normalised rewards (n,) of any number of responses."""
        found = []
        for start in range(0, len(prompts), batch):
            layout = self.backbone.layout(list(prompts[start : start + batch]), list(responses[start : start + batch]))
            found.append(self.score(self.backbone.trunk(layout), layout))
        return torch.cat(found)

    @torch.no_grad()
    def normalise(self, prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> None:
        """Set gain and bias so that these responses (the reference policy's) have mean 0 and deviation 1."""
        self.mean.zero_()
        self.deviation.fill_(1)
        scores = self.score_responses(prompts, responses)
        self.mean.copy_(scores.mean())
        self.deviation.copy_(scores.std().clamp_min(1e-3))

    def save(self, path: Path, facts: dict[str, Any]) -> None:
        """Write adapter, head and normalisation to one safetensors file; `facts` go into its header."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        save_file(tensors, str(path), metadata={"format": "pt", "facts": json.dumps(facts)})

    def load(self, path: Path) -> dict[str, Any]:
        """Read what :meth:`save` wrote; returns its facts. Raises WorkbenchError when the file does not fit."""
        try:
            with safe_open(str(path), framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            self.load_state_dict(tensors)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise WorkbenchError(f"the reward model {path} cannot be used: {error}", "fit it again") from error
        return facts
