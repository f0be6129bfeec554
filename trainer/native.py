"""What the libraries beneath torch are told on a CPU; to be said before torch is imported."""

from __future__ import annotations

import os

# What GNU OpenMP, which torch uses on Linux, counts to before a waiting thread sleeps: some tens of microseconds.
# A decoding step is a chain of short products. With threads that sleep at once, each of them waits for a waking thread
# (25 ms a token for one stream of the bundled model on two cores; 12 ms like this); with the default, 100 times as
# long, two processes that share their cores slow each other down tenfold.
SPINS = 3000
# How many prepared products oneDNN keeps, each for one shape. Batches of answers hardly ever have the same shape twice:
# by default it comes to keep 1024, several hundred MB, and is no faster for it.
PRODUCTS_KEPT = 64


def configure() -> None:
    """Settings of OpenMP and oneDNN, for this process and those started from it. What the user has set stays."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
        os.environ["OMP_WAIT_POLICY"] = "passive"  # for the other implementations of OpenMP
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(PRODUCTS_KEPT))
