"""The engine process: it holds the weights, samples answers and swaps versions while it runs.

    python -m workbench.engine.server --workspace DIR

Three threads. The main one reads requests, and so hears a cancel or the end of the input at once. One builds weights
(`load`, `swap`), one samples (`generate`), each in the order of its requests. `_serving` is the only thing they share:
a generation takes it once, when it begins, and finishes on it; the weights thread replaces it whole.

torch and the trainer's code are imported on the weights thread, so that requests are read from the first moment.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, BinaryIO

from storage import versions
from storage.database import open_database
from storage.errors import UsageError, WorkbenchError
from storage.records import Version
from storage.wording import counted
from storage.workspace import Workspace
from trainer import native
from workbench import garbage
from workbench.engine import building, protocol
from workbench.engine.protocol import (
    Answer,
    Cancel,
    Done,
    Event,
    Failed,
    Generate,
    Load,
    Progress,
    Question,
    Ready,
    Request,
    Shutdown,
    Swap,
    Swapped,
)
from workbench.engine.stdio import claim_stdio, read_lines, writer_to
from workbench.engine.streaming import TextStream, byte_tokens

if TYPE_CHECKING:
    from trainer.policy.chat import ChatTokenizer
    from trainer.policy.decoding import Completion, Decoder

PATIENCE = 2.0  # seconds a generation has to stop when the engine ends


@dataclass(frozen=True)
class Serving:
    """What answers come from: one version of one model, never changed in place."""

    model: str
    folder: Path
    base: Version
    version: Version
    tokenizer: ChatTokenizer
    held: frozenset[int]  # see streaming.StableText
    decoder: Decoder
    proof: str
    threads: int  # to answer with: a thread that begins while weights are laid out side by side would find one


class Engine:
    """Takes requests with `handle`, on one thread; answers through `send`, from any."""

    def __init__(self, workspace: Workspace, send: Callable[[Event], None]) -> None:
        self.workspace = workspace
        self.send = send
        self._serving: Serving | None = None
        self._builds: SimpleQueue[tuple[Load | Swap, float, threading.Event]] = SimpleQueue()
        self._turns: SimpleQueue[Generate | threading.Event] = SimpleQueue()
        self._lock = threading.Lock()  # guards the two below, and the start and end of a generation
        self._waiting: dict[str, Generate] = {}
        self._running: str | None = None
        self._stop = threading.Event()  # of the generation that runs
        self._idle = threading.Event()
        self._idle.set()
        for work in (self._build_in_turn, self._generate_in_turn):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def handle(self, request: Request) -> None:
        """Take one request; returns at once."""
        match request:
            case Load() | Swap():
                built = threading.Event()
                self._builds.put((request, time.monotonic(), built))
                if isinstance(request, Load):
                    self._turns.put(built)  # generations sent after a load wait for it
            case Generate():
                with self._lock:
                    known = request.request in self._waiting or request.request == self._running
                    if not known:
                        self._waiting[request.request] = request
                        self._turns.put(request)
                if known:
                    self.send(Failed("protocol", f"the request {request.request!r} is under way already"))
            case Cancel():
                with self._lock:
                    was_waiting = self._waiting.pop(request.request, None)
                    if request.request == self._running:
                        self._stop.set()
                if was_waiting:
                    self.send(Done(request.request, 0, 0.0, 0.0))

    def finish(self) -> None:
        """Stop what is being generated and drop what waits; returns within `PATIENCE`."""
        with self._lock:
            self._waiting.clear()
            self._stop.set()
        self._idle.wait(PATIENCE)

    def _build_in_turn(self) -> None:
        while True:
            request, arrived, built = self._builds.get()
            try:
                if isinstance(request, Load):
                    self._load(request, arrived)
                else:
                    self._swap(request, arrived)
            except Exception as error:
                self.send(failure("load" if isinstance(request, Load) else "swap", error))
            finally:
                garbage.from_now_on()
                built.set()

    def _load(self, request: Load, arrived: float) -> None:
        import torch

        from trainer import adopting
        from trainer.policy import devices, models
        from trainer.policy.decoding import Decoder

        devices.choose(request.device, request.dtype)  # what cannot be used is refused before anything is converted
        folder = models.resolve(
            request.model,
            self.workspace,
            lambda text, fraction: self.send(Progress("convert", text, fraction)),
            whole=False,
        )
        device, dtype = devices.choose(request.device, request.dtype, models.stored_bytes(folder))
        self.send(Progress("load", f"loading {folder.name}"))
        with open_database(self.workspace) as database:
            root = adopting.root_of(database, self.workspace, folder)
            base = versions.base_of(database, root)
            chosen = versions.get(database, request.version) if request.version else None
            version = chosen or versions.served_of(database, root)
        _check_base(version, base)
        if folder.adapter is not None:
            self.send(Progress("load", f"{folder.adapter.name} is {root.name} of this workspace, on {folder.name}"))

        def build(version: Version) -> tuple[ChatTokenizer, Decoder, str]:
            versions.verify(self.workspace, version)
            path = versions.path_of(self.workspace, version)
            words, made = building.read(
                folder,
                lambda: self._words(folder.path, version),
                lambda: Decoder.load(folder.path, device, dtype, path, four_bit=True, source=folder.source),
            )
            return words, made, building.proof(path, version, building.tried(made, words, version))

        try:
            tokenizer, decoder, proof = build(version)
        except Exception as error:
            if chosen or version.name == root.name:
                raise
            self.send(failure("swap", error))
            version = root
            tokenizer, decoder, proof = build(root)
        self._serving = Serving(
            model=folder.name,
            folder=folder.path,
            base=base,
            version=version,
            tokenizer=tokenizer,
            held=byte_tokens(tokenizer.tokenizer),
            decoder=decoder,
            proof=proof,
            threads=torch.get_num_threads(),
        )
        self.send(
            Ready(
                model=folder.name,
                version=version.name,
                device=str(device),
                dtype=devices.short_name(dtype),
                parameters=decoder.parameters,
                context=decoder.context,
                seconds=time.monotonic() - arrived,
                proof=proof,
                base=base.base_digest,
            )
        )

    def _swap(self, request: Swap, arrived: float) -> None:
        before = self._serving
        if before is None:
            raise UsageError("no model is loaded", "load one first")
        with open_database(self.workspace) as database:
            version = versions.get(database, request.version)
        _check_base(version, before.base)
        serving = before
        if version.name != before.version.name:
            tokenizer = self._words(before.folder, version, before.tokenizer)
            decoder, proof = self._build_beside(before, version, tokenizer)
            serving = self._serving = replace(
                before,
                version=version,
                tokenizer=tokenizer,
                held=byte_tokens(tokenizer.tokenizer),
                decoder=decoder,
                proof=proof,
            )
        self.send(Swapped(version.name, before.version.name, time.monotonic() - arrived, serving.proof))

    def _words(self, folder: Path, version: Version, now: ChatTokenizer | None = None) -> ChatTokenizer:
        """The tokenizer that a version was made with; the one of `now` where that is the same."""
        from trainer.policy.chat import ChatTokenizer

        with open_database(self.workspace) as database:
            words = versions.words_of(database, self.workspace, version)
        return now if now is not None and now.words == words else ChatTokenizer.load(folder, words)

    def _build_beside(self, before: Serving, version: Version, tokenizer: ChatTokenizer) -> tuple[Decoder, str]:
        versions.verify(self.workspace, version)
        path, old = versions.path_of(self.workspace, version), before.decoder
        if before.version.kind == "full":  # its embedding is its own: nothing of it can be shared with another version
            new = type(old).load(before.folder, old.device, old.dtype, path, four_bit=True, source=old.source)
        else:
            new = old.with_version(path)
        other = old if version.sha256 != before.version.sha256 else None
        return new, building.proof(path, version, building.tried(new, tokenizer, version), other)

    def _generate_in_turn(self) -> None:
        while True:
            turn = self._turns.get()
            if isinstance(turn, threading.Event):
                turn.wait()
                continue
            with self._lock:
                if self._waiting.get(turn.request) is not turn:
                    continue  # cancelled while it waited
                del self._waiting[turn.request]
                self._running = turn.request
                self._stop.clear()
                self._idle.clear()
            try:
                last: Event = self._generate(turn)
            except Exception as error:
                last = failure("generate", error, turn.request)
            with self._lock:
                self._running = None
            self.send(last)
            self._idle.set()

    def _generate(self, request: Generate) -> Done:
        serving = self._serving
        if serving is None:
            raise UsageError("no model is loaded", "load one first")
        import torch

        torch.set_num_threads(serving.threads)
        questions = request.questions()
        room = max(serving.decoder.context - request.sampling.max_new_tokens, serving.decoder.context // 2)
        fitted = (serving.tokenizer.fitted(question.messages, room) for question in questions)
        encoded, left_out = zip(*fitted, strict=True)
        longest = max(map(len, encoded))
        if longest >= serving.decoder.context:
            raise UsageError(
                f"the prompt has {counted(longest, 'token')}; "
                f"{serving.model} has room for {serving.decoder.context} in all",
                "shorten the prompt, or load a model with a longer context",
            )
        prompts = [prompt for prompt in encoded for _ in range(request.count)]
        seeds = [question.seed + answer for question in questions for answer in range(request.count)]
        stream = TextStream(request, serving.tokenizer.decode, serving.held, self.send, version=serving.version.name)
        sent: set[int] = set()

        def send(candidate: int, completion: Completion) -> None:
            ids, reason = completion.token_ids, completion.finish_reason
            if candidate in sent or (reason == "cancelled" and not ids):
                return
            sent.add(candidate)
            text = serving.tokenizer.decode(ids)
            if request.stream:
                stream.end(candidate, text)
            said = (serving.version.name, seeds[candidate], left_out[candidate // request.count])
            self.send(Answer(request.request, candidate, text, ids, reason, *said))

        began = time.monotonic()
        completions = serving.decoder.generate(
            prompts,
            request.sampling,
            seeds,
            serving.tokenizer.eos_ids,
            on_tokens=stream.push if request.stream else None,
            on_end=None if request.stream else send,  # what is watched as it grows ends together
            should_stop=self._stop.is_set,
        )
        seconds = time.monotonic() - began
        for candidate, completion in enumerate(completions):
            send(candidate, completion)
        tokens = sum(len(completion.token_ids) for completion in completions)
        note = _note(serving.tokenizer, questions, list(left_out), room)
        return Done(request.request, tokens, seconds, tokens / max(seconds, 1e-9), note)


def _note(tokenizer: ChatTokenizer, questions: list[Question], dropped: list[int], room: int) -> str:
    """What the model was not told as it stands, in words."""
    from trainer.policy.chat import SYSTEM_FOLDED

    notes = [SYSTEM_FOLDED] if any(tokenizer.folds(question.messages) for question in questions) else []
    if any(dropped):
        notes.append(
            f"the earliest {counted(max(dropped), 'message was', 'messages were')} left out: "
            f"the model reads {room} tokens before an answer"
        )
    return "; ".join(notes)


def failure(during: str, error: Exception, request: str | None = None) -> Failed:
    """What to tell about an exception. The unexpected ones leave their traceback in the log."""
    if isinstance(error, WorkbenchError):
        return Failed(during, error.message, error.hint, request)
    traceback.print_exception(error)
    said = str(error)
    if isinstance(error, MemoryError) or "out of memory" in said.lower() or "allocate memory" in said:
        hint = "ask for fewer answers at once or shorter ones, or load a smaller model; the engine goes on"
        return Failed(during, "out of memory", hint, request)
    return Failed(during, f"{type(error).__name__}: {said}", "the details are in logs/engine.log", request)


def _check_base(version: Version, base: Version) -> None:
    if version.base_digest != base.base_digest:
        raise UsageError(
            f"{version.name} was made from {version.base_model}, and {base.base_model} is being loaded or served",
            f"load {version.base_model}, or choose a version of {base.base_model}: `workbench versions` lists them",
        )


def serve(workspace: Workspace, requests: BinaryIO, send: Callable[[Event], None]) -> None:
    """Take requests until a Shutdown or the end of the input."""
    engine = Engine(workspace, send)
    for line in read_lines(requests):
        if line is None:
            send(Failed("protocol", f"a request was longer than {protocol.MAX_LINE} bytes", "shorten the prompt"))
            continue
        try:
            request = protocol.decode_request(line)
        except protocol.UNREADABLE as error:
            send(Failed("protocol", f"unreadable request: {error}", "see docs/engine.md", protocol.request_of(line)))
            continue
        if isinstance(request, Shutdown):
            break
        engine.handle(request)
    engine.finish()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workbench.engine.server", description=__doc__)
    parser.add_argument("--workspace", help="the folder of the project")
    parser.add_argument("--threads", type=int, help="CPU threads to compute with (default: as torch chooses)")
    options = parser.parse_args()
    native.configure()
    garbage.not_yet()
    requests, events = claim_stdio()
    faulthandler.enable()
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    serve(Workspace.locate(options.workspace), requests, writer_to(events))
    sys.stderr.flush()
    os._exit(0)  # a conversion or a build may be under way on a thread that cannot be asked to stop


if __name__ == "__main__":
    main()
