"""A small engine of the real protocol, without a model, that misbehaves as it is told: run as a process.

    python -S fake_engine.py FOLDER

`FOLDER/mood.json` says how it behaves (`MOOD`), read anew at the start and at each request; `FOLDER/heard.jsonl` gets a
line for each start and for each request heard. While it lives it holds `FOLDER/alive` locked, so that the kernel
itself says whether two ever lived at one time.

What a prompt holds decides how it is answered: `die` kills the engine in the middle of its first answer, `die late`
after the first answer is whole (the last one, where it holds `backwards`),
`hang` never ends unless it is cancelled, `fail` fails, `garbage` has an unreadable
line before its end, `mute` closes the output and lives on, and `orphan` dies and leaves a process that holds the output
open. A version with `bad` in its name cannot be served, and one with `deadly` kills the engine.
"""

import fcntl
import json
import os
import signal
import sys
import time

FOLDER = sys.argv[1]
PARENT = os.getppid()
MOOD = {
    "delay": 0.0,  # seconds before it hears anything
    "load": "ready",  # or fail, die, hang
    "deaf": False,  # it ends neither when it is asked to nor with its input
    "version": "v0",  # what a load serves
}


def mood(name):
    try:
        with open(f"{FOLDER}/mood.json") as file:
            return {**MOOD, **json.load(file)}[name]
    except (OSError, ValueError):
        return MOOD[name]


def note(**what):
    with open(f"{FOLDER}/heard.jsonl", "a") as file:
        file.write(json.dumps({"pid": os.getpid(), **what}) + "\n")


def say(kind, **fields):
    os.write(1, json.dumps({"type": kind, **fields}).encode() + b"\n")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def answer(asked, candidate, reason):
    text = f"{asked['prompt']} {candidate}"
    say("answer", request=asked["request"], candidate=candidate, text=text, token_ids=[1, 2], finish_reason=reason,
        version=asked["version"], seed=asked["seed"] + candidate)  # fmt: skip


def done(asked):
    say("done", request=asked["request"], tokens=2 * asked["count"], seconds=0.1, tokens_per_second=20.0)


def generate(asked):
    """Returns whether it has ended."""
    prompt = asked["prompt"]
    order = range(asked["count"])
    for candidate in reversed(order) if "backwards" in prompt else order:
        say("text", request=asked["request"], candidate=candidate, text=f"{prompt} ", tokens=1,
            version=asked["version"])  # fmt: skip
        if "die" in prompt and "late" not in prompt:
            die()
        if "hang" in prompt:
            return False
        if "mute" in prompt:
            os.close(1)
            return False
        if "orphan" in prompt:
            if os.fork() == 0:
                os.closerange(3, 100)  # the lock is the engine's
                time.sleep(60)
            die()
        if "fail" in prompt:
            say("failed", during="generate", error="it cannot be answered", request=asked["request"])
            return True
        answer(asked, candidate, "eos")
        if "die late" in prompt:
            die()
    if "garbage" in prompt:
        os.write(1, b"\xff no event \x00\n")
    done(asked)
    return True


def load(model):
    how = mood("load")
    if how == "die":
        sys.stderr.write("no memory for the weights\n")
        sys.stderr.flush()
        die()
    if how == "fail":
        say("failed", during="load", error="no such model")
    if how != "ready":
        return ""
    say("progress", stage="load", text="loading")
    say("ready", model=model, version=mood("version"), device="cpu", dtype="bfloat16", parameters=1, context=100,
        seconds=0.1)  # fmt: skip
    return mood("version")


def swap(wanted, before):
    if "deadly" in wanted:
        die()
    if "bad" in wanted:
        say("failed", during="swap", error=f"{wanted} is damaged")
        return before
    say("swapped", version=wanted, previous=before, seconds=0.1, proof="exact")
    return wanted


def main():
    alive = os.open(f"{FOLDER}/alive", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note(what="two alive")
    note(what="start")
    time.sleep(mood("delay"))
    version, under_way = "", None
    for line in sys.stdin.buffer:
        request = json.loads(line)
        kind = request["type"]
        note(what=kind, **{key: request[key] for key in ("request", "version", "model") if key in request})
        if kind == "load":
            version = load(request["model"])
        elif kind == "swap":
            version = swap(request["version"], version)
        elif kind == "generate":
            asked = {**request, "version": version}
            under_way = None if generate(asked) else asked
        elif kind == "cancel" and under_way is not None:
            answer(under_way, 0, "cancelled")
            done(under_way)
            under_way = None
        elif kind == "shutdown" and not mood("deaf"):
            return
    while mood("deaf") and os.getppid() == PARENT:
        time.sleep(0.02)


main()
