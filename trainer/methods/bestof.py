"""Best-of-n distillation: sample n answers to each prompt, keep the one that the reward likes best, and imitate it.

An answer y is the best of n with probability `P(R <= R(y))^n - P(R < R(y))^n` (where no two are alike to the reward),
and the KL of that to what was sampled from is at most `log n - (n - 1) / n` nats (Beirami et al. 2024): n is the leash.
Rounds after the first sample from what was learned so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from storage.errors import UsageError
from storage.wording import counted
from trainer.config import PolicyStage
from trainer.lazily import lazily
from trainer.methods.method import GATED, Ask, Chart, Learned, Method, Need, Recipe, Supply
from trainer.policy_config import PolicyConfig
from trainer.supervised_config import SupervisedConfig

if TYPE_CHECKING:
    import torch

    from storage import records
    from storage.records import Prompt
    from trainer import heap
    from trainer import learner as learning
    from trainer import processes as working
    from trainer.algorithms import maths, rollouts, rounds, supervised
    from trainer.algorithms.rollouts import Rollout
    from trainer.algorithms.supervised import Row
    from trainer.learner import Figures, StepReport
    from trainer.policy.backbone import Backbone
    from trainer.policy.full import Snapshot, Update
    from trainer.processes import Processes
    from trainer.reward.protocol import Reward
    from trainer.task import Task
else:
    torch, records, heap = lazily("torch"), lazily("storage.records"), lazily("trainer.heap")
    learning, working = lazily("trainer.learner"), lazily("trainer.processes")
    maths, rollouts = lazily("trainer.algorithms.maths"), lazily("trainer.algorithms.rollouts")
    rounds, supervised = lazily("trainer.algorithms.rounds"), lazily("trainer.algorithms.supervised")

SCORED_AT_ONCE = 16  # answers
MOST_SAMPLED = 4096  # answers a round: as many seeds as it has


class BestOfConfig(PolicyConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Best-of-n distillation."""

    answers: Annotated[int, Meta(ge=1, description="n: answers to each prompt, of which the best is kept")] = 8
    prompts: Annotated[int, Meta(gt=0, description="most prompts a round; all that there are where they are fewer")] = (
        64
    )
    rounds: Annotated[int, Meta(gt=0, description="rounds of sampling and imitation")] = 1
    epochs: Annotated[int, Meta(gt=0, description="passes over a round's best answers")] = 8
    batch: Annotated[int, Meta(gt=0, description="answers an update")] = 8
    learning_rate: Annotated[float, Meta(gt=0, description="peak rate of AdamW, falling linearly to 0 in a round")] = (
        2e-4
    )
    max_grad_norm: Annotated[float, Meta(gt=0, description="gradients are scaled down to this norm")] = 1.0
    max_new_tokens: Annotated[
        int, Meta(ge=0, description="longest answer, at the gate as well; 0 is as long as the rated answers are")
    ] = 0
    temperature: Annotated[float, Meta(gt=0, description="of sampling")] = 1.0
    language_balance: Annotated[
        float, Meta(ge=0, le=1, description="languages are drawn with p ~ n^this; 1 follows the prompts, 0 is even")
    ] = 0.4
    checkpoint_every: Annotated[int, Meta(gt=0, description="updates between checkpoints")] = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompts * self.answers > MOST_SAMPLED:
            raise ValueError(
                f"{counted(self.answers, 'answer')} to each of {counted(self.prompts, 'prompt is', 'prompts are')} "
                f"over {MOST_SAMPLED} a round"
            )


class BestOfStage(PolicyStage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Best-of-n distillation."""

    bestof: BestOfConfig = BestOfConfig()


def kl_bound(n: int) -> float:
    """Most nats that the best of n answers is from the distribution they are drawn from (Beirami et al. 2024)."""
    return math.log(n) - (n - 1) / n


def best(scores: Sequence[float], n: int) -> list[int]:
    """The place of the best of every n scores; the first of equal ones."""
    return [max(range(start, start + n), key=lambda place: scores[place]) for start in range(0, len(scores), n)]


class BestOf:
    """A run of best-of-n distillation, as a :class:`trainer.learner.Learner`: its steps are updates, and the first of a
    round samples what the round learns from.

    Args:
        start: what the version to go on from changes in the base model.
        processes: those that work on this together, each with its share of the prompts; by default this one alone.

    Raises:
        UsageError: there are fewer prompts than processes, or `start` is of another kind.
    """

    stage = "best of n"

    def __init__(
        self,
        backbone: Backbone,
        reward: Reward,
        prompts: Sequence[Prompt],
        config: BestOfConfig,
        seed: int,
        start: Snapshot | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.backbone, self.reward, self.config, self.seed = backbone, reward, config, seed
        self.processes = processes or working.Processes()
        self.practice = sorted(prompts, key=lambda prompt: prompt.id)
        self.sampler = rollouts.PromptSampler(prompts, config.language_balance, seed)
        most = min(config.prompts, len(prompts))
        self.drawn = most - most % self.processes.count  # the same number for every process
        if not self.drawn:
            raise UsageError(
                f"{counted(len(prompts), 'prompt cannot', 'prompts cannot')} be shared by "
                f"{counted(self.processes.count, 'process', 'processes')}",
                "ask more prompts, or launch fewer processes",
            )
        learned = config.epochs * self.drawn
        self.each = learned // min(config.batch, learned)  # updates a round
        self.step, self.steps = 0, config.rounds * self.each
        shared = (
            "rank",
            "alpha",
            "tuning",
            "policy_share",
            "learning_rate",
            "max_grad_norm",
            "language_balance",
            "batch",
        )
        imitation = SupervisedConfig(
            steps=self.each,
            most_repeats=config.epochs,
            held_out=0.0,
            **{name: getattr(config, name) for name in shared},
        )
        self.learner = supervised.SupervisedLearner(self.stage, backbone, None, imitation, seed, start, self.processes)
        self.kept: list[Row] = []

    @property
    def policy(self) -> Update:
        return self.learner.policy

    def advance(self) -> StepReport:
        """One update, and before the first of a round its answers. Raises WorkbenchError as the imitation does."""
        number, update = divmod(self.step, self.each)
        figures: Figures = {}
        shown: list[tuple[Rollout, float, float]] = []
        if not update:
            self.kept, figures, shown = self._sampled(number)
            self.learner.take_up(self.kept, self.seed + number)
        report = self.learner.advance()
        self.step += 1
        return learning.StepReport(report.figures | figures, shown, report.headline)

    def _sampled(self, number: int) -> tuple[list[Row], Figures, list[tuple[Rollout, float, float]]]:
        """A round's best answers, its figures, and an answer to each prompt as it came, with its reward and its KL."""
        config, n = self.config, self.config.answers
        chosen = self.practice if self.drawn == len(self.practice) else self.sampler.draw(number, self.drawn)
        mine = self.processes.part(list(range(self.drawn)))
        first = rollouts.round_seed(self.seed, number)
        asked = [(chosen[place], first + n * place + answer) for place in mine for answer in range(n)]
        sampling = records.Sampling(temperature=config.temperature, max_new_tokens=config.max_new_tokens)
        decoder = self.backbone.decoder(self.policy.snapshot())
        prompts, seeds = [prompt for prompt, _ in asked], [seed for _, seed in asked]
        said = rollouts.collect_rows(decoder, self.backbone.tokenizer, prompts, sampling, seeds)
        del decoder
        heap.release()
        scores = self.reward.rate(said)
        rewards = scores.rewards.tolist()
        facts = [
            {
                "language": one.prompt.language,
                "objective/scores": reward,
                "support/outside": float(outside),
                "response/length": len(one.completion.token_ids),
                "response/truncated": float(one.completion.finish_reason != "eos"),
            }
            for one, reward, outside in zip(said, rewards, scores.outside.tolist(), strict=True)
        ]
        places = best(rewards, n)
        kept = [
            supervised.Row(
                one.prompt.id, one.prompt.language, tuple(one.prompt_ids), tuple(one.completion.token_ids), reward
            )
            for one, reward in ((said[place], rewards[place]) for place in places)
        ]
        samples = said[::n]
        moved = self._kl(samples)
        facts_of_one = [
            {"language": row.language, "bestof/best": row.outcome, "objective/kl": kl}
            for row, kl in zip(kept, moved, strict=True)
        ]
        figures = rounds.means(self.processes.gather(facts)) | rounds.means(self.processes.gather(facts_of_one))
        figures["bestof/kl_bound", None] = kl_bound(n)
        shown = list(zip(samples, rewards[::n], moved, strict=True))
        return self.processes.gather(kept), figures, self.processes.gather(shown)

    def _kl(self, said: Sequence[Rollout]) -> list[float]:
        """How far each answer is from the base model by k3, nats: an estimate of the KL of what was sampled from."""
        found: list[float] = []
        with torch.no_grad():
            for start in range(0, len(said), SCORED_AT_ONCE):
                part = said[start : start + SCORED_AT_ONCE]
                layout = self.backbone.layout(
                    [one.prompt_ids for one in part], [one.completion.token_ids for one in part]
                )
                hidden = self.backbone.hidden(layout, None)
                reference = self.backbone.log_likelihood(hidden, layout, self.config.temperature)
                recorded = torch.tensor([value for one in part for value in one.completion.logprobs])
                sampler = layout.spread(recorded.to(reference))
                found += (maths.k3(sampler, reference) * layout.mask).sum(1).tolist()
        return found

    def modules(self) -> dict[str, torch.nn.Module]:
        return self.learner.modules()

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return self.learner.optimizers()

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "skipped": self.learner.skipped, "kept": msgspec.to_builtins(self.kept)}

    def restore(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.kept = [
            supervised.Row(row["group"], row["language"], tuple(row["prompt"]), tuple(row["response"]), row["outcome"])
            for row in state["kept"]
        ]
        if self.kept:
            self.learner.take_up(self.kept, self.seed + (self.step - 1) // self.each)
            self.learner.step = (self.step - 1) % self.each + 1
        self.learner.skipped = state["skipped"]

    def result(self) -> Snapshot:
        return self.learner.result()


def learn(task: Task[BestOfStage]) -> Learned:
    """Imitate the best of n answers, by the reward that is optimised."""
    setting = task.setting
    if task.rewards is None:
        raise UsageError("nothing tells which answer is best", "rate more answers, or fit a reward model first")
    own = msgspec.structs.replace(task.config.bestof, max_new_tokens=setting.answer_tokens)
    learner = BestOf(
        setting.backbone, task.rewards.optimised, setting.split.practice, own, task.config.seed, setting.start,
        task.held.processes,
    )  # fmt: skip
    task.held.say(f"the best of {counted(own.answers, 'answer')} to each of {counted(learner.drawn, 'prompt')}: "
                  f"at most {kl_bound(own.answers):.2f} nats a response from what they are drawn from")  # fmt: skip
    task.learn(learner, own.checkpoint_every)
    return Learned(learner)


def memory(config: BestOfStage, whole: Need, sampled_tokens: int) -> Need:
    """What sampling and imitation hold."""
    own = config.bestof
    return replace(
        whole,
        rows=2 * SCORED_AT_ONCE,
        minibatch=own.batch,
        response_tokens=sampled_tokens,
        rank=own.rank,
        tuning=own.tuning,
    )


METHOD = Method(
    name="best-of-n",
    summary="imitate the best of n answers: quick and steady, and never far from the base model",
    manual=f"""Best-of-n distillation: imitate the best of n answers to each prompt.

    Each round samples --answers answers to every practice prompt, scores them by the reward, and imitates the best one
    of each prompt. A reward counts as far as answers like those were rated. The best of n is at most
    log n - (n - 1) / n nats a response from what it is chosen from, so that a few rounds stay close. {GATED}

    \b
      trainer best-of-n --answers 8
      trainer best-of-n --rounds 3 --answers 4 --reward-model new
    """,
    settings=BestOfStage,
    own="bestof",
    learn=learn,
    memory=memory,
    board=(
        Chart("reward of what it says, by round", "reward", "objective/scores", "{:+.2f}", 1, "", True),
        Chart("loss on the best answers, nats/token", "loss", "loss/train", "{:.2f}", -1, "data/examples", True),
        Chart("reward of the best of n, by round", "best of n", "bestof/best", "{:+.2f}", 1, "data/examples", True),
        Chart("KL to reference, nats/sequence", "KL", "objective/kl", "{:.1f}", 0, "data/examples", True),
    ),
    recipes=(
        Recipe(
            "b", "best of n",
            "Sample several answers to each prompt, and imitate the one that the reward likes best. A round stays near "
            "what it began with.",
            (
                Ask("bestof.answers", hint="to each prompt, best one kept"),
                Ask("bestof.rounds", hint="of sampling and imitation"),
                Ask("bestof.prompts", hint="most prompts a round"),
                Ask("bestof.learning_rate", hint="falls to 0 in a round"),
                Ask("bestof.max_new_tokens", "longest answer", "0: as long as the rated answers"),
                Ask("seed", hint="the same seed, the same run"),
                Ask("control"),
            ),
            ((Supply.JUDGED, 1),),
        ),
    ),
)  # fmt: skip
