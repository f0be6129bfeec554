"""RLOO: PPO's updates with an answer's advantage over the others to the same prompt."""

from __future__ import annotations

from trainer.config import PpoStage
from trainer.methods import ppo
from trainer.methods.method import GATED, Method, Recipe

# Of GRPO as well.
SUMMARY = "the same with several answers a prompt and no value: simpler, as good for short answers"

METHOD = Method(
    name="rloo",
    summary=SUMMARY,
    manual=f"""Improve the policy by RLOO on the latest reward model.

    An answer's advantage is its reward less the mean of the other answers to the same prompt. {GATED}

    \b
      trainer rloo --steps 40 --answers 4
    """,
    settings=PpoStage,
    own="ppo",
    learn=ppo.learn,
    memory=ppo.memory,
    ready=ppo.with_files,
    defaults={"ppo": {"advantage": "rloo"}},
    recipes=(
        Recipe(
            "r", "RLOO",
            "Improve the policy on the latest reward model; an answer is compared with the others to the same prompt, "
            "without a value model.",
            (ppo.ROUNDS, ppo.KL_TARGET, ppo.BATCH, ppo.ANSWERS, *ppo.POLICY), ppo.NEEDS, {"ppo.advantage": "rloo"},
        ),
    ),
)  # fmt: skip
