"""REINFORCE: the plain policy gradient, an answer against all others of its round."""

from __future__ import annotations

from trainer.config import PpoStage
from trainer.methods import ppo
from trainer.methods.method import GATED, Method, Recipe

METHOD = Method(
    name="reinforce",
    summary="the same with one answer a prompt: the plainest",
    manual=f"""Improve the policy by REINFORCE on the latest reward model.

    An answer's advantage is its reward less the mean of the round's other answers; there is no value model. {GATED}

    \b
      trainer reinforce --steps 40 --answers 1
    """,
    settings=PpoStage,
    own="ppo",
    learn=ppo.learn,
    memory=ppo.memory,
    ready=ppo.with_files,
    defaults={"ppo": {"advantage": "reinforce", "epochs": 1}},
    recipes=(
        Recipe(
            "e", "REINFORCE",
            "Improve the policy on the latest reward model by the plain policy gradient; an answer is compared with "
            "all others of the round.",
            (ppo.ROUNDS, ppo.KL_TARGET, ppo.BATCH, *ppo.POLICY), ppo.NEEDS,
            {"ppo.advantage": "reinforce", "ppo.epochs": 1},
        ),
    ),
)  # fmt: skip
