"""Commands that measure; each runs as `python -m benchmarks.NAME`. What they found is in docs/benchmarks.md."""

import os

# Threads that spin while they wait make a step ten times slower when anything else wants the cores, on every side
# alike. This must be said before torch is imported, and holds for the processes that are started from here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
