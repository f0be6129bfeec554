"""`trainer compare` and `trainer export-metrics`: what they print, write and refuse."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
import threading
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from storage import jobs, metrics
from storage.database import Database
from storage.records import Job
from trainer import comparing


def run_of(database: Database, seed: int, gain: float, rate: float = 1e-4) -> Job:
    queued = jobs.enqueue(database, "ppo", {"seed": seed, "ppo": {"learning_rate": rate}})
    job = jobs.claim(database, "test", job_id=queued.id)
    assert job is not None
    for step in (1, 2, 3):
        figures = {("objective/scores", None): math.nan if step == 2 else gain * step, ("objective/scores", "es"): gain}
        metrics.record(database, job.id, step, figures)
    result = {"state": "published", "reward_gain": gain, "reward_gain_interval": [0.1, 0.9], "held_out_prompts": 40,
              "reward_gain_matched": None, "reward_gain_matched_reason": "none \x1b[31mended", "kl": 3.0}  # fmt: skip
    jobs.finish(database, job, result)
    return jobs.get(database, job.id)


def test_compare_tells_settings_gains_and_curves(command, database):
    pool = [run_of(database, seed, 0.2 * (seed + 1)) for seed in range(3)]
    other = run_of(database, 0, 0.5, rate=3e-4)
    code, out, _ = command("compare", *(job.id for job in pool), other.id[-8:])
    assert code == 0
    assert "seeds pooled: 0, 1, 2" in out
    assert "reward gain            +0.40 [-0.10, +0.90] over 3 seeds" in out
    assert "reward gain            +0.50 [+0.10, +0.90] over 40 prompts" in out
    assert "ppo.learning_rate  a 0.0001  b 0.0003" in out
    assert "objective/scores" in out
    assert "aaaa" in out
    assert "\x1b" not in out
    assert "\\x1b[31mended" in out


def test_compare_as_json_is_one_document(command, database):
    one, other = run_of(database, 0, 0.2), run_of(database, 0, 0.4, rate=3e-4)
    code, out, _ = command("compare", one.id, other.id, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["settings"] == {"ppo.learning_rate": {one.id: 1e-4, other.id: 3e-4}}
    assert found["curves"]["objective/scores"][one.id] == [[1, 0.2], [2, None], [3, pytest.approx(0.6)]]
    group = found["groups"][0]
    assert (group["jobs"], group["seeds"], group["control"], group["states"]) == ([one.id], [0], "", ["published"])
    assert (group["gain"], group["interval"], group["n"]) == (0.2, [0.1, 0.9], 40)
    assert (group["gain_matched"], group["kl"]) == (None, 3.0)


def test_the_curves_to_draw_can_be_chosen(command, database):
    job = run_of(database, 0, 0.2)
    assert list(json.loads(command("compare", job.id, "--metric", "objective/scores", "--json")[1])["curves"]) == [
        "objective/scores"
    ]
    code, _, err = command("compare", job.id, "--metric", "objective/nothing")
    assert code == 2
    assert "they have objective/scores" in err


def test_wrong_usage_of_compare_ends_with_2(command, database):
    assert command("compare")[0] == 2
    code, _, err = command("compare", "nobody")
    assert (code, "there is no job 'nobody'" in err) == (2, True)


def test_a_plot_without_colours_has_none_and_with_them_has_some(database):
    from storage import comparison

    found = comparison.compare(database, [run_of(database, 0, 0.2).id])
    series = comparison.curves(database, found.runs)["objective/scores"]
    assert "\x1b" not in comparing.plot("objective/scores", series, found, width=60, colored=False)
    assert "\x1b[" in comparing.plot("objective/scores", series, found, width=60, colored=True)
    assert comparing.plot("длина", series, found, width=60, colored=False).isprintable() is False  # line breaks
    assert "?????" in comparing.plot("длина", series, found, width=60, colored=False)


def test_no_color_is_heeded(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert comparing.is_colored()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not comparing.is_colored()


def test_thinning_keeps_spikes():
    points = [(step, 9.0 if step == 501 else 0.0) for step in range(1000)]
    thin = comparing.thinned(points, 100)
    assert len(thin) <= 102
    assert (501, 9.0) in thin


def test_metrics_go_to_standard_output_as_csv_and_json_lines(command, database):
    job = run_of(database, 0, 0.5)
    rows = list(csv.reader(io.StringIO(command("export-metrics", job.id)[1])))
    assert rows[0] == ["step", "name", "language", "value"]
    assert rows[1:4] == [["1", "objective/scores", "", "0.5"], ["1", "objective/scores", "es", "0.5"],
                         ["2", "objective/scores", "", ""]]  # fmt: skip
    lines = command("export-metrics", job.id[-8:], "--format", "jsonl")[1].splitlines()
    assert json.loads(lines[2]) == {"step": 2, "name": "objective/scores", "language": None, "value": None}
    assert len(lines) == len(rows) - 1 == 6


def test_a_file_that_exists_is_replaced_only_when_told_so(command, database, tmp_path: Path):
    job, file = run_of(database, 0, 0.5), tmp_path / "run.csv"
    assert command("export-metrics", job.id, "--out", str(file))[0] == 0
    before = file.read_text()
    file.write_text("mine")
    code, _, err = command("export-metrics", job.id, "--out", str(file))
    assert (code, file.read_text(), "exists already" in err) == (2, "mine", True)
    assert command("export-metrics", job.id, "--out", str(file), "--overwrite")[0] == 0
    assert file.read_text() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["run.csv"]
    assert command("export-metrics", job.id, "--out", str(tmp_path / "no" / "run.csv"))[0] == 2


def test_a_pipe_takes_the_metrics_and_stays_a_pipe(command, database, tmp_path: Path):
    job, pipe = run_of(database, 0, 0.5), tmp_path / "pipe"
    os.mkfifo(pipe)
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    reader.start()
    assert command("export-metrics", job.id, "--out", str(pipe))[0] == 0
    reader.join(10)
    assert heard[0].startswith("step,name,language,value\n1,")
    assert pipe.is_fifo()
    assert command("export-metrics", job.id, "--out", "/dev/stdout")[1] == heard[0]


def test_tensorboard_gets_a_folder_of_scalars(command, database, tmp_path: Path):
    job, folder = run_of(database, 0, 0.5), tmp_path / "events" / "run"
    code, out, _ = command("export-metrics", job.id, "--format", "tensorboard", "--out", str(folder))
    assert (code, out) == (0, "")
    assert [path.name for path in folder.parent.iterdir()] == ["run"]
    (file,) = folder.iterdir()
    assert scalars(file.read_bytes()) == [
        (1, "objective/scores", 0.5), (1, "objective/scores/es", 0.5), (2, "objective/scores/es", 0.5),
        (3, "objective/scores", 1.5), (3, "objective/scores/es", 0.5),
    ]  # fmt: skip
    assert command("export-metrics", job.id, "--format", "tensorboard", "--out", str(folder))[0] == 2
    code, _, err = command("export-metrics", job.id, "--format", "tensorboard")
    assert (code, "--out DIR" in err) == (2, True)


def scalars(data: bytes) -> list[tuple[int, str, float]]:
    """What an event file says: records of a length (8 bytes), its sum (4), an event, and its sum (4)."""
    found = []
    while data:
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + size :]
    return found
