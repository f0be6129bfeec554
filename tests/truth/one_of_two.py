"""One of two processes that learn together: `python one_of_two.py MODEL_FOLDER RESULT_FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[1]))
STEPS = 3


def learners(folder: Path, processes) -> Iterator[tuple[str, object]]:
    """Every way of learning, each at its first step; the models and ratings are those of its own tests."""
    import test_ilql
    import test_resume
    import test_reward_model
    import test_sft

    from storage.records import Prompt
    from trainer.algorithms.ilql import Ilql
    from trainer.algorithms.ppo import Ppo
    from trainer.algorithms.sft import sft
    from trainer.config import Advantage
    from trainer.examples import Examples, Labelled, Pair, Response, Scored
    from trainer.reward.fitting import RewardFit
    from trainer.reward.model import RewardModel

    backbone = test_ilql.backbone_of(folder)
    yield "ilql", Ilql(backbone, test_ilql.planted(), test_ilql.CONFIG, 1, None, processes)
    yield "sft", sft(backbone, test_sft.one_each(), test_sft.CONFIG, 1, None, processes)

    texts = test_reward_model.CORPUS
    prompts = [Prompt(f"p{place}", text, f"l{place % 3}", "") for place, text in enumerate(texts)]
    reward = RewardModel(backbone, test_resume.RewardConfig(rank=4), seed=5)
    with torch.no_grad():
        reward.head.weight.normal_(generator=torch.Generator().manual_seed(6))
    gae = test_resume.CONFIG
    for name, config in {
        "ppo": gae,
        "ppo in parts": replace(gae, accumulation=2),
        "rloo": replace(gae, advantage=Advantage.RLOO),
    }.items():
        yield name, Ppo(backbone, reward, prompts, config, 3, None, processes)

    said = [Response(prompts[n % 10], " ".join(texts[n % 7].split()[: 1 + n % 5]), None, None) for n in range(45)]
    examples = Examples(
        [Scored(answer, n % 5 / 2 - 1, "amina") for n, answer in enumerate(said[:21])],
        [Labelled(answer, n % 3 == 0, 1.0, "juma") for n, answer in enumerate(said[21:31])],
        [
            Pair(one, two, n % 2, "juma", n % 3 == 0)
            for n, (one, two) in enumerate(zip(said[31:38], said[38:], strict=True))
        ],
    )
    config = replace(test_reward_model.CONFIG, batch=9, epochs=2, learning_rate=1e-3)
    yield "reward model", RewardFit(backbone, examples, config, 1, processes)


def main(folder: Path, result: Path) -> None:
    from trainer.checkpoints import save
    from trainer.processes import Processes

    torch.set_num_threads(1)
    processes = Processes.launched()
    assert processes.count == 2
    for name, learner in learners(folder, processes):
        for _ in range(STEPS):
            learner.advance()
        if name == "reward model":
            learner.report()
        if processes.main:
            save(result / name, learner)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
