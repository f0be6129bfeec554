"""What a version makes of the items of suites: the option that it finds likeliest, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from storage.records import Message, Prompt, Sampling
from trainer.algorithms.rollouts import collect
from trainer.evaluation.answers import judged
from trainer.evaluation.items import Item, Options, Outcome, Question
from trainer.evaluation.seen import FIRST_SEED
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Decoder

OPTIONS_AT_ONCE, QUESTIONS_AT_ONCE = 32, 64  # before it is asked again whether to go on


def attempt(
    decoder: Decoder,
    tokenizer: ChatTokenizer,
    items: Sequence[Item],
    sampling: Sampling,
    seed: int = 0,
    check: Callable[[int], None] = lambda done: None,
) -> list[Outcome]:
    """What a version makes of each item, in their order; the same seeds for every version.

    Args:
        check: told how many are done before each batch; may raise to stop.
    """
    options = [item for item in items if isinstance(item, Options)]
    questions = [item for item in items if isinstance(item, Question)]
    found: dict[int, Outcome] = {}
    for start in range(0, len(options), OPTIONS_AT_ONCE):
        check(len(found))
        some = options[start : start + OPTIONS_AT_ONCE]
        found |= {id(outcome.item): outcome for outcome in _choose(decoder, tokenizer, some)}
    for start in range(0, len(questions), QUESTIONS_AT_ONCE):
        check(len(found))
        asked = questions[start : start + QUESTIONS_AT_ONCE]
        first = FIRST_SEED + seed * 1_000_003 + start
        found |= {id(outcome.item): outcome for outcome in _ask(decoder, tokenizer, asked, sampling, first)}
    check(len(found))
    return [found[id(item)] for item in items]


def _choose(decoder: Decoder, tokenizer: ChatTokenizer, items: Sequence[Options]) -> list[Outcome]:
    prompts, responses = [], []
    for item in items:
        before = _before(tokenizer, item)
        prompts += [before] * len(item.texts)
        responses += [tokenizer.encode_response(text, end=False) for text in item.follows]
    likely = iter(decoder.likelihood(prompts, responses))
    return [_chosen(item, tuple(next(likely) for _ in item.texts)) for item in items]


def _before(tokenizer: ChatTokenizer, item: Options) -> list[int]:
    """The tokens that the options of an item follow; never none."""
    if item.prompt is not None:
        return tokenizer.encode_messages([Message("user", item.prompt)])
    begin = tokenizer.tokenizer.bos_token_id
    start = tokenizer.encode_response(item.start, end=False) if item.start else []
    return [tokenizer.eos_id if begin is None else begin, *start]


def _chosen(item: Options, logprobs: tuple[float, ...]) -> Outcome:
    """Per byte, as lm-evaluation-harness compares options (`acc_norm`); whole sentences by their sums, as its
    CrowS-Pairs does."""
    sizes = [1 if item.whole else len(text.encode()) for text in item.follows]
    weighed = [value / size for value, size in zip(logprobs, sizes, strict=True)]
    best = max(range(len(weighed)), key=weighed.__getitem__)
    return Outcome(item, {name: counts[best] for name, counts in item.counts.items()}, item.texts[best], logprobs)


def _ask(
    decoder: Decoder, tokenizer: ChatTokenizer, items: Sequence[Question], sampling: Sampling, first_seed: int
) -> list[Outcome]:
    prompts = [Prompt(item.name, item.prompt, item.language, "") for item in items]
    found = []
    for item, rollout in zip(items, collect(decoder, tokenizer, prompts, 1, sampling, first_seed), strict=True):
        ended = rollout.completion.finish_reason == "eos"
        values = judged(rollout.text, item.answer_language, item.refusals, ended=ended)
        found.append(Outcome(item, {f"{item.part}/{name}" if item.part else name: value
                                    for name, value in values.items()}, rollout.text))  # fmt: skip
    return found
