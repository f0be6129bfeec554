from textual.widgets import Static

from workbench.screens.base import WorkbenchScreen


class VersionsScreen(WorkbenchScreen):
    KEY = "versions"

    def body(self):
        yield Static("versions")
