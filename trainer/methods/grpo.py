"""GRPO: RLOO with the advantage divided by the spread of the answers to the same prompt."""

from __future__ import annotations

from trainer.config import PpoStage
from trainer.methods import ppo, rloo
from trainer.methods.method import GATED, Method, Recipe

METHOD = Method(
    name="grpo",
    summary=rloo.SUMMARY,
    manual=f"""Improve the policy with GRPO's advantage on the latest reward model.

    As rloo, divided by the spread of the answers to the same prompt. {GATED}

    \b
      trainer grpo --steps 40 --answers 8
    """,
    settings=PpoStage,
    own="ppo",
    learn=ppo.learn,
    memory=ppo.memory,
    ready=ppo.with_files,
    defaults={"ppo": {"advantage": "grpo"}},
    recipes=(
        Recipe(
            "g", "GRPO", "As RLOO, with the advantage divided by the spread of the answers to the prompt.",
            (ppo.ROUNDS, ppo.KL_TARGET, ppo.BATCH, ppo.ANSWERS, *ppo.POLICY), ppo.NEEDS, {"ppo.advantage": "grpo"},
        ),
    ),
)  # fmt: skip
