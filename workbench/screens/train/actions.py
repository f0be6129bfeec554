"""What can be done on Train: start, stop, compare."""

from __future__ import annotations

from workbench.shell.action import Action, on

SCREEN = "train"

ACTIONS: tuple[Action, ...] = (
    on(SCREEN, "start", "enter", "start", "Choose a recipe and start training on the feedback so far"),
    on(SCREEN, "cancel", "c", "cancel", "Stop after this step and keep a checkpoint"),
    on(SCREEN, "resume", "r", "resume", "Go on from the checkpoint"),
    on(SCREEN, "compare", "v", "compare", "Compare runs: settings that differ, curves over each other, gains"),
)  # fmt: skip
