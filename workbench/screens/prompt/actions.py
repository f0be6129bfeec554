"""What can be done on Prompt: ask, and rate what comes."""

from __future__ import annotations

from workbench.shell.action import REDO, UNDO, Action, in_words, on, scores, tags

SCREEN = "prompt"

ACTIONS: tuple[Action, ...] = (
    on(SCREEN, "send", "enter ctrl+j alt+enter", "send", "Send the prompt (Enter while it is one line long)",
        when="writing"),
    on(SCREEN, "stop", "escape", "stop", "Stop writing: answers end where they are, and the prompt is left for the "
        "answers; what was said and typed is kept"),
    on(SCREEN, "unfold", "enter space", "unfold", "Unfold the turn in focus, or fold it again", when="turn"),
    on(SCREEN, "fork", "F", "fork", "Fork the conversation: go on once more from the turn in focus", when="turn"),
    on(SCREEN, "rewrite", "W", "rewrite", "Write what was asked anew, of the turn in focus or last: the conversation "
        "forks", when="answers"),
    on(SCREEN, "leave-input", "tab", "answers", "Go from the prompt to the answers, which go on", when="writing",
        short="rate"),
    on(SCREEN, "drop", "ctrl+t", "drop", "Drop the prompts that wait, and forget those set aside; all stay in the "
        "history", priority=True),
    *scores(SCREEN, "answers"),
    *(
        on(SCREEN, f"prefer-{c}", c, "prefer", "Prefer the answer with this letter to the others, and go on from it",
            when="several answers", call=f"prefer('{c}')")
        for c in "abcd"
    ),
    on(SCREEN, "good", "g", "good", "Label the answer in focus good", when="answers"),
    on(SCREEN, "bad", "x", "bad", "Label the answer in focus bad", when="answers"),
    on(SCREEN, "bad-one", "b", "bad", "Label the only answer bad", when="one answer"),
    on(SCREEN, "tie", "equals_sign", "tie", "The answers are equally good", when="several answers"),
    on(SCREEN, "prompt", "p", "prompt", "Read the whole prompt, where there is no room for it above the answers",
        when="answers"),
    on(SCREEN, "write", "i", "write", "Write a prompt", when="answers"),
    on(SCREEN, "choose", "enter", "go on", "Go on from the answer in focus: what you write next comes after it; with "
        "nothing written, from the prompt field too", when="answers"),
    on(SCREEN, "edit", "e", "edit", "Write a better answer over this one", when="answers"),
    on(SCREEN, "again", "r", "again", "Ask the same again with a fresh seed", when="answers"),
    *in_words(SCREEN, "answers"),
    *tags(SCREEN, "answers"),
    on(SCREEN, "new", "ctrl+n", "new", "Begin a new conversation", priority=True),
    on(SCREEN, "turns", "z ctrl+up", "turns", "Go to the earlier turns, to unfold, judge or fork one",
        when="turns"),
    on(SCREEN, "copy", "y", "copy", "Copy the answer to the clipboard (OSC 52, also over SSH)", when="answers"),
    on(SCREEN, "undo", "u alt+u", "undo", UNDO, stays=True),
    on(SCREEN, "redo", "ctrl+r", "redo", REDO, shown=False),
    on(SCREEN, "next", "tab right l", "next", "Go to the next answer, which a small terminal shows in its place",
        when="answers", shown=False),
    on(SCREEN, "previous", "shift+tab left h", "previous", "Go to the answer before", when="answers", shown=False),
    on(SCREEN, "language", "ctrl+l", "language", "Choose the language of the prompt", priority=True),
    on(SCREEN, "parameters", "ctrl+g", "parameters", "Set temperature, top-p, length, seed, answers and system "
        "prompt", short="params", priority=True),
    on(SCREEN, "conversations", "ctrl+k alt+l", "conversations", "List and search conversations, and go on with one",
        short="talks", priority=True),
    on(SCREEN, "history", "ctrl+f", "history", "Search earlier prompts", priority=True),
    on(SCREEN, "editor", "ctrl+o", "editor", "Write the prompt in $EDITOR", shown=False, priority=True),
)  # fmt: skip
