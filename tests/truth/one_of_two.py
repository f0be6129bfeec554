"""One of two processes that learn together: `python one_of_two.py MODEL_FOLDER RESULT_FOLDER`.

With `ACCELERATE_USE_FSDP` each keeps half of the weights.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[1]))
STEPS = 3


def learners(folder: Path, processes) -> Iterator[tuple[str, object]]:
    """Every way of learning, each at its first step; the models and ratings are those of its own tests."""
    import test_bestof
    import test_dpo
    import test_ilql
    import test_resume
    import test_reward_model
    import test_sft

    from storage.records import Prompt
    from trainer.algorithms.ilql import Ilql
    from trainer.algorithms.ppo import Ppo
    from trainer.algorithms.sft import sft
    from trainer.examples import Examples, Labelled, Pair, Response, Scored
    from trainer.methods.bestof import BestOf
    from trainer.methods.dpo import Dpo, Loss
    from trainer.policy.trainable_transformers import TrainableTransformers
    from trainer.policy_config import Advantage, Tuning
    from trainer.reward.fitting import RewardFit

    backbone = backbone_of(folder, processes)
    yield "ilql, imitation", Ilql(backbone, test_ilql.planted(), test_ilql.CONFIG, 1, None, processes)
    heads = replace(test_ilql.CONFIG, language_model=0.0)
    yield "ilql", Ilql(backbone, test_ilql.planted(), heads, 1, None, processes)
    yield "sft", sft(backbone, test_sft.one_each(), test_sft.CONFIG, 1, None, processes)

    for loss in Loss:
        items = test_dpo.alike(backbone, loss)
        yield loss, Dpo(backbone, items, replace(test_dpo.CONFIG, loss=loss, batch=8), 1, None, processes)

    texts = test_reward_model.CORPUS
    prompts = [Prompt(f"p{place}", text, f"l{place % 3}", "") for place, text in enumerate(texts)]
    reward = reward_of(backbone)
    yield "best of n", BestOf(backbone, reward, prompts, replace(test_bestof.CONFIG, rounds=2), 1, None, processes)
    gae = test_resume.CONFIG
    for name, config in {
        "ppo": gae,
        "ppo in parts": replace(gae, accumulation=2),
        "rloo": replace(gae, advantage=Advantage.RLOO),
        "ppo of all weights": replace(gae, tuning=Tuning.FULL),
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

    general = backbone_of(general_copy(folder), processes)
    assert isinstance(general.network, TrainableTransformers)
    for name, tuning in {"general sft": Tuning.LORA, "general sft of all weights": Tuning.FULL}.items():
        yield name, sft(general, test_sft.one_each(), replace(test_sft.CONFIG, tuning=tuning), 1, None, processes)
    yield "general ppo", Ppo(general, reward_of(general), prompts, gae, 3, None, processes)


def reward_of(backbone) -> object:
    """One that likes some answers and not others, for no reason."""
    from trainer.config import RewardConfig
    from trainer.reward.model import RewardModel

    reward = RewardModel(backbone, RewardConfig(rank=4), seed=5)
    with torch.no_grad():
        reward.head.weight.normal_(generator=torch.Generator().manual_seed(6))
    return reward


def backbone_of(folder: Path, processes) -> object:
    from trainer.policy.backbone import Backbone
    from trainer.policy.models import ModelFolder
    from trainer.policy.sharding import is_split

    count = processes.count if processes and processes.sharded else 1
    backbone = Backbone(ModelFolder("tiny", folder, "digest"), torch.device("cpu"), torch.float32, processes=count)
    layer = backbone.network.layers[0]
    held = [*layer.parameters()] or [one.weight for one in (layer.qkv, layer.output, layer.gate_up, layer.down)]
    for weight in held:
        assert is_split(weight) == (count > 1)
        if count > 1:
            assert weight.to_local().numel() * count == weight.numel()
            assert weight.to_local().untyped_storage().nbytes() * count == weight.numel() * weight.itemsize
    return backbone


def general_copy(folder: Path) -> Path:
    """The same model in a folder whose configuration the fast path leaves to transformers."""
    copy = folder.with_name(f"{folder.name}-general")
    if not copy.exists():
        shutil.copytree(folder, copy)
        config = json.loads((folder / "config.json").read_text())
        config["rope_parameters"] = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 1.0}
        (copy / "config.json").write_text(json.dumps(config))
    return copy


def main(folder: Path, result: Path) -> None:
    from trainer.checkpoints import load
    from trainer.processes import Processes

    torch.set_num_threads(1)
    processes = Processes.launched()
    assert processes.count == 2
    again = learners(folder, processes)
    for name, learner in learners(folder, processes):
        _, resumed = next(again)
        for _ in range(STEPS - 1):
            learner.advance()
        keep(result / f"{name} begun", learner, processes)
        load(result / f"{name} begun", resumed)
        resumed.advance()
        if name == "reward model":
            resumed.report()
        keep(result / name, resumed, processes)


def keep(folder: Path, learner, processes) -> None:
    """A checkpoint by the main process, which the other one can then read."""
    from trainer.checkpoints import gathered, write

    tensors = gathered(learner, keep=processes.main)
    assert bool(tensors) == processes.main
    processes.share(lambda: write(folder, learner, tensors))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
