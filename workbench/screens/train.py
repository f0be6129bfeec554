from textual.widgets import Static

from workbench.screens.base import WorkbenchScreen


class TrainScreen(WorkbenchScreen):
    KEY = "train"

    def body(self):
        yield Static("train")
