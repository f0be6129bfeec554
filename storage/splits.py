"""Which prompts are held out: decided by the text alone, the first time it is stored, and never by rank.

A rank moves prompts whenever others arrive, and what was measured with yesterday would be learned from today. A
threshold on a hash of the text moves nobody: the same text falls on the same side in every workspace and language.
"""

from __future__ import annotations

import hashlib

from storage.records import Split

# The share of new prompts that are held out where the workspace does not say.
DEFAULT_SHARE = 0.15


def fraction(key: str) -> float:
    """A fixed pseudo-random number in [0, 1) of a prompt's text key.

    Stored splits and a migration rest on it, so it must never change.
    """
    first = hashlib.sha256(key.encode()).digest()[:8]
    return (int.from_bytes(first) >> 11) / 2**53  # the 53 bits that a float holds exactly


def by_hash(key: str, share: float) -> Split:
    """Held out where the fraction of the text key lies below `share`, else for training."""
    return Split.HELD_OUT if fraction(key) < share else Split.TRAIN
