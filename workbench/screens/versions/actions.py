"""What can be done on Versions: load, publish, go back."""

from __future__ import annotations

from workbench.shell.action import Action, on

SCREEN = "versions"

ACTIONS: tuple[Action, ...] = (
    on(SCREEN, "load", "enter", "load", "Answer with this version, and stay on it"),
    on(SCREEN, "answers", "o", "answers", "Read held-out answers before and after, with all that the gate found"),
    on(SCREEN, "columns-left", "left h", "columns", "Scroll to the columns on the left", call="columns(-1)",
       short="more"),
    on(SCREEN, "columns-right", "right l", "columns", "Scroll to the columns on the right", call="columns(1)",
       short="more"),
    on(SCREEN, "publish", "p", "publish", "Serve this version from now on"),
    on(SCREEN, "rollback", "b", "roll back", "Go back to the version before the served one"),
    on(SCREEN, "follow", "f", "follow", "Follow newly published versions, or stay on the loaded one"),
    on(SCREEN, "explain", "w", "why", "Show the ratings behind this version, and which moved its reward most"),
)  # fmt: skip
