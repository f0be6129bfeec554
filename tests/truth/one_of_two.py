"""One of two processes that learn together: `python one_of_two.py MODEL_FOLDER RESULT_FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
STEPS = 3


def main(folder: Path, result: Path) -> None:
    import test_ilql
    import test_sft

    from trainer.algorithms.ilql import Ilql
    from trainer.algorithms.sft import sft
    from trainer.checkpoints import save
    from trainer.processes import Processes

    torch.set_num_threads(1)
    processes = Processes.launched()
    assert processes.count == 2
    backbone = test_ilql.backbone_of(folder)
    for name, learner in (
        ("ilql", Ilql(backbone, test_ilql.planted(), test_ilql.CONFIG, 1, None, processes)),
        ("sft", sft(backbone, test_sft.one_each(), test_sft.CONFIG, 1, None, processes)),
    ):
        for _ in range(STEPS):
            learner.advance()
        if processes.main:
            save(result / name, learner)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
