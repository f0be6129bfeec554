"""Talking with a process of `children.py`, line by line."""

from __future__ import annotations

import subprocess

Child = subprocess.Popen[str]


def next_line(child: Child) -> str:
    """What the child says next; empty when it has ended."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def go(child: Child) -> None:
    """Let a waiting child go on."""
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()
