"""What the benchmarks share: options, fair turns, facts about the machine, tables and saved results."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import platformdirs

from storage.workspace import Workspace

RESULTS = Path(__file__).resolve().parent / "results"
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")  # a newer processor that does as an older one
PACKAGES = ("torch", "transformers", "alignment-workbench")


def cache_folder() -> Path:
    """Where converted models and the peers' virtual environments are kept between runs."""
    return Path(platformdirs.user_cache_dir("alignment-workbench", appauthor=False)) / "benchmarks"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=5, help="how often each side is measured (default 5)")
    made.add_argument("--threads", type=int, help="CPU threads for every side (default: as torch chooses)")
    made.add_argument("--workspace", type=Path, default=cache_folder() / "workspace", help="holds the converted model")
    made.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    made.add_argument("--save", action="store_true", help="write the result to benchmarks/results/")
    return made


def prepare(options: argparse.Namespace) -> Workspace:
    """Set the number of threads, here and in processes started from here; the workspace, ready."""
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
        import torch

        torch.set_num_threads(options.threads)
    return Workspace(options.workspace.expanduser().absolute()).prepare()


def alternate(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Figures of each side in turn, A B A B: what else the machine does falls on both. One turn each goes before."""
    for measure in sides.values():
        measure()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    return found


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Median, extremes and the number of measurements."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "n": len(values)}


def slope(values: Sequence[float]) -> float:
    """The least-squares rise from one value to the next."""
    return statistics.linear_regression(range(len(values)), values).slope


def environment(*more: str) -> dict[str, Any]:
    """When, on what and with which versions; nothing that names the machine or its user."""
    import torch

    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *more):
        found[package] = metadata.version(package)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu": cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "limited_to": {name: os.environ[name] for name in LIMITS if name in os.environ},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "openmp": {name: os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")},
        "versions": found,
    }


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def resident_mb() -> float:
    """Memory of this process that is in use now, in MB (10^6 bytes)."""
    import psutil

    return psutil.Process().memory_info().rss / 1e6


def peak_mb() -> float:
    """The most memory this process ever used, in MB (10^6 bytes)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def finish(
    name: str, result: dict[str, Any], head: Sequence[str], rows: Sequence[Sequence[Any]], options: argparse.Namespace
) -> None:
    """Print the result as a table or as JSON, and save it when asked to."""
    document = {"benchmark": name, **result}
    print(json.dumps(document, indent=2) if options.json else table(head, rows))
    if options.save:
        save(name, result)


def save(name: str, result: dict[str, Any]) -> Path:
    """Write a result to benchmarks/results/, whole or not at all; returns its file."""
    RESULTS.mkdir(exist_ok=True)
    facts = result["environment"]
    device = "gpu"
    if facts["device"] == "cpu":
        device = "cpu" if facts["instructions"] == "AVX512" else f"cpu-{facts['instructions'].lower()}"
    path = RESULTS / f"{name}-{facts['date']}-{device}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"benchmark": name, **result}, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned columns: text to the left, numbers to the right with three figures that count."""
    lines = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    numeric = [all(isinstance(row[column], int | float | None) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
