from textual.widgets import Static

from workbench.screens.base import WorkbenchScreen


class ReviewScreen(WorkbenchScreen):
    KEY = "review"

    def body(self):
        yield Static("review")
