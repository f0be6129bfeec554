"""A judge behind an OpenAI-compatible address: POST ENDPOINT/chat/completions.

The key is read when the command begins, is sent in a header alone, and is neither stored nor told. What fails for a
while (no answer in time, 408, 409, 429 and 5xx) is tried again, after as long as `Retry-After` says or with growing
random pauses; anything else ends the work at once. Where the endpoint gives log-probabilities they are taken.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2 as httpx
import msgspec
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_random_exponential,
)

from storage.errors import UsageError, WorkbenchError
from storage.signs import one_line
from trainer.judge.rubric import Question
from trainer.judge.spending import Purse, about
from trainer.judge.verdicts import Verdict

ANSWER_TOKENS = 16  # a digit or a letter, and what some models cannot help saying before it
TOP_LOGPROBS = 20  # as many as the interface allows
MOST_BYTES = 1 << 20  # of an answer
LOOK_SECONDS = 0.1  # between looks at whether to go on waiting
LONGEST_PAUSE = 120.0  # seconds: an endpoint that asks for more is given up
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


class _Top(msgspec.Struct):
    token: str
    logprob: float


class _Token(_Top):
    top_logprobs: list[_Top] = []


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Completion(msgspec.Struct):
    """What is read of an answer."""

    choices: list[_Choice]
    usage: _Usage | None = None


class PassingError(WorkbenchError):
    """What may go well when it is tried again; after `pause` seconds where the endpoint said so."""

    def __init__(self, message: str, hint: str, pause: float | None = None) -> None:
        super().__init__(message, hint)
        self.pause = pause


class UnreachableError(PassingError):
    """There was no connection: nothing was asked."""


@dataclass(frozen=True)
class Address:
    """Where to ask, and how.

    Attributes:
        url: such as https://api.openai.com/v1. key: empty where none is needed.
        timeout: seconds for an answer, from its first byte to its last as well. attempts: of one question.
        parallel: questions asked at once.
    """

    url: str
    model: str
    key: str = ""
    timeout: float = 60.0
    attempts: int = 5
    parallel: int = 4

    @property
    def completions(self) -> str:
        url = self.url.rstrip("/")
        return url if url.endswith("/chat/completions") else url + "/chat/completions"


class EndpointJudge:
    """Asks an endpoint, several questions at once.

    Args:
        purse: what is spent goes into it.
        check: called while answers are waited for; what it raises ends the waiting.

    Raises:
        UsageError: the address is none.
    """

    def __init__(self, address: Address, purse: Purse, check: Callable[[], None] = lambda: None) -> None:
        try:
            url = httpx.URL(address.completions)
        except httpx.InvalidURL:
            raise UsageError("--endpoint is no address", "such as http://127.0.0.1:8080/v1") from None
        if url.scheme not in ("http", "https") or not url.host or url.userinfo:
            raise UsageError(
                "--endpoint must be an http or https address without a name or password in it",
                "such as http://127.0.0.1:8080/v1; a key comes from the environment (--key-env)",
            )
        self.address, self.purse, self.url, self.check = address, purse, url, check
        self.where = f"{url.scheme}://{url.netloc.decode()}"
        headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
        self.client = httpx.Client(headers=headers, timeout=address.timeout)
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._asks: dict[str, Any] = {
            "logprobs": True, "top_logprobs": TOP_LOGPROBS, "max_tokens": ANSWER_TOKENS, "temperature": 0,
        }  # fmt: skip

    @property
    def is_in_the_open(self) -> bool:
        """Whether what is sent leaves this machine unencrypted."""
        return self.url.scheme == "http" and not re.fullmatch(r"localhost|127\..*|::1", self.url.host)

    def close(self) -> None:
        self._stop.set()
        self.client.close()

    def tokens(self, question: Question) -> int:
        return about(question.text) + ANSWER_TOKENS

    def ask(self, questions: Sequence[Question]) -> list[Verdict | Exception | None]:
        found: dict[int, Verdict | Exception | None] = {}
        waiting = iter(enumerate(questions))

        def work() -> None:
            for place, question in waiting:
                found[place] = self._verdict(question)

        # Daemons, and no pool: after an interrupt nobody waits for an answer that may be a minute away.
        several = min(self.address.parallel, len(questions))
        threads = [threading.Thread(target=work, daemon=True) for _ in range(several)]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                try:
                    self.check()
                except WorkbenchError as error:  # what was answered by now counts, and what was not failed for this
                    self._failure = error
                    self._stop.set()
                    answered = dict(found)
                    return [answered.get(place, error) for place in range(len(questions))]
                thread.join(LOOK_SECONDS)
        return [found[place] for place in range(len(questions))]

    def _verdict(self, question: Question) -> Verdict | Exception | None:
        """What came of one question; after a failure nothing more is asked."""
        if self._failure is not None:
            return self._failure
        try:
            return read(self._completed(question), question.labels)
        except Exception as error:  # in a thread, where nobody would see it
            self._failure = self._failure or error
            self._stop.set()
            return self._failure

    def _completed(self, question: Question) -> Completion:
        retrying = Retrying(
            retry=retry_if_exception_type(PassingError),
            stop=stop_after_attempt(self.address.attempts) | stop_when_event_set(self._stop),
            wait=_pause,
            sleep=sleep_using_event(self._stop),
            reraise=True,
        )
        return retrying(self._paid, question)

    def _paid(self, question: Question) -> Completion:
        """One attempt, and what it costs: where that is not told, what it is likely to have; a refusal is free, and so
        is what was never asked."""
        likely = self.tokens(question)
        self.purse.reserve(likely)
        usage, estimated = _Usage(), likely
        try:
            asks = dict(self._asks)
            status, headers, body = self._exchanged(question, asks)
            if status == 400 and (fewer := _without_what_is_refused(asks, body)) is not None:
                self._asks = fewer
                status, headers, body = self._exchanged(question, fewer)
            if status != 200:
                estimated = 0
                raise self._refused(status, headers, body)
            completion = self._decoded(body)
            if completion.usage is not None:
                usage, estimated = completion.usage, 0
            return completion
        except UnreachableError:
            estimated = 0
            raise
        finally:
            told = max(0, usage.prompt_tokens), max(0, usage.completion_tokens)
            self.purse.settle(likely, *told, estimated=estimated)

    def _decoded(self, body: bytes) -> Completion:
        try:
            return msgspec.json.decode(body, type=Completion)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise PassingError(
                f"{self.where} answered what is no chat completion: {self._quoted(body)}",
                "is the address right (it often ends in /v1)? What is judged already is stored",
            ) from None

    def _exchanged(self, question: Question, asks: dict[str, Any]) -> tuple[int, Any, bytes]:
        payload = {"model": self.address.model, "messages": [{"role": "user", "content": question.text}], **asks}
        until = time.monotonic() + self.address.timeout
        body = bytearray()
        try:
            with self.client.stream("POST", self.url, json=payload) as response:
                for part in response.iter_bytes():
                    body += part
                    if len(body) > MOST_BYTES:
                        raise WorkbenchError(f"{self.where} answers more than a mebibyte", "is it a chat endpoint?")
                    if time.monotonic() > until:
                        raise httpx.ReadTimeout("the answer does not end", request=response.request)
                return response.status_code, response.headers, bytes(body)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise UnreachableError(*self._no_way(error)) from None
        except httpx.TimeoutException:
            raise PassingError(
                f"{self.where} gave no answer within {self.address.timeout:g} s",
                "is it up? --timeout waits longer; what is judged already is stored",
            ) from None
        except httpx.HTTPError as error:
            raise PassingError(*self._no_way(error)) from None

    def _no_way(self, error: httpx.HTTPError) -> tuple[str, str]:
        return (
            f"cannot reach {self.where}: {one_line(str(error), 100) or type(error).__name__}",
            "is the address right, and the server up? What is judged already is stored",
        )

    def _refused(self, status: int, headers: Any, body: bytes) -> WorkbenchError:
        said, stored = self._quoted(body), "what is judged already is stored; the same command goes on later"
        if status in PASSING:
            pause = _retry_after(headers.get("retry-after"))
            if pause is not None and pause > LONGEST_PAUSE:
                return WorkbenchError(f"{self.where} is busy and asks to wait {pause:.0f} s ({status})", stored)
            what = "is busy" if status == 429 else "failed"
            return PassingError(f"{self.where} {what} ({status}): {said}", stored, pause)
        if status in (401, 403):
            hint = "put one into the environment variable that --key-env names, or into the keyring"
            return UsageError(f"{self.where} refuses the key ({status})", hint)
        if status == 404:
            hint = "is the address right (it often ends in /v1), and --endpoint-model a model of it?"
            return UsageError(f"{self.where} has no such address or model (404): {said}", hint)
        return WorkbenchError(f"{self.where} refused the question ({status}): {said}", stored)

    def _quoted(self, body: bytes) -> str:
        """The beginning of an answer, on a line and without the key, should it be in there."""
        text = body[:2000].decode("utf-8", errors="replace")
        if self.address.key:
            text = text.replace(self.address.key, "***")
        return one_line(text, 120) or "nothing"


def read(completion: Completion, labels: Sequence[str]) -> Verdict | None:
    """The verdict in a completion; None where it says none of the labels."""
    if not completion.choices:
        return None
    choice = completion.choices[0]
    for token in (choice.logprobs.content or []) if choice.logprobs else []:
        if token.token.strip() in labels and token.top_logprobs:
            return Verdict.of(_logits(token.top_logprobs, labels))
    said = re.search(rf"(?<![^\W_])({'|'.join(labels)})(?![^\W_])", choice.message.content or "")
    return Verdict(list(labels).index(said[1])) if said else None


def _logits(top: Sequence[_Top], labels: Sequence[str]) -> list[float]:
    """Of each label, over all tokens that spell it; one that is not among the likeliest is taken to be as likely as the
    least of them."""
    least = min(one.logprob for one in top)
    found = []
    for label in labels:
        own = [one.logprob for one in top if one.token.strip() == label]
        most = max(own, default=least)
        found.append(most + math.log(sum(math.exp(one - most) for one in own)) if own else least)
    return found


def _without_what_is_refused(asks: dict[str, Any], body: bytes) -> dict[str, Any] | None:
    """What to ask of an endpoint that knows less, or calls it otherwise; None where that is not why it refused."""
    said = body.lower()
    if b"max_completion_tokens" in said and "max_tokens" in asks:
        return {name: value for name, value in asks.items() if name not in ("max_tokens", "temperature")} | {
            "max_completion_tokens": asks["max_tokens"]
        }
    if b"logprobs" in said and "logprobs" in asks:
        return {name: value for name, value in asks.items() if name not in ("logprobs", "top_logprobs")}
    return None


_growing = wait_random_exponential(multiplier=0.5, max=30)


def _pause(state: RetryCallState) -> float:
    """Seconds until the next attempt."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, PassingError) and error.pause is not None:
        return error.pause
    return _growing(state)


def _retry_after(said: str | None) -> float | None:
    """Seconds, from a number of them or a date; None where it is neither."""
    if said is None:
        return None
    if said.strip().isdecimal():
        return float(said)
    try:
        then = parsedate_to_datetime(said)
    except ValueError:
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())
