"""The shape of the house: no two files need each other, and every file stands in its room."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import grimp
import networkx

HOUSE = Path(__file__).parents[1]
# What `workbench/` holds beside its rooms; everything else belongs into one.
AT_THE_DOOR = {"__init__.py", "__main__.py", "cli.py", "desk.py", "garbage.py", "text.py"}


def test_no_files_import_each_other_directly_or_in_a_circle() -> None:
    graph = grimp.build_graph("storage", "trainer", "workbench", exclude_type_checking_imports=True, cache_dir=None)
    imports = networkx.DiGraph()
    for module in graph.modules:
        imports.add_edges_from((module, other) for other in graph.find_modules_directly_imported_by(module))
    assert imports.number_of_nodes() > 150, "the graph is of the whole house"
    circles = [sorted(circle) for circle in networkx.strongly_connected_components(imports) if len(circle) > 1]
    assert not circles


def test_every_file_of_the_app_stands_in_a_room() -> None:
    assert {file.name for file in (HOUSE / "workbench").glob("*.py")} == AT_THE_DOOR


def test_every_room_says_what_it_is() -> None:
    for room in ("storage", "trainer", "workbench"):
        for start in (HOUSE / room).rglob("__init__.py"):
            assert start.read_text(encoding="utf-8").startswith('"""'), f"{start} does not say its room"


def test_no_two_files_of_tests_share_a_name() -> None:
    """pytest takes the folders of tests for no packages: it refuses the second of a name, and all tests with it."""
    names = Counter(file.name for file in (HOUSE / "tests").rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]


def test_no_handler_of_a_message_calls_the_one_it_overrides() -> None:
    """Textual calls the handler of every class that has one: a call to `super()` is a second time. (`on_event` is no
    handler but the way that every event takes to its handlers.)"""
    twice = [
        f"{file.name}: {handler.name}"
        for file in (HOUSE / "workbench").rglob("*.py")
        for handler in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(handler, ast.FunctionDef | ast.AsyncFunctionDef) and handler.name.startswith(("on_", "_on_"))
        if handler.name != "on_event"
        if f"super().{handler.name}(" in ast.unparse(handler)
    ]
    assert not twice


def test_workers_are_methods_marked_as_such() -> None:
    """`run_worker(coroutine())` makes what is never awaited where the worker is replaced before it begins."""
    calls = []
    for file in (HOUSE / "workbench").rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "run_worker":
                calls.append(f"{file.relative_to(HOUSE)}:{call.lineno}")
    assert calls == [], "mark the method with textual.work"
