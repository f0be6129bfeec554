"""One answer explained: what a reward model gives for each of its tokens, and how a version came to say each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from storage import conversations, jobs, learned_from, reward_models, versions
from storage.database import Database
from storage.errors import UsageError, WorkbenchError
from storage.records import Prompt, Sample, Version
from storage.records import RewardModel as RewardModelRecord
from storage.wording import counted
from storage.workspace import Workspace
from trainer.algorithms import critics
from trainer.config import RewardStage
from trainer.examples import Response
from trainer.explaining.tokens import integrated_gradients, left_out
from trainer.handing_over import base_of
from trainer.policy import devices, models
from trainer.policy.backbone import Backbone
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder
from trainer.policy.full import read_version
from trainer.policy.llama import LlamaNetwork
from trainer.reward.batches import encode
from trainer.reward.model import RewardModel, scaled
from trainer.reward.uncertainty import Posterior

BASELINE = "an answer as long and as much in its prompt's language, whose tokens are all the vocabulary's mean"
PARTS = ("words", "states", "length", "language")
AT_ONCE = 128  # tokens whose logits are formed together
Say = Callable[[str], None]


class Token(msgspec.Struct, frozen=True):
    """A token of an answer. Rewards are in deviations of the reward, log-probabilities in nats, at temperature 1.

    Attributes:
        text: empty where its bytes are the beginning of a character that a later token ends.
        reward: its share of the answer's reward, by integrated gradients.
        left_out: what the reward loses where the token is left out; None of an answer of one token.
        logprob: by the version. advantage: that, less the one by its reference.
        kl: exact, of the version's distribution from its reference's at this place.
        value: what the version's run expected to come of the answer before the token, in deviations of its reward.
        value_advantage: how much better it expected it to come out for the token; see
            :class:`trainer.algorithms.critics.Foretold`. Both None where `value_unknown` says why.
    """

    text: str
    reward: float
    left_out: float | None
    logprob: float
    advantage: float
    kl: float
    value: float | None = None
    value_advantage: float | None = None


class Explanation(msgspec.Struct, frozen=True):
    """An answer under a reward model.

    Attributes:
        version: whose probabilities are shown; `reference` is its base model, with adapters off.
        reward, baseline: the sum of the tokens' rewards is the difference.
        baseline_is: what the baseline is of, in words.
        deviation: how unsure the reward model is of the reward; None where it does not know.
        residual: of the difference, what was not found by integration and is shared out.
        value_unknown: why tokens have no value; empty where they have.
        parts: of the reward, by what the head reads, beyond the mean of rated answers (`average`); empty of an adapter.
    """

    sample: str
    prompt: str
    language: str
    text: str
    version: str
    reference: str
    reward_model: str
    reward: float
    baseline: float
    baseline_is: str
    deviation: float | None
    residual: float
    parts: dict[str, float]
    tokens: list[Token]
    value_unknown: str = ""


def explain(
    workspace: Workspace,
    database: Database,
    sample: Sample,
    *,
    version: str | None = None,
    reward_model: str | None = None,
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    say: Say = lambda text: None,
) -> Explanation:
    """Explain a stored answer.

    Args:
        version: whose probabilities to show; by default the one that said it, or else the one that is served.
        reward_model: its name; by default the newest of that base model. model: the base model, where it is not found.

    Raises:
        UsageError: no reward model was fitted, or the base model is not where it was.
    """
    chosen = _version_of(database, sample, version)
    base = versions.base_of(database, chosen)
    record = reward_models.find(database, chosen.base_digest, reward_model)
    if record is None:
        raise UsageError(
            f"there is no reward model {reward_model!r} of {chosen.base_model}"
            if reward_model
            else f"no reward model was fitted for {chosen.base_model} yet",
            "fit one with `trainer reward`",
        )
    share = upper_share(database, record)
    backbone = backbone_of(workspace, database, chosen, model, device, dtype, share, say)
    judge, _ = RewardModel.read(backbone, workspace.root / record.file)
    prompt = conversations.get(database, sample.prompt_id)
    own = sample.version is not None and versions.get(database, sample.version).base_digest == chosen.base_digest
    ids = tuple(sample.token_ids) if own and sample.token_ids else None
    asked, said = encode(backbone, Response(prompt, sample.text, ids, sample.version))
    if not said:
        raise UsageError(f"the answer {sample.id} is empty", "name one that says something")
    say(f"{counted(len(said), 'token')} under {record.name}: integrated gradients")
    shares = integrated_gradients(judge, asked, said, prompt.language)
    say("leaving out each token")
    lost = left_out(judge, asked, said, prompt.language)
    say(f"log-probabilities by {chosen.name} and {base.name}")
    file = versions.path_of(workspace, chosen)
    decoder = None if file is None else backbone.decoder(read_version(file, backbone.folder.path))
    chances, apart = compared(backbone, decoder, asked, said)
    deviation, parts = _parts(judge, asked, said, prompt.language)
    known, unknown = _foretold(workspace, database, backbone, chosen, decoder, prompt, asked, said)
    values = [(None, None)] * len(said) if known is None else [*zip(known.values, known.advantages, strict=True)]
    return Explanation(
        sample.id, prompt.text, prompt.language, sample.text, chosen.name, base.name, record.name, shares.reward,
        shares.baseline, BASELINE, deviation, shares.residual, parts,
        [
            Token(text, reward, without, logprob, advantage, kl, *foretold)
            for text, reward, without, (logprob, advantage), kl, foretold in zip(
                pieces(backbone.tokenizer, said), shares.shares, lost, chances.tolist(), apart.tolist(), values,
                strict=True,
            )
        ],
        unknown,
    )  # fmt: skip


def _foretold(
    workspace: Workspace,
    database: Database,
    backbone: Backbone,
    version: Version,
    decoder: Decoder | None,
    prompt: Prompt,
    asked: list[int],
    said: list[int],
) -> tuple[critics.Foretold | None, str]:
    """What the run of a version expected of an answer; or None, and why that is not known."""
    file = versions.path_of(workspace, version)
    if file is None:
        return None, f"{version.name} is a base model, which no run foretold anything of"
    try:
        critic = critics.Critic.read(file.parent)
        if critic is None:
            kind = jobs.get(database, version.job_id).kind if version.job_id else ""
            made = f"{version.name} was made by {kind}" if kind else f"{version.name} came from outside"
            return None, f"{made}, and no value was kept with it (PPO and ILQL have one)"
        record = learned_from.reward_of(database, version)
        reward = None if record is None else RewardModel.read(backbone, workspace.root / record.file)[0]
        return critics.foretold(critic, backbone, decoder, reward, prompt, asked, said), ""
    except WorkbenchError as error:
        return None, error.message


def backbone_of(
    workspace: Workspace,
    database: Database,
    version: Version,
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    upper_share: float = RewardStage().upper_share,
    say: Say = lambda text: None,
) -> Backbone:
    """The base model of a version in memory, with the tokenizer that the version was made with."""
    folder = base_of(workspace, database, version, model, lambda text, share: say(text))
    words: Path | None = versions.words_of(database, workspace, version)
    where, form = devices.choose(device, dtype, models.stored_bytes(folder))
    return Backbone(replace(folder, words=words), where, form, upper_share)


def upper_share(database: Database, record: RewardModelRecord) -> float:
    """The share of the layers that a reward model takes for the upper ones: what its job was told."""
    usual = RewardStage().upper_share
    return float(jobs.get(database, record.job_id).config.get("upper_share", usual)) if record.job_id else usual


@torch.no_grad()
def compared(backbone: Backbone, decoder: Decoder | None, prompt: list[int], said: list[int]) -> tuple[Tensor, Tensor]:
    """Of each of n tokens: its log-probability by a version and what that is above the base model's (n, 2), and the
    exact KL of the one distribution from the other there (n,). Without a decoder the version is the base model."""
    reference = backbone.decoder()
    places, divergence = [], []
    chosen = torch.tensor(said)
    for start in range(0, len(said), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        theirs = _logprobs(reference, backbone, prompt, said, rows)
        ours = theirs if decoder is None else _logprobs(decoder, backbone, prompt, said, rows)
        mine, other = (found.gather(-1, chosen[rows, None])[:, 0] for found in (ours, theirs))
        places.append(torch.stack([mine, mine - other], -1))
        divergence.append((ours.exp() * (ours - theirs)).nan_to_num(0.0).sum(-1).clamp_min(0))
    return torch.cat(places), torch.cat(divergence)


def _logprobs(decoder: Decoder, backbone: Backbone, prompt: list[int], said: list[int], rows: slice) -> Tensor:
    """(rows, vocabulary) of what follows the prompt and the tokens before each, as the sampler has it; on the CPU."""
    network = decoder.network
    if not isinstance(network, LlamaNetwork):
        before = [[*prompt, *said[:place]] for place in range(len(said))[rows]]
        return torch.cat([decoder.next_logprobs([one]) for one in before])
    layout = backbone.layout([prompt], [said])
    hidden = network.run(network.embed(layout), layout, None)
    return network.output(hidden[layout.before[rows]]).float().log_softmax(-1).cpu()


@torch.no_grad()
def _parts(
    model: RewardModel, prompt: list[int], said: list[int], language: str
) -> tuple[float | None, dict[str, float]]:
    """How unsure a model is of an answer's reward, and what each part of the features gives beyond the rated mean."""
    if model.feature_centre is None or model.precision_factor is None:
        return None, {}
    features = scaled(model.features_of_ids([prompt], [said], [language]))
    known = Posterior(model.feature_centre, model.precision_factor)
    deviation = float(known.deviations(features)[0] / model.deviation)
    if len(model.parts) != len(PARTS):
        return deviation, {}
    centre, weight = model.feature_centre, model.head.weight
    gained = ((features[0] - centre) * weight / model.deviation).split(model.parts)
    average = float((centre @ weight + model.head.bias - model.mean) / model.deviation)
    return deviation, {"average": average} | {name: float(part.sum()) for name, part in zip(PARTS, gained, strict=True)}


def pieces(tokenizer: ChatTokenizer, ids: Sequence[int]) -> list[str]:
    """The text of each token: together they are the answer, and the names of its special tokens.

    A character of several tokens stands at the last of them.
    """
    special, said = set(tokenizer.tokenizer.all_special_ids), ""
    found: list[str] = []
    begun: list[int] = []
    for place, token in enumerate(ids):
        if token in special:
            found.append(str(tokenizer.tokenizer.convert_ids_to_tokens(token)))
            continue
        begun.append(token)
        now = tokenizer.decode(begun)
        whole = place + 1 == len(ids) or not now.endswith("\ufffd")
        found.append(now[len(said) :] if whole else "")
        said = now if whole else said
    return found


def _version_of(database: Database, sample: Sample, named: str | None) -> Version:
    if named is not None:
        return versions.get(database, named)
    if sample.version is not None and (found := versions.find(database, sample.version)) is not None:
        return found
    served = versions.served(database)
    if served is None:
        raise UsageError(
            "no version is known that the answer could be compared with", "load a model first: ask a prompt in the app"
        )
    return served
