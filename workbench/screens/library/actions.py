"""What can be done on Library: find a prompt, read it whole, and rate its answers again."""

from __future__ import annotations

from workbench.shell.action import REDO, UNDO, Action, in_words, on, scores, tags

SCREEN = "library"

ACTIONS: tuple[Action, ...] = (
    on(SCREEN, "open", "enter", "open", "Read the prompt in focus, its answers and all that was said of them",
       when="list"),
    on(SCREEN, "search", "slash", "search", "Search in all turns of all prompts, in any script", when="list"),
    on(SCREEN, "filter", "f", "filter",
       "Show one language, split, task, version, kind of rating or tag alone, or words in an answer", when="list"),
    on(SCREEN, "import", "I", "import", "Import prompts and feedback from a file, after a look at what they become",
       when="list"),
    on(SCREEN, "export", "E", "export", "Export what counts to a file, with a manifest and its digest", when="list"),
    on(SCREEN, "packs", "P", "packs", "Add prompts that come with the program, by language and task", when="list"),
    on(SCREEN, "columns-left", "left h", "columns", "Scroll to the columns on the left", when="list",
       call="columns(-1)", short="more"),
    on(SCREEN, "columns-right", "right l", "columns", "Scroll to the columns on the right", when="list",
       call="columns(1)", short="more"),
    on(SCREEN, "next", "tab right l", "other", "Go to the next answer", when="open"),
    on(SCREEN, "previous", "shift+tab left h", "other", "Go to the answer before", when="open", shown=False),
    *scores(SCREEN, "open"),
    on(SCREEN, "good", "g", "good", "Label the answer good", when="open"),
    on(SCREEN, "bad", "x", "bad", "Label the answer bad", when="open"),
    on(SCREEN, "edit", "e", "edit", "Write a better answer over this one", when="open"),
    *in_words(SCREEN, "open"),
    *tags(SCREEN, "open"),
    on(SCREEN, "copy", "y", "copy", "Copy the answer to the clipboard (OSC 52, also over SSH)", when="open"),
    on(SCREEN, "explain", "w", "why", "Show what the answer was rewarded for, token by token", when="open"),
    on(SCREEN, "use", "L", "change", "Change the language, the split or the task of the prompt"),
    on(SCREEN, "close", "escape", "back", "Go back from the prompt to the list, from the search to what it found",
       stays=True),
    on(SCREEN, "undo", "u", "undo", UNDO, stays=True),
    on(SCREEN, "redo", "ctrl+r", "redo", REDO, shown=False),
)  # fmt: skip
