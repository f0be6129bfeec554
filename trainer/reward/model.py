"""The reward model: a scalar head on what the backbone makes of a response.

What the head reads of a response is the mean of its token embeddings, the mean of its states at the top of the lower
layers, the logarithm of its length, and how much it is in its prompt's language; or, with an adapter on the upper
layers, the state of the last token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from storage.errors import EarlierReleaseError, WorkbenchError
from trainer.algorithms.rollouts import Rollout
from trainer.config import RewardConfig, RewardKind
from trainer.policy.backbone import Backbone, ScalarHead
from trainer.policy.layout import TokenLayout
from trainer.reward.language import leaning
from trainer.reward.protocol import Scores
from trainer.reward.support import Support
from trainer.reward.uncertainty import Posterior

Ids = Sequence[list[int]]
NUMBERS = (1, 1)
"""The last parts of the features are single numbers: a logarithm of a length, and a leaning towards a language. Both
are 0 where nothing is known of them."""


class RewardModel(nn.Module):
    """Scores responses; after :meth:`normalise`, with mean 0 and deviation 1 on the reference policy's answers.

    It is a :class:`trainer.reward.protocol.Reward` that reads token ids, and the language that a prompt is said to be
    in (a BCP 47 tag).

    Attributes:
        parts: how many features of each kind the head reads: K in all.
        support: what the rated answers were like; None leaves rewards as they are.
        caution: deviations of its uncertainty that a reward is lowered by.
    """

    mean: Tensor
    deviation: Tensor
    # The posterior of the head; None where it was never computed.
    feature_centre: Tensor | None
    precision_factor: Tensor | None

    def __init__(self, backbone: Backbone, config: RewardConfig, seed: int) -> None:
        super().__init__()
        adapted = config.kind == RewardKind.ADAPTER
        self.adapter = backbone.new_adapter(config, seed, upper=True) if adapted else None
        size = backbone.hidden_size
        self.parts = (size,) if adapted else (backbone.network.embedding_size, size, *NUMBERS)
        self.head = ScalarHead(sum(self.parts)).to(backbone.device)
        self.register_buffer("mean", torch.zeros((), device=backbone.device))
        self.register_buffer("deviation", torch.ones((), device=backbone.device))
        self.register_buffer("feature_centre", None)
        self.register_buffer("precision_factor", None)
        self.support: Support | None = None
        self.caution = 0.0
        self.__dict__["backbone"] = backbone  # shared, so neither a parameter nor saved

    backbone: Backbone

    def features(self, trunk: Tensor, layout: TokenLayout, languages: Sequence[str]) -> Tensor:
        """(B, K) what the head reads of each response.

        Args:
            languages: of the B prompts.
        """
        if self.adapter is not None:
            return self.last_states(trunk, layout)
        words = layout.response_means(self.backbone.embeddings(layout))
        states = layout.response_means(self.backbone.plain_states(trunk, layout))
        length = layout.mask.sum(1, keepdim=True).log()
        return torch.cat([words, states, length, self.leanings(layout, languages)], 1)

    def leanings(self, layout: TokenLayout, languages: Sequence[str]) -> Tensor:
        """(B, 1) how much each response is in its prompt's language, from -1 to 1."""
        rows = zip(layout.targets.cpu(), layout.mask.cpu(), languages, strict=True)
        decode = self.backbone.tokenizer.decode
        found = [leaning(decode(ids[real].tolist()), language) for ids, real, language in rows]
        return torch.tensor(found, device=layout.mask.device)[:, None]

    def last_states(self, trunk: Tensor, layout: TokenLayout) -> Tensor:
        """(B, hidden) what the head reads of each response with an adapter; differentiable."""
        return self.backbone.upper(trunk, layout, self.adapter)[layout.last]

    def raw(self, trunk: Tensor, layout: TokenLayout) -> Tensor:
        """(B,) before normalisation, with an adapter; differentiable."""
        return self.head(self.last_states(trunk, layout))

    def of_vectors(self, words: Tensor, embedded: Tensor, layout: TokenLayout, leanings: Tensor) -> Tensor:
        """(B,) normalised rewards of responses whose tokens are given as vectors; differentiable in these.

        Args:
            words: (N, embedding size) as :meth:`Backbone.embeddings` gives them. embedded: (N, embedding size) what the
                layers begin with. leanings: (B, 1) of each response towards its prompt's language.
        """
        if self.adapter is not None:
            hidden = self.backbone.over_vectors(embedded, layout, self.adapter)
            return self._normalised(self.head(hidden[layout.last]))
        states = layout.response_means(self.backbone.plain_states_of(embedded, layout))
        length = layout.mask.sum(1, keepdim=True).log()
        features = torch.cat([layout.response_means(words), states, length, leanings], 1)
        return self._normalised(self.head(features))

    @torch.no_grad()
    def score(
        self, rollouts: Sequence[Rollout], trunk: Tensor, layout: TokenLayout, reference: Tensor
    ) -> tuple[Scores, Tensor]:
        """Rewards in deviations of the reference policy's answers; a value is read from the adapter's states, or from
        the base model's."""
        if self.adapter is None:
            return self._scores(rollouts, self.features(trunk, layout, _languages(rollouts))), reference
        hidden = self.backbone.upper(trunk, layout, self.adapter)
        return self._scores(rollouts, hidden[layout.last]), hidden

    def rate(self, rollouts: Sequence[Rollout]) -> Scores:
        """The rewards of any number of rollouts."""
        return self._scores(rollouts, self.features_of(rollouts))

    def features_of(self, rollouts: Sequence[Rollout]) -> Tensor:
        """(n, K) what the head reads of each rollout."""
        prompts = [rollout.prompt_ids for rollout in rollouts]
        responses = [rollout.completion.token_ids for rollout in rollouts]
        return self.features_of_ids(prompts, responses, _languages(rollouts))

    def features_of_ids(self, prompts: Ids, responses: Ids, languages: Sequence[str], batch: int = 16) -> Tensor:
        """(n, K) what the head reads of any number of responses, to prompts in these languages."""
        found = list(self._features(prompts, responses, languages, batch))
        return torch.cat(found) if found else self.mean.new_zeros(0, sum(self.parts))

    @torch.no_grad()
    def difference_deviation(self, before: Tensor, after: Tensor) -> float:
        """The standard deviation, in deviations of the reward, of what the head makes of the difference between the
        means of two sets of features, (n, K) and (m, K); 0 where the model does not know its uncertainty."""
        if self.feature_centre is None or self.precision_factor is None:
            return 0.0
        known = Posterior(self.feature_centre, self.precision_factor)
        moved = (scaled(after).mean(0) - scaled(before).mean(0))[None]
        return float(known.difference_deviations(moved)[0] / self.deviation)

    def _scores(self, rollouts: Sequence[Rollout], features: Tensor) -> Scores:
        """A reward is lowered by `caution` times what its deviation exceeds the usual one by, and never above the best
        rated."""
        plain = self._normalised(self.head(features)).detach()
        if self.support is None or self.feature_centre is None or self.precision_factor is None:
            return Scores.certain(plain)
        known = Posterior(self.feature_centre, self.precision_factor).deviations(scaled(features)) / self.deviation
        facts = [
            (len(rollout.completion.token_ids), rollout.prompt.language, deviation)
            for rollout, deviation in zip(rollouts, known.tolist(), strict=True)
        ]
        unsure = plain.new_tensor([self.support.deviation(*fact) for fact in facts])
        outside = torch.tensor([self.support.is_outside(*fact) for fact in facts], device=plain.device)
        lowered = self.caution * (unsure - self.support.usual).clamp_min(0)
        return Scores(plain.clamp_max(self.support.best) - lowered, plain, outside)

    def score_responses(self, prompts: Ids, responses: Ids, languages: Sequence[str], batch: int = 16) -> Tensor:
        """Normalised rewards (n,) of any number of responses, to prompts in these languages."""
        found = self._features(prompts, responses, languages, batch)
        parts = [self._normalised(self.head(features)) for features in found]
        return torch.cat([part.detach() for part in parts]) if parts else self.mean.new_zeros(0)

    @property
    def knows_uncertainty(self) -> bool:
        """Whether :meth:`score_with_uncertainty` can be used."""
        return self.precision_factor is not None

    @torch.no_grad()
    def score_with_uncertainty(
        self, prompts: Ids, responses: Ids, languages: Sequence[str], batch: int = 16
    ) -> tuple[Tensor, Tensor]:
        """Normalised rewards and their standard deviations, (n,) each, in the same units.

        Raises:
            WorkbenchError: the model was stored without what it takes.
        """
        if self.feature_centre is None or self.precision_factor is None:
            raise WorkbenchError(
                "the uncertainty of this reward model is unavailable: it was stored without it",
                "fit a new one with `trainer reward`; its rewards can be used as they are",
            )
        known = Posterior(self.feature_centre, self.precision_factor)
        rewards, deviations = [self.mean.new_zeros(0)], [self.mean.new_zeros(0)]
        for features in self._features(prompts, responses, languages, batch):
            rewards.append(self._normalised(self.head(features)))
            deviations.append(known.deviations(scaled(features)) / self.deviation)
        return torch.cat(rewards), torch.cat(deviations)

    def keep(self, posterior: Posterior) -> None:
        """Keep what is known of the head; its features are those of :func:`scaled`."""
        device = self.mean.device
        self.feature_centre, self.precision_factor = posterior.centre.to(device), posterior.factor.to(device)

    @torch.no_grad()
    def normalise(self, prompts: Ids, responses: Ids, languages: Sequence[str]) -> None:
        """Set gain and bias so that these responses (the reference policy's) have mean 0 and deviation 1."""
        self.mean.zero_()
        self.deviation.fill_(1)
        scores = self.score_responses(prompts, responses, languages)
        self.mean.copy_(scores.mean())
        self.deviation.copy_(scores.std().clamp_min(1e-3))

    def save(self, path: Path, facts: dict[str, Any]) -> None:
        """Write adapter, head, normalisation and posterior to one safetensors file; `facts` go into its header."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        shape = {"split": str(self.backbone.split), "caution": repr(self.caution), "kind": str(RewardKind.LINEAR)}
        shape["parts"] = json.dumps(self.parts)
        if self.adapter is not None:
            own = {"rank": str(self.adapter.rank), "alpha": repr(self.adapter.alpha)}
            shape |= own | {"kind": str(RewardKind.ADAPTER)}
        if self.support is not None:
            shape["support"] = msgspec.json.encode(self.support).decode()
        save_file(tensors, str(path), metadata={"format": "pt", "facts": json.dumps(facts), **shape})

    @classmethod
    def read(cls, backbone: Backbone, path: Path) -> tuple[RewardModel, dict[str, Any]]:
        """The model of a file, of whatever rank it was fitted with, and its facts.

        Raises:
            EarlierReleaseError: it reads what no model of today reads.
            WorkbenchError: it cannot be used.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                found = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise WorkbenchError(f"the reward model {path} cannot be used: {error}", "fit it again") from error
        usual = RewardConfig()
        config = RewardConfig(
            kind=RewardKind(found.get("kind", RewardKind.ADAPTER)),  # files of before say nothing
            rank=int(found.get("rank", usual.rank)),
            alpha=float(found.get("alpha", usual.alpha)),
        )
        if int(found.get("split", backbone.split)) != backbone.split:
            raise WorkbenchError(
                f"the reward model {path} reads the states after layer {found['split']}, not {backbone.split}",
                "use the --upper-share that it was fitted with, or fit it again",
            )
        model = cls(backbone, config, seed=0)
        if json.loads(found.get("parts", f"[{backbone.hidden_size}]")) != list(model.parts):
            raise EarlierReleaseError(
                f"the reward model {path} reads other features of answers: it is of an earlier release",
                "fit a new one with `trainer reward`; with some hundred ratings it takes seconds. A job that fitted "
                "this one cannot go on: begin it anew",
            )
        return model, model.load(path)

    def load(self, path: Path) -> dict[str, Any]:
        """Read what :meth:`save` wrote; returns its facts. Raises WorkbenchError when the file does not fit.

        A file from before there was a posterior gives a model that does not know its uncertainty.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                header = file.metadata() or {}
            facts = json.loads(header.get("facts", "{}"))
            self.caution = float(header.get("caution", 0.0))
            self.support = msgspec.json.decode(header["support"], type=Support) if "support" in header else None
            for name in ("feature_centre", "precision_factor"):
                found = tensors.get(name)
                # Filled below. As it lies in the file it may not be aligned, and products then round otherwise.
                setattr(self, name, None if found is None else torch.empty_like(found, device=self.mean.device))
            self.load_state_dict(tensors)
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            raise WorkbenchError(
                f"the reward model {path} cannot be used: {error}", "fit it again, with the same --upper-share"
            ) from error
        return facts

    def _normalised(self, raw: Tensor) -> Tensor:
        return (raw - self.mean) / self.deviation

    @torch.no_grad()
    def _features(self, prompts: Ids, responses: Ids, languages: Sequence[str], batch: int) -> Iterator[Tensor]:
        """Features of any number of responses, a batch at a time."""
        for start in range(0, len(prompts), batch):
            rows = slice(start, start + batch)
            layout = self.backbone.layout(list(prompts[rows]), list(responses[rows]))
            yield self.features(self.backbone.trunk(layout), layout, languages[rows])


def _languages(rollouts: Sequence[Rollout]) -> list[str]:
    return [rollout.prompt.language for rollout in rollouts]


def scaled(features: Tensor) -> Tensor:
    """(n, K) in fp32, divided by the root of their size as the head does: a posterior is about its weights."""
    return features.float() / features.shape[-1] ** 0.5
