"""What the app and the engine say to each other: one JSON object a line, typed by its `type` field.

Requests go to the engine's standard input, events come from its standard output; narration goes to standard error.
A line is at most `MAX_LINE` bytes. Nothing is ever pickled.
"""

from __future__ import annotations

import msgspec

from storage.records import Message, Sampling, messages_of

MAX_LINE = 8 * 1024 * 1024
MAX_CANDIDATES = 64
MAX_SEED = 2**63 - 1  # what the database's integers hold
UNREADABLE = (ValueError, RecursionError)  # what decoding a bad line raises


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Load a model. `model` is `smollm2`, `gemma`, a folder, a GGUF file or a hub name."""

    model: str = "smollm2"
    version: str | None = None  # None: the version the workspace serves
    device: str = "auto"
    dtype: str = "auto"


class Question(msgspec.Struct, frozen=True):
    """A prompt that is answered in the same batch as others."""

    prompt: str
    system: str = ""
    seed: int = 0
    earlier: tuple[Message, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """All turns: the system message, the earlier ones and the prompt."""
        return messages_of(self.prompt, self.system, self.earlier)


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """Sample `count` answers to one prompt, after `earlier` turns; they share its prefill. Events carry `request` back.

    Candidate `i` is sampled with `seed + i`. Raises ValueError when a value is out of its range.

    With `also`, further prompts are answered in the same batch, which is several times faster than one after the
    other; candidate c then answers question c // count, the first being `prompt` itself.
    """

    request: str
    prompt: str
    system: str = ""
    count: int = 1
    seed: int = 0
    sampling: Sampling = Sampling()
    stream: bool = True
    also: tuple[Question, ...] = ()
    earlier: tuple[Message, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_CANDIDATES:
            raise ValueError(f"count must lie between 1 and {MAX_CANDIDATES}")
        for question in self.questions():
            if not 0 <= question.seed <= MAX_SEED - self.count:
                raise ValueError("seed must be 0 or more, and fit 63 bits")

    def questions(self) -> list[Question]:
        """All prompts of the batch, the first one included."""
        return [Question(self.prompt, self.system, self.seed, self.earlier), *self.also]


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Stop a generation within one decode step; what was said so far comes back as its answers.

    A candidate that said nothing yet has no answer; `Done` ends the request in any case. Unknown requests are ignored:
    the generation may just have finished.
    """

    request: str


class Swap(msgspec.Struct, frozen=True, tag="swap"):
    """Serve another version from the next request on; a generation under way finishes on its own weights."""

    version: str


class Shutdown(msgspec.Struct, frozen=True, tag="shutdown"):
    """Finish and exit."""


Request = Load | Generate | Cancel | Swap | Shutdown


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Long work under way: `fraction` in [0, 1], or None when the end is not known."""

    stage: str  # convert, load
    text: str
    fraction: float | None = None


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """A model is loaded and serves `version`; `proof` as in `Swapped`, `base` is the digest of the model's weights."""

    model: str
    version: str
    device: str
    dtype: str
    parameters: int
    context: int  # tokens that prompt and answer may fill together
    seconds: float
    proof: str = ""
    base: str = ""


class Text(msgspec.Struct, frozen=True, tag="text"):
    """More text of one candidate (raw: clean it before it reaches a terminal). `tokens` counts so far.

    `version` is that of the weights that sample it.
    """

    request: str
    candidate: int
    text: str
    tokens: int
    version: str = ""


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """One finished candidate, whole. `finish_reason` is eos, length or cancelled."""

    request: str
    candidate: int
    text: str
    token_ids: list[int]
    finish_reason: str
    version: str
    seed: int
    left_out: int = 0  # messages, the earliest of its prompt, that the context had no room for


class Done(msgspec.Struct, frozen=True, tag="done"):
    """All candidates of a request are finished."""

    request: str
    tokens: int
    seconds: float
    tokens_per_second: float
    note: str = ""  # what was not asked as it stands, in words


class Swapped(msgspec.Struct, frozen=True, tag="swapped"):
    """New answers come from `version` now. `seconds` is the time from the request to here.

    `proof` says in words how well the engine answers as the version did when it was published: "exact", "within 0.05
    nats", or why there is nothing to compare with.
    """

    version: str
    previous: str
    seconds: float
    proof: str = ""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Something could not be done. `request` names a generation; `during` is load, generate, swap or protocol.

    After a failed swap the previous version goes on serving.
    """

    during: str
    error: str
    hint: str = ""
    request: str | None = None


Event = Progress | Ready | Text | Answer | Done | Swapped | Failed

_encoder = msgspec.json.Encoder()
_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_events: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(message: Request | Event) -> bytes:
    """A message as one line. Raises ValueError when it is longer than `MAX_LINE`."""
    line = _encoder.encode(message) + b"\n"
    if len(line) > MAX_LINE:
        raise ValueError(f"a message of {len(line)} bytes is longer than the limit of {MAX_LINE}")
    return line


def decode_request(line: bytes) -> Request:
    """Raises one of `UNREADABLE` when the line is no request."""
    return _requests.decode(line)


def decode_event(line: bytes) -> Event:
    """Raises one of `UNREADABLE` when the line is no event."""
    return _events.decode(line)


def request_of(line: bytes) -> str | None:
    """The generation that an unreadable request spoke of, so that whoever waits for it can be told."""
    try:
        return msgspec.json.decode(line, type=_Envelope).request
    except UNREADABLE:
        return None


class _Envelope(msgspec.Struct):
    request: str | None = None
