"""Which prompts a round practises on, and what the policy answers to them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from storage.errors import UsageError
from storage.records import Prompt, Sampling
from trainer.policy.chat import ChatTokenizer
from trainer.policy.decoding import Completion, Decoder


@dataclass(frozen=True)
class Rollout:
    """One answer of the policy: the tokens that were sampled are the tokens that are trained on."""

    prompt: Prompt
    prompt_ids: list[int]
    completion: Completion
    text: str


class PromptSampler:
    """Draws the prompts of each round, balanced across languages.

    A language is drawn with p ~ n^balance, then its prompts in a shuffled order that repeats none before all were
    used. The draw of a round depends on the seed and the round's number alone, so that a resumed run repeats it.
    """

    def __init__(self, prompts: Sequence[Prompt], balance: float, seed: int) -> None:
        self.by_language: dict[str, list[Prompt]] = {}
        for prompt in sorted(prompts, key=lambda prompt: prompt.id):
            self.by_language.setdefault(prompt.language, []).append(prompt)
        self.languages = sorted(self.by_language)
        self.weights = [len(self.by_language[language]) ** balance for language in self.languages]
        self.seed = seed

    def draw(self, round_number: int, count: int) -> list[Prompt]:
        """The prompts of a round."""
        used: dict[str, int] = dict.fromkeys(self.languages, 0)
        for earlier in range(round_number):
            for language in self._languages(earlier, count):
                used[language] += 1
        drawn = []
        for language in self._languages(round_number, count):
            drawn.append(self._nth(language, used[language]))
            used[language] += 1
        return drawn

    def _languages(self, round_number: int, count: int) -> list[str]:
        return random.Random(f"{self.seed} {round_number}").choices(self.languages, self.weights, k=count)

    def _nth(self, language: str, place: int) -> Prompt:
        prompts = self.by_language[language]
        turn, inside = divmod(place, len(prompts))
        order = random.Random(f"{self.seed} {language} {turn}").sample(range(len(prompts)), len(prompts))
        return prompts[order[inside]]


def collect(
    decoder: Decoder,
    tokenizer: ChatTokenizer,
    prompts: Sequence[Prompt],
    answers: int,
    sampling: Sampling,
    first_seed: int,
) -> list[Rollout]:
    """`answers` samples of each prompt, those of a prompt side by side; row i uses the seed `first_seed + i`."""
    rows = [prompt for prompt in prompts for _ in range(answers)]
    return collect_rows(decoder, tokenizer, rows, sampling, range(first_seed, first_seed + len(rows)))


def collect_rows(
    decoder: Decoder, tokenizer: ChatTokenizer, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int]
) -> list[Rollout]:
    """One answer a row, from the prompt and the seed of that row.

    Raises:
        UsageError: the sampling cuts the distribution, so that what is recorded would not be what was sampled from.
    """
    if sampling.top_p < 1 or sampling.top_k or sampling.repetition_penalty != 1:
        raise UsageError(
            "answers to learn from or to measure by are sampled from the whole distribution, at its temperature alone",
            "leave out top-p, top-k and the repetition penalty",
        )
    prompt_ids = [tokenizer.encode_messages(prompt.messages) for prompt in prompts]
    alone = len(prompts) == 1 and not decoder.conversing  # then it is answered twice, as two rows are
    each = 2 if alone else 1
    completions = decoder.generate(prompt_ids * each, sampling, list(seeds) * each, tokenizer.eos_ids)[: len(prompts)]
    return [
        Rollout(prompt, ids, completion, tokenizer.decode(completion.token_ids))
        for prompt, ids, completion in zip(prompts, prompt_ids, completions, strict=True)
    ]


def round_seed(seed: int, round_number: int) -> int:
    """The first of a block of row seeds that no other round of the run uses."""
    return (seed * 1_000_003 + round_number) * 4096 % (1 << 62)
