"""Counts in sentences: `1 rating was`, never `1 ratings were`, wherever a sentence with one is written."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.wording import counted
from workbench.cli import cli, run_command

ROOT = Path(__file__).parents[1]
FILES = sorted(path for room in ("storage", "trainer", "workbench") for path in (ROOT / room).rglob("*.py"))
NOUNS = [
    "act", "answer", "attempt", "byte", "cell", "character", "check", "column", "comparison", "conversation",
    "copy", "demonstration", "digest", "edit", "entry", "example", "event", "fact", "field", "figure", "file",
    "fold", "function", "group", "item", "job", "judgement", "key", "label", "language", "layer", "level", "line",
    "message", "minute", "model", "outcome", "pack", "pair", "page", "part", "pattern", "point", "problem",
    "process", "prompt", "question", "rater", "rating", "record", "release", "round", "row", "run", "sample",
    "score", "second", "seed", "session", "set", "setting", "step", "suite", "task", "text", "time", "token",
    "turn", "unit", "update", "value", "verdict", "version", "vote", "weight", "word",
]  # fmt: skip
PLURALS = {"copy": "copies", "entry": "entries", "process": "processes"}
PLURAL = re.compile(rf" (?:[a-z][a-z-]*,? ){{0,2}}?(?:{'|'.join(PLURALS.get(noun, noun + 's') for noun in NOUNS)})\b")
NO_COUNT = {
    # Words, not numbers, before a plural or a verb.
    "control", "group.control", "one_line(control, 20)", "model.adapter", "model.name", "file.name", "path", "folder",
    "name", "seed", "self.advantage", "self.where", "it", "words", "'s' if one else ''", "getattr(base, 'most', 'all')",
    # Sizes of models and of what they read, and bounds of which one alone makes no sense.
    "context", "room", "shape.context", "need.prompt_tokens", "need.response_tokens", "sampling.max_new_tokens",
    "self.vocabulary", "self.most", "threads", "protocol.MAX_LINE", "len(line)", "len(prompt)",
}  # fmt: skip
SEVERAL = {  # where the sentence is said at all
    "oasst.py: len(roots)", "guidelines.py: high - low + 1", "rankings.py: len(shown)", "jobs.py: len(found)",
    "comparisons.py: len(invented)", "function.py: len(rollouts)", "setting.py: len(prompts)", "doctor.py: back",
    "correcting.py: hanging.prompts", "choosing.py: len(questions)",
    "length.py: liked", "preview.py: others",
    "versions.py: lost.short", "detail.py: rate.short", "screen.py: self.lost.short",
}  # fmt: skip


def counts(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Values of f-strings that a plural follows: the line, the value and what follows."""
    strings = (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr))
    for value, after in (pair for node in strings for pair in pairwise(node.values)):
        if isinstance(value, ast.FormattedValue) and value.format_spec is None and isinstance(after, ast.Constant):
            found = PLURAL.match(after.value)
            if found is not None:
                yield value.lineno, ast.unparse(value.value), found[0]


@pytest.mark.parametrize("room", ["storage", "trainer", "workbench"])
def test_a_count_is_said_by_the_one_function_for_it(room: str) -> None:
    wrong = []
    for path in FILES:
        if path.relative_to(ROOT).parts[0] == room:
            text = path.read_text(encoding="utf-8")
            wrong += [f"{path.name}: 's' times a condition" for _ in re.findall(r"""['"]e?s['"] \* \(""", text)]
            wrong += [
                f"{path.relative_to(ROOT)}:{line}: {{{value}}}{after}"
                for line, value, after in counts(ast.parse(text))
                if value not in NO_COUNT
                and f"{path.name}: {value}" not in SEVERAL
                and "join(" not in value
                and "counted(" not in value
                and not value.isupper()
            ]
    assert wrong == [], "say it by storage.wording.counted"


@given(st.integers(0, 10**9), st.sampled_from(NOUNS))
def test_one_is_one_and_all_else_are_many(number: int, noun: str) -> None:
    many = PLURALS.get(noun, f"{noun}s")
    assert counted(number, noun, many) == f"{number} {noun if number == 1 else many}"
    assert counted(number, f"{noun} was", f"{many} were").endswith(" was" if number == 1 else " were")
    assert counted(number, noun) == f"{number} {noun}{'s' if number != 1 else ''}"


COMMANDS = [
    "import one.jsonl", "import one.jsonl", "import one.jsonl --rater bo", "export scores out.jsonl", "stats", "doctor",
    "queue", "raters", "agreement", "versions", "packs", "keys", "export events log.jsonl", "backup copy.db",
    "import pair.jsonl --dry-run", "merge other",
]  # fmt: skip


def test_commands_say_one_of_what_there_is_one_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    record = {"prompt": "Why does bread rise?", "response": "Yeast.", "score": 4, "language": "en", "rater": "ana"}
    Path("one.jsonl").write_text(json.dumps(record))
    Path("pair.jsonl").write_text(json.dumps({"prompt": "Why?", "chosen": "a", "rejected": "b"}))
    plural = re.compile(rf"(?<![\d.,/])1{PLURAL.pattern}")
    assert plural.search("imported 1 records")
    for line in ("import one.jsonl --workspace other", *(f"{one} --workspace here" for one in COMMANDS)):
        code = run_command(cli, line.split())
        said = "\n".join(capsys.readouterr())
        assert code == 0, (line, said)
        wrong = [found[0] for found in plural.finditer(said) if " of " not in found[0]]
        assert wrong == [], line
