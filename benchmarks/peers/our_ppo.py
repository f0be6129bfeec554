"""Our PPO, one round a turn: `our_ppo.py MODEL_FOLDER TOKENS WORKSPACE DTYPE SETTINGS`; see benchmarks/peer.py."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import peak_mb
from benchmarks.prompts import QUESTIONS
from storage import clock
from storage.records import Prompt
from storage.workspace import Workspace
from trainer.algorithms.ppo import Ppo
from trainer.config import RewardConfig
from trainer.policy import models
from trainer.policy.backbone import Backbone
from trainer.policy_config import PpoConfig
from trainer.reward.model import RewardModel


def make_ppo(folder: models.ModelFolder, tokens: int, dtype: torch.dtype = torch.bfloat16, **settings: Any) -> Ppo:
    """A run whose every round does its full work: no answer ends early, no epoch is cut short, nothing is undone."""
    backbone = Backbone(folder, torch.device("cpu"), dtype)
    backbone.tokenizer.eos_ids = frozenset()
    prompts = [Prompt(f"{place:02}", text, "en", clock.now()) for place, text in enumerate(QUESTIONS)]
    whole: dict[str, Any] = {"max_update_kl": 1e9, "kl_target": 1e6, "kl_rounds": 0, "max_new_tokens": tokens}
    config = PpoConfig(**{"batch": 16, "answers": 1, "minibatch": 8, "warmup": 0, **whole, **settings})
    return Ppo(backbone, RewardModel(backbone, RewardConfig(), 0), prompts, config, seed=0)


def main() -> None:
    tokens, dtype = int(sys.argv[2]), getattr(torch, sys.argv[4])
    folder = models.resolve("smollm2", Workspace(Path(sys.argv[3])))
    ppo = make_ppo(folder, tokens, dtype, **json.loads(sys.argv[5]))
    print(json.dumps({}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        report = ppo.advance()
        seconds = time.perf_counter() - began
        assert report.figures["response/length", None] == tokens, "an answer was cut short"
        parts = {part: report.figures[f"timing/{part}", None] for part in ("rollout", "score", "update")}
        print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), **parts}), flush=True)


if __name__ == "__main__":
    main()
