"""Two rounds of PPO in a process of its own: `python round_of_ppo.py MODEL_FOLDER lora|full ROWS MINIBATCH TOKENS`.

Prints how many bytes of memory it took, beside what came with imports and pages of files, and what was estimated.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import psutil
import torch

from storage.records import Prompt
from trainer.algorithms.ppo import Ppo
from trainer.config import RewardConfig
from trainer.methods.method import Need
from trainer.policy import memory
from trainer.policy.backbone import Backbone
from trainer.policy.chat import ChatTokenizer
from trainer.policy.models import ModelFolder
from trainer.policy_config import PpoConfig, Tuning
from trainer.reward.model import RewardModel

CPU, RANK = torch.device("cpu"), 16


def own_memory() -> int:
    """Resident bytes that are no pages of files."""
    found = psutil.Process().memory_info()
    return found.rss - found.shared


def watch(peak: list[int]) -> None:
    while True:
        peak[0] = max(peak[0], own_memory())
        time.sleep(0.005)


def main(folder: Path, tuning: Tuning, rows: int, minibatch: int, tokens: int) -> None:
    torch.set_num_threads(1)
    words = "Why do leaves turn red in autumn, and why does it not happen in each year to the same degree?"
    prompts = [Prompt(f"p{place}", f"{words} ({place})", "en", "") for place in range(rows)]
    asked = max(len(ChatTokenizer.load(folder).encode_prompt(prompt.text)) for prompt in prompts)
    config = PpoConfig(rank=RANK, batch=rows, answers=1, minibatch=minibatch, max_new_tokens=tokens, tuning=tuning)
    need = Need(rows, minibatch, asked, tokens, RANK, tuning, value=False, optimised=True)
    parts = memory.estimate(memory.Shape.read(folder), CPU, torch.float32, need)
    import trainer.policy.llama  # noqa: F401  (what is imported is no part of it)

    peak = [own_memory()]
    before = peak[0]
    threading.Thread(target=watch, args=(peak,), daemon=True).start()
    backbone = Backbone(ModelFolder("model", folder, ""), CPU, torch.float32)
    run = Ppo(backbone, RewardModel(backbone, RewardConfig(rank=4), seed=5), prompts, config, seed=3)
    for _ in range(2):  # of these the second keeps what there is to roll back to
        run.advance()
    print(json.dumps({"taken": peak[0] - before, "estimated": memory.total(parts), "parts": parts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Tuning(sys.argv[2]), *map(int, sys.argv[3:]))
