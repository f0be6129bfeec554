"""What a job starts from: the model, the version to go on from, and what was rated and asked when it began."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from storage import versions
from storage.records import Begun, Prompt, Split, Version
from storage.wording import counted
from trainer import adopting
from trainer.config import FEWEST_HELD_OUT, PolicyStage, RewardStage
from trainer.examples import Examples, check_enough
from trainer.examples import collect as collect_examples
from trainer.job import HeldJob
from trainer.methods import method_of
from trainer.policy import devices, models
from trainer.policy.backbone import Backbone
from trainer.policy.chat import SYSTEM_FOLDED, ChatTokenizer
from trainer.policy.full import Snapshot, read_version
from trainer.policy.memory import Shape, check_fits, need_of
from trainer.policy.models import ModelFolder
from trainer.prompt_split import PromptSplit, split_prompts, table_split
from trainer.reward.batches import LONGEST_RESPONSE, responses_of

# Where the ratings decide how long answers may be: the share of rated answers that must fit, and the bounds, in tokens.
NEARLY_ALL = 0.95
SHORTEST_ROLLOUT, LONGEST_ROLLOUT, UNRATED_LENGTH = 16, 256, 48


@dataclass(frozen=True)
class Setting:
    """The same for every attempt at a job, whatever was rated and published since it began.

    Attributes:
        parent: the version that the policy goes on from.
        start: what that version changes in the base model; None where it is the base model itself.
        apart: what was said of held-out prompts, where a table of scores is to measure by it; nothing learns from it.
        answer_tokens: how long answers may be, in rollouts, at the gate and where rewards are normalised: what the
            configuration says, or else as long as the rated answers are, so that none is cut off that was not before.
    """

    backbone: Backbone
    base: Version
    parent: Version
    start: Snapshot | None
    split: PromptSplit
    examples: Examples
    begun: Begun | None
    apart: Examples
    answer_tokens: int


def set_up(held: HeldJob, config: RewardStage) -> Setting:
    """Read what there is to learn from, then load the model.

    Raises:
        UsageError: too few ratings or prompts, or no such model or device.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    devices.choose(config.device, config.dtype)  # what cannot be used is refused before anything is converted
    said: set[str] = set()

    def tell(text: str, _: float | None) -> None:
        if text not in said:  # it is told again with each hundredth done
            held.say(text)
        said.add(text)

    folder = held.share(lambda: models.resolve(config.model, held.workspace, tell))
    device, dtype = devices.choose(config.device, config.dtype, models.stored_bytes(folder))
    begun = held.job.begun

    def read() -> tuple[Examples, Examples, PromptSplit, Version, Version, Path | None]:
        database = held.database
        examples, split = collect_examples(database, folder.digest, begun), split_prompts(database, begun)
        apart = Examples()
        if not isinstance(config, PolicyStage) or config.reward_model == "new":
            check_enough(examples, config.reward.minimum)
        if isinstance(config, PolicyStage) and config.reward_model == "table":
            apart = collect_examples(database, folder.digest, begun, split=Split.HELD_OUT)
            split = table_split(split, examples, apart)
        root = adopting.root_of(database, held.workspace, folder)
        if folder.adapter is not None:
            held.say(f"{folder.adapter.name} is {root.name} of this workspace, on {folder.name}")
        served = versions.served(database, begun)
        parent = served if served is not None and versions.goes_back_to(database, served, root) else root
        words = versions.words_of(database, held.workspace, parent)
        return examples, apart, split, versions.base_of(database, root), parent, words

    examples, apart, split, base, parent, words = held.share(read)
    if split.leaked:
        held.say(
            f"{counted(split.leaked, 'training prompt asks', 'training prompts ask')} what held-out or ethics "
            "prompts ask: nothing learns from that"
        )
    folder = replace(folder, words=words)
    if isinstance(config, PolicyStage) and len(split.held_out) < FEWEST_HELD_OUT:
        held.say(
            f"only {counted(len(split.held_out), 'held-out prompt')} to measure with: too few to tell what is gained"
        )
    sharing = held.processes.count if held.processes.sharded else 1
    goes_on = bool(parent.file)
    longest, room, told = _check_memory(folder, device, dtype, config, examples, split, sharing, goes_on=goes_on)
    for text in told:
        held.say(text)
    torch.manual_seed(config.seed)
    backbone = Backbone(
        folder,
        device,
        dtype,
        config.upper_share,
        checkpointing=config.gradient_checkpointing,
        processes=sharing,
    )
    backbone.tokenizer.room = room
    start = read_version(held.workspace.root / parent.file, folder.path) if parent.file else None
    return Setting(backbone, base, parent, start, split, examples, begun, apart, longest)


def _check_memory(
    folder: ModelFolder,
    device: torch.device,
    dtype: torch.dtype,
    config: RewardStage,
    examples: Examples,
    split: PromptSplit,
    sharing: int,
    *,
    goes_on: bool,
) -> tuple[int, int, list[str]]:
    """How long answers may be, once it is known that the job fits; how long prompts may be; and what happens to those
    that the model cannot read as they are, in words.

    Raises:
        UsageError: the job would not fit into memory, or an answer not into the model's context.

    Args:
        sharing: how many processes share the weights.
        goes_on: whether the policy begins as a version, and not as the base model.
    """
    tokenizer = ChatTokenizer.load(folder.path, folder.words)
    rated = {response for example in examples.every() for response in responses_of(example)}
    texts = [response.token_ids or tokenizer.encode_response(response.text) for response in rated]
    lengths = [len(text) for text in texts]
    said = min(LONGEST_RESPONSE, max(lengths, default=1))
    longest = _stated_length(config) or usual_length(lengths)
    context = Shape.read(folder.path).context
    room = max(context - max(said, longest), context // 2)
    asked, told = read_prompts(tokenizer, [*split.practice, *split.held_out], room)
    need = need_of(config, asked, said, longest)
    need = replace(need, reference=need.reference and goes_on)
    if sharing > 1:
        need = replace(need, processes=sharing, checkpointing=True)
    check_fits(folder, device, dtype, need)
    return longest, room, told


def read_prompts(tokenizer: ChatTokenizer, prompts: Sequence[Prompt], room: int) -> tuple[int, list[str]]:
    """The tokens of the longest prompt, and what is not written as it was said, in words."""
    fitted = [tokenizer.fitted(prompt.messages, room) for prompt in prompts]
    cut = sum(dropped > 0 for _, dropped in fitted)
    folded = sum(tokenizer.folds(prompt.messages) for prompt in prompts)
    told = []
    if folded:
        told.append(f"{SYSTEM_FOLDED} (in {folded} of {counted(len(prompts), 'prompt')})")
    if cut:
        told.append(
            f"{cut} of {len(prompts)} prompts are conversations of more than {room} tokens, which is what the model's "
            "context leaves beside the answers: their earliest turns are left out"
        )
    return max(len(ids) for ids, _ in fitted), told


def usual_length(lengths: Sequence[int]) -> int:
    """Tokens within which nearly all rated answers end or were cut off, in whole eights; the usual without any."""
    if not lengths:
        return UNRATED_LENGTH
    ordered = sorted(lengths)
    nearly_all = ordered[min(len(ordered) - 1, math.floor(NEARLY_ALL * len(ordered)))]
    return min(LONGEST_ROLLOUT, max(SHORTEST_ROLLOUT, 8 * math.ceil(nearly_all / 8)))


def _stated_length(config: RewardStage) -> int:
    """The length of answers that a configuration asks for; 0 where the ratings decide."""
    if not isinstance(config, PolicyStage):
        return 0
    own = method_of(config).section(config)
    return getattr(own, "max_new_tokens", config.gate.max_new_tokens)
