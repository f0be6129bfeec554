"""Direct preference optimisation: learn from comparisons of answers, without a reward to optimise and without sampling.

The policy's own log-probability over that of the version it began with is taken for a reward, r = beta log(pi / ref)
(of the whole answer), and is fitted to what people preferred:

- *dpo* (Rafailov et al. 2023): `-p log sigma(r_1 - r_2) - (1 - p) log sigma(r_2 - r_1)`, p how often the first wins.
  Where p is what Bradley and Terry's model says of a reward R, the optimum is `ref exp(R / beta)`, normalised.
- *ipo* (Azar et al. 2023): `(log ratio of the first less that of the second - (2 p - 1) / (2 beta))^2`, which has a
  finite optimum where one answer always wins.
- *kto* (Ethayarajh et al. 2024): answers one by one, good (+) or bad (-): `weight (1 - sigma(+-(r - beta z)))`, where z
  is how far the policy has moved in all, estimated by the answers to other prompts.

Pairs and edits teach as they are. Two answers to a prompt that nobody compared are compared by their scores and labels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from storage.errors import UsageError
from storage.wording import counted
from trainer.config import PolicyStage
from trainer.lazily import lazily
from trainer.methods.method import SHUFFLED, Ask, Chart, Learned, Method, Recipe, Supply
from trainer.methods.sft import asks, memory_of
from trainer.supervised_config import SupervisedConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional

    from trainer import learner as learning
    from trainer import outcomes, preview
    from trainer import processes as working
    from trainer.algorithms import comparisons as data
    from trainer.algorithms import rounds, supervised, updates
    from trainer.algorithms.supervised import Row
    from trainer.learner import Figures, StepReport
    from trainer.policy.backbone import Backbone
    from trainer.policy.full import Snapshot, Update
    from trainer.preview import Material, Taught
    from trainer.processes import Processes
    from trainer.task import Task
else:
    outcomes, preview = lazily("trainer.outcomes"), lazily("trainer.preview")
    torch, functional = lazily("torch"), lazily("torch.nn.functional")
    data, learning = lazily("trainer.algorithms.comparisons"), lazily("trainer.learner")
    rounds, supervised = lazily("trainer.algorithms.rounds"), lazily("trainer.algorithms.supervised")
    updates, working = lazily("trainer.algorithms.updates"), lazily("trainer.processes")


# Settings


class Loss(StrEnum):
    """What a comparison teaches: see the top of this file."""

    DPO = "dpo"
    IPO = "ipo"
    KTO = "kto"


class DpoConfig(SupervisedConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Learning from comparisons."""

    loss: Annotated[Loss, Meta(description="dpo, ipo, or kto (from good and bad answers one by one)")] = Loss.DPO
    beta: Annotated[float, Meta(gt=0, description="leash to the version it begins with; a higher one is shorter")] = 0.1
    margin: Annotated[
        float, Meta(ge=0, description="least difference of two scores or labels that tells which answer is better")
    ] = 0.5
    good_weight: Annotated[
        float, Meta(ge=0, description="of a good answer in kto; 0 lets good and bad ones weigh alike in all")
    ] = 0.0
    bad_weight: Annotated[float, Meta(gt=0, description="of a bad answer in kto")] = 1.0
    batch: Annotated[int, Meta(gt=0, description="comparisons (in kto answers) an update")] = 8
    minimum: Annotated[int, Meta(gt=0, description="fewest comparisons (in kto answers) to learn from")] = 4


class DpoStage(PolicyStage, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Learning from comparisons."""

    dpo: DpoConfig = DpoConfig()


# The losses


def preference_loss(gap: Tensor, wins: Tensor, beta: float, loss: Loss) -> Tensor:
    """The loss of each comparison (n,), of dpo or ipo.

    Args:
        gap: (n,) log(pi / ref) of the first answer less that of the second, nats.
        wins: (n,) how often the first is preferred, 0 to 1.
    """
    if loss == Loss.IPO:
        return (gap - (2 * wins - 1) / (2 * beta)).square()
    return -wins * functional.logsigmoid(beta * gap) - (1 - wins) * functional.logsigmoid(-beta * gap)


def kto_loss(ratio: Tensor, good: Tensor, point: float, beta: float, weights: tuple[float, float]) -> Tensor:
    """The loss of each answer (n,).

    Args:
        ratio: (n,) log(pi / ref), nats. good: (n,) bool.
        point: the reference point, nats; nothing flows back into it.
        weights: of good answers and of bad ones.
    """
    right = torch.where(good, ratio - point, point - ratio)
    return torch.where(good, *weights) * (1 - torch.sigmoid(beta * right))


def mismatched(rows: Sequence[Row]) -> list[Row]:
    """Each prompt with the answer to another prompt, the next in turn; none where all are to one prompt."""
    found = []
    for place, row in enumerate(rows):
        following = (rows[(place + step) % len(rows)] for step in range(1, len(rows)))
        other = next((one for one in following if one.group != row.group), None)
        if other is not None:
            found.append(replace(row, response=other.response))
    return found


class Dpo:
    """A run of DPO, IPO or KTO, as a :class:`trainer.learner.Learner`.

    Args:
        items: comparisons, or for kto answers whose `outcome` is above 0 where they are good.
        parent: the version to go on from, which is the reference as well; None for the base model.
        processes: those that work on this together, each on its part of every batch; by default this one alone.

    Raises:
        UsageError: nothing fits into the model's context, or the parent is of another kind.
    """

    stage = "preferences"

    def __init__(
        self,
        backbone: Backbone,
        items: Sequence[data.Item],
        config: DpoConfig,
        seed: int,
        parent: Snapshot | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.backbone, self.config = backbone, config
        self.processes = processes or working.Processes()
        context = backbone.config.max_position_embeddings
        self.course: supervised.Course[Any] = supervised.Course.of(items, context, config, seed)
        self.step, self.skipped = 0, 0
        self.steps = len(self.course.batches)
        self.policy = backbone.new_policy(config, seed + 1)
        self.reference: Update | None = None
        if parent is not None:
            self.policy.load(parent)
            self.reference = backbone.new_policy(config, 0)
            self.reference.load(parent)
        self.weights = self._weights()
        everything = [*self.course.learned, *self.course.held_out]
        self.known = self._known(list(dict.fromkeys(row for item in everything for row in _rows(item))))
        if config.loss != Loss.KTO:
            self.reference = None  # of which nothing more is asked
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=config.learning_rate, weight_decay=0.0)

    def advance(self) -> StepReport:
        """One update. Raises WorkbenchError when several in a row were not finite."""
        started = time.perf_counter()
        batch = self.course.batches[self.step]
        point = self._reference_point(batch)
        self.optimizer.zero_grad()
        facts: list[dict[str, Any]] = []
        for part in self.processes.cut(self.processes.shares(batch), _parts):
            losses, said = self._losses(part, point)
            (losses.sum() / len(batch)).backward()
            facts += said
        self.optimizer.param_groups[0]["lr"] = supervised.rate_at(self.step, self.steps, self.config.learning_rate)
        norm, taken = updates.take_step(self.optimizer, self.config.max_grad_norm, self.processes)
        figures = rounds.means(self.processes.gather(facts)) | (self.course.figures() if self.step == 0 else {})
        if self.config.loss == Loss.KTO:
            figures["preference/reference_point", None] = point
        figures["policy/grad_norm", None] = norm
        figures["policy/skipped", None] = float(not taken)
        figures["timing/update", None] = time.perf_counter() - started
        self.step += 1
        self.skipped = supervised.skipped_after(self.skipped, self.step, taken=taken)
        if self.course.measures_after(self.step):
            figures |= self.held_out()
        headline = {"loss": figures["loss/train", None], "accuracy": figures["preference/accuracy", None]}
        return learning.StepReport(figures, headline=headline)

    def held_out(self) -> Figures:
        """Loss, accuracy and gap of what was kept back, overall and by language."""
        with torch.no_grad():
            point = self._reference_point(self.course.held_out)
            parts = supervised.measured_parts(self.course.held_out, self.processes, supervised.MOST_TOKENS // 2)
            facts = [fact for part in parts for fact in self._losses(part, point)[1]]
        found = rounds.means(self.processes.gather(facts))
        names = {"loss/train": "loss/held_out", "preference/accuracy": "preference/held_out_accuracy"}
        return {(names[name], language): value for (name, language), value in found.items() if name in names}

    def _losses(self, part: Sequence[Any], point: float) -> tuple[Tensor, list[dict[str, Any]]]:
        """The loss of each item of a part (n,), and what it looked like."""
        rows = [row for item in part for row in _rows(item)]
        known = torch.tensor([self.known[row] for row in rows], device=self.backbone.device)
        ratios = self._log_likelihoods(rows, self.policy) - known
        beta = self.config.beta
        if self.config.loss == Loss.KTO:
            good = torch.tensor([row.outcome > 0 for row in rows], device=self.backbone.device)
            losses = kto_loss(ratios, good, point, beta, self.weights)
            towards = torch.where(good, ratios - point, point - ratios)
        else:
            wins = torch.tensor([item.wins for item in part], device=self.backbone.device)
            gap = ratios[::2] - ratios[1::2]
            losses = preference_loss(gap, wins, beta, self.config.loss)
            towards = gap * (2 * wins - 1).sign()
        facts = [
            {
                "language": item.language,
                "loss/train": loss,
                "preference/accuracy": 0.5 + 0.5 * ((gained > 0) - (gained < 0)),
                "preference/gap": gained,
            }
            for item, loss, gained in zip(part, losses.tolist(), towards.tolist(), strict=True)
        ]
        return losses, facts

    def _reference_point(self, items: Sequence[Any]) -> float:
        """What the policy has moved, nats: the mean of log(pi / ref) over answers to other prompts than those they are
        taken for, at least 0; no gradient. It is asked for kto alone."""
        if self.config.loss != Loss.KTO:
            return 0.0
        context = self.backbone.config.max_position_embeddings
        rows = [row for row in mismatched(items) if len(row) <= context]
        if not rows:
            return 0.0
        moved: list[float] = []
        with torch.no_grad():
            for part in supervised.measured_parts(rows, self.processes):
                own = self._log_likelihoods(part, self.policy)
                moved += (own - self._log_likelihoods(part, self.reference)).tolist()
        told = self.processes.gather(moved)
        return max(0.0, sum(told) / len(told))

    def _weights(self) -> tuple[float, float]:
        """Of good and of bad answers."""
        if self.config.loss != Loss.KTO:
            return 1.0, 1.0
        good = sum(row.outcome > 0 for row in self.course.learned)
        bad = len(self.course.learned) - good
        return self.config.good_weight or self.config.bad_weight * bad / max(1, good), self.config.bad_weight

    def _known(self, rows: list[Row]) -> dict[Row, float]:
        """The log-likelihood of each answer by the reference, nats: it never changes."""
        found: list[tuple[Row, float]] = []
        with torch.no_grad():
            for part in supervised.measured_parts(rows, self.processes):
                found += zip(part, self._log_likelihoods(part, self.reference).tolist(), strict=True)
        return dict(self.processes.gather(found))

    def _log_likelihoods(self, rows: Sequence[Row], policy: Update | None) -> Tensor:
        """(n,) the log-likelihood of each whole answer, nats; of the base model without a policy."""
        layout = self.backbone.layout([list(row.prompt) for row in rows], [list(row.response) for row in rows])
        return self.backbone.log_likelihood(self.backbone.hidden(layout, policy), layout, 1.0).sum(1)

    def modules(self) -> dict[str, torch.nn.Module]:
        return {"policy": self.policy}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"optimizer": self.optimizer}

    def state(self) -> dict[str, Any]:
        return {"step": self.step, "skipped": self.skipped}

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.skipped = state["step"], state["skipped"]

    def result(self) -> Snapshot:
        return self.policy.snapshot()


def _rows(item: data.Item) -> tuple[Row, ...]:
    return (item.first, item.second) if isinstance(item, data.Comparison) else (item,)


def _parts(items: list[Any]) -> list[list[Any]]:
    """Parts of a batch that fit into memory; each item may be two answers."""
    return supervised.parts(items, supervised.MOST_TOKENS // 2)


def learn(task: Task[DpoStage]) -> Learned:
    """Learn from the comparisons, or for kto from the answers one by one, that the judge did not learn from."""
    held, setting, own = task.held, task.setting, task.config.dpo
    if task.rewards is None:
        raise UsageError("nothing judges what is learned", "rate more answers, or fit a reward model first")
    if own.loss == Loss.KTO:
        items: Sequence[Any] = data.judged(setting.backbone, task.taught, own.minimum)
        good = sum(row.outcome > 0 for row in items)
        held.say(f"learning from {counted(len(items), 'answer')}: {good} good, {len(items) - good} bad")
    else:
        pairs, invented = data.told(task.taught), data.made(task.taught, own.margin)
        data.check_enough(pairs, invented, own.margin, own.minimum)
        held.say(
            f"learning from {counted(len(pairs), 'pair or edit', 'pairs and edits')}, and "
            f"{counted(len(invented), 'pair')} made from scores and labels"
        )
        items = data.comparisons(setting.backbone, [*pairs, *invented])
    task.link(setting.examples.rating_ids)
    learner = Dpo(setting.backbone, items, own, task.config.seed, setting.start, held.processes)
    task.learn(learner, own.checkpoint_every)
    return Learned(learner)


def previewed(material: Material, config: DpoStage) -> list[Taught]:
    """The comparisons, or for kto the answers one by one. Raises UsageError: there are too few."""
    own = config.dpo
    if own.loss == Loss.KTO:
        found = outcomes.outcomes(material.examples)
        outcomes.check_enough(found, own.minimum)
        return preview.of_outcomes([one for one in found if one.value])
    pairs, invented = data.told(material.examples), data.made(material.examples, own.margin)
    data.check_enough(pairs, invented, own.margin, own.minimum)
    return preview.of_pairs([*pairs, *invented])


ASKS = asks("dpo", Ask("dpo.beta", hint="a higher one moves less"), Ask("control"))
FEWEST = DpoConfig().minimum

METHOD = Method(
    name="dpo",
    summary="learn from comparisons directly, without a reward to optimise (DPO, IPO, KTO)",
    manual=f"""Learn from comparisons directly: DPO, or with --loss ipo or kto one of its kin.

    What the policy finds likelier than the version that it goes on from is fitted to what people preferred, in pairs
    and edits, and in pairs made from the scores and labels of answers to the same prompt (--margin apart). KTO takes
    answers one by one, good or bad. Nothing is sampled, and no reward is optimised; the gate's judge learned from other
    prompts. {SHUFFLED}

    \b
      trainer dpo --steps 100 --beta 0.1
      trainer dpo --loss ipo
      trainer dpo --loss kto --bad-weight 1.3
    """,
    settings=DpoStage,
    own="dpo",
    learn=learn,
    preview=previewed,
    memory=lambda config, whole, sampled: replace(
        memory_of(config.dpo, whole), minibatch=config.dpo.batch * (1 if config.dpo.loss == Loss.KTO else 2)
    ),
    board=(
        Chart("loss, mean over comparisons", "loss", "loss/train", "{:.3f}", -1, "data/examples", True),
        Chart("better answer likelier, share", "accuracy", "preference/accuracy", "{:.0%}", 1, "data/examples", True),
        Chart("held-out loss", "held out", "loss/held_out", "{:.3f}", -1, "data/held_out", True),
        Chart("lead of the better answer, nats", "lead", "preference/gap", "{:+.2f}", 1, "data/examples", True),
    ),
    recipes=(
        Recipe(
            "d", "DPO",
            "Learn from pairs, edits, and scores or labels of answers to the same prompt. Nothing is sampled, and no "
            "reward is optimised.",
            (Ask("dpo.loss", hint="dpo or ipo", choices={"dpo": "dpo", "ipo": "ipo"}), *ASKS),
            ((Supply.RATED, FEWEST), (Supply.COMPARED, 1), (Supply.JUDGED, 1)),
        ),
        Recipe(
            "o", "KTO", "Learn from good and bad answers one by one, each against how far the model has moved in all.",
            ASKS, ((Supply.RATED, FEWEST), (Supply.JUDGED, 1)), {"dpo.loss": "kto"},
        ),
    ),
)  # fmt: skip
