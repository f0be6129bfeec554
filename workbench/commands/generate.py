"""`workbench generate`: sample answers without the app, and store them as it would."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec
from tqdm import tqdm

from storage import clock, conversations, versions
from storage.database import Database
from storage.errors import UsageError, WorkbenchError
from storage.exchange.importing import prompts
from storage.exchange.layouts.entries import is_table
from storage.exchange.layouts.entries import language as language_tag
from storage.exchange.layouts.messages import ANSWERS, flatten
from storage.exchange.rows import BadFieldError, Problem, Row
from storage.exchange.translating import Reading
from storage.records import Message, Sampling, Split, messages_of
from storage.wording import counted
from workbench.commands.foreign import as_option, map_option, reading_option
from workbench.commands.options import json_option, language_option, opened, say, workspace_option
from workbench.commands.sampling import Asker, described
from workbench.engine.client import EngineClient
from workbench.engine.protocol import Answer, Generate, Load, Question, Text
from workbench.engine.recording import store_answers
from workbench.text import UNSAFE, one_line, safe_text

INTERRUPTED = 130
BATCH = 128  # answers asked for together, and stored together: more than rows, for those that end early make room
DEFAULTS = Sampling()
MODELS = "smollm2, gemma, a folder, a GGUF file or a hub name."


class Ask(msgspec.Struct, frozen=True):
    """One line of a prompt file; fields it does not name are ignored, so that any import file will do.

    `prompt` is the user's last message; `given` is the prompt as the file has it, where that is a list of messages.
    `answered` says that its record holds an answer to it, which is not read.
    """

    prompt: str
    language: str = ""
    system: str | None = None
    task: str = ""
    split: Split | None = None
    seed: int | None = None
    earlier: tuple[Message, ...] = ()
    given: list[Any] | None = None
    answered: bool = False


_FIELDS = {"prompt", "language", "system", "task", "split", "seed"}  # of a record


@click.command()
@click.argument("stdin", metavar="[-]", required=False)
@click.option("--prompt", "typed", multiple=True, help="A prompt; may be given several times.")
@click.option(
    "--from", "file", metavar="FILE", help="As for import: prompt, and optionally language, system, task, split, seed."
)
@as_option
@map_option
@click.option("--language", default="und", show_default=True, help="BCP 47 tag of prompts that name none.")
@click.option("--system", default="", help="System prompt of prompts that name none.")
@click.option("--count", default=1, show_default=True, help="Answers a prompt.")
@click.option("--max-new-tokens", default=DEFAULTS.max_new_tokens, show_default=True)
@click.option("--temperature", default=DEFAULTS.temperature, show_default=True, help="0 is greedy.")
@click.option("--top-p", default=DEFAULTS.top_p, show_default=True)
@click.option("--top-k", default=DEFAULTS.top_k, show_default=True, help="0 keeps the whole vocabulary.")
@click.option(
    "--seed", default=0, show_default=True, help="Answer i is sampled with seed + i, to each prompt that names none."
)
@click.option("--model", default=Load().model, show_default=True, help=MODELS)
@click.option("--version", help="Sample from this version, without serving it.")
@click.option("--device", default="auto", show_default=True)
@click.option("--dtype", default="auto", show_default=True, help="auto, bf16, fp16 or fp32.")
@json_option
@workspace_option
def generate(
    stdin: str | None,
    typed: tuple[str, ...],
    file: str | None,
    layout: str | None,
    names: tuple[str, ...],
    language: str,
    system: str,
    count: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    top_k: int,
    seed: int,
    model: str,
    version: str | None,
    device: str,
    dtype: str,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Sample answers and store them in the workspace.

    Prompts come from --prompt, from a file, or from standard input with `-`, one a line. With --json, standard output
    is one list with an object for each answer. A record is asked for its prompt, or the last message of the user; an
    answer that it holds is not read. `messages` that end with the assistant's are refused.

    The same command on the same version gives the same text. Among other prompts, or with another --count, a prompt is
    in another batch, whose sums are rounded in another order: in 16 bits (--dtype bf16 or fp16) a near tie then falls
    the other way sooner or later, and another text follows. With --dtype fp32 that is rare; a prompt that is asked in
    a run of its own is always answered the same.

    \b
    Examples:
      workbench generate --prompt "¿Qué es un glaciar?" --language es --count 4
      workbench generate --from prompts.jsonl --version v3 --temperature 0.7 --json
    """
    asks = read_asks(stdin, typed, file, reading_option(layout, names))
    language = language_option(language)
    try:
        sampling = Sampling(temperature, top_p, top_k, max_new_tokens)
        requests = [
            Generate(
                clock.new_id(), ask.prompt, system if ask.system is None else ask.system, count,
                seed if ask.seed is None else ask.seed, sampling, earlier=ask.earlier,
            )
            for ask in asks
        ]  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error), "see `workbench generate --help`") from error
    printer = Printer(as_json)
    if answered := sum(ask.answered for ask in asks):
        what = counted(answered, "prompt has an answer", "prompts have answers")
        printer.narrate(f"{what} in the file: what is asked is answered anew, without a look at them")
    with opened(workspace, create=True) as (place, database):
        if version:
            versions.get(database, version)  # an unknown name is told before a model is loaded
        session = Session(EngineClient(place), Load(model, version, device, dtype), database, printer)
        try:
            failed = asyncio.run(session.run(list(zip(range(len(asks)), asks, requests, strict=True)), language))
        except KeyboardInterrupt:
            printer.end()
            printer.narrate("interrupted; the finished answers are stored")
            sys.exit(INTERRUPTED)
    printer.end()
    if failed:
        sys.exit(1)


class Printer:
    """Answers to standard output, as readable text at once or as one JSON document at the end; the rest to stderr."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.streams = not as_json and sys.stdout.isatty()
        self.answers: list[tuple[int, dict[str, Any]]] = []  # beside the number of the prompt
        self._last_narrated = ""

    def narrate(self, text: str) -> None:
        """Say something on standard error, unless it was just said."""
        if text != self._last_narrated:
            click.echo(safe_text(text), err=True)
        self._last_narrated = text

    def asked(self, ask: Ask, language: str) -> None:
        if not self.as_json:
            click.echo(f"{safe_text(language)} ▸ {one_line(ask.prompt)}")

    def streamed(self, event: Text) -> None:
        """Text of an answer as it grows."""
        click.echo(safe_text(event.text), nl=False)

    def answered(self, number: int, stored: list[dict[str, Any]], *, was_streamed: bool) -> None:
        self.answers += [(number, answer) for answer in stored]
        if self.as_json:
            return
        for answer in stored:
            if not was_streamed:
                click.echo(safe_text(answer["text"]), nl=False)
            figures = f"{counted(answer['tokens'], 'token')} · {answer['finish_reason']} · seed {answer['seed']}"
            click.echo(f"\n  [{safe_text(answer['version'])} · {figures}]\n")

    def end(self) -> None:
        """Print the JSON document, in the order of the prompts. Control characters in it are escaped: no terminal obeys
        them, no parser minds."""
        if self.as_json:
            ordered = [answer for _, answer in sorted(self.answers, key=lambda one: one[0])]
            document = json.dumps(ordered, ensure_ascii=False, indent=2)
            click.echo(UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", document))


Asked = tuple[int, Ask, Generate]  # the number of the prompt, what its line says, and the request


class Session:
    """One engine, asked a few prompts at a time; each is stored as soon as its answers are whole."""

    def __init__(self, client: EngineClient, load: Load, database: Database, printer: Printer) -> None:
        self.client = client
        self.asker = Asker(client, load, printer.narrate)
        self.database = database
        self.printer = printer

    async def run(self, asks: list[Asked], default_language: str) -> int:
        """Returns how many prompts could not be answered. Raises WorkbenchError when no model can be loaded."""
        failed = 0
        size = 1 if self.printer.streams else max(1, BATCH // asks[0][2].count)
        async with self.client:
            await self.asker.load()
            hidden = self.printer.streams or not sys.stderr.isatty() or len(asks) == 1
            with tqdm(total=len(asks), unit="prompt", file=sys.stderr, disable=hidden, leave=False) as bar:
                for start in range(0, len(asks), size):
                    chunk = asks[start : start + size]
                    failed += await self._answer_together(chunk, default_language)
                    bar.update(len(chunk))
        return failed

    async def _answer_together(self, asks: list[Asked], default_language: str) -> int:
        """Answer prompts in one batch; when that fails, one by one, so that one bad prompt spoils no other."""
        alone, count = len(asks) == 1, asks[0][2].count
        streams = alone and self.printer.streams and count == 1
        if alone:
            self.printer.asked(asks[0][1], asks[0][1].language or default_language)
        come: list[dict[int, Answer]] = [{} for _ in asks]  # by candidate: an engine that died gives them again
        left = dict(enumerate(asks))

        def store(place: int) -> None:
            number, ask, request = left.pop(place)
            language = ask.language or default_language
            if not alone:
                self.printer.asked(ask, language)
            own = [come[place][candidate] for candidate in sorted(come[place])]
            self.printer.answered(number, self._store(ask, request, language, own), was_streamed=streams)

        def take(answer: Answer) -> None:
            place = answer.candidate // count
            come[place][answer.candidate] = answer
            if place in left and len(come[place]) == count:
                store(place)

        try:
            await self.asker.answers(
                together([request for _, _, request in asks]), self.printer.streamed if streams else None, take
            )
        except WorkbenchError as error:
            if not self.client.running:
                raise
            if not alone:
                return sum([await self._answer_together([ask], default_language) for ask in left.values()])
            self.printer.narrate(f"{one_line(asks[0][1].prompt, 60)}: {error}")
            return 1
        for place in list(left):
            store(place)
        return 0

    def _store(self, ask: Ask, request: Generate, language: str, answers: list[Answer]) -> list[dict[str, Any]]:
        with self.database.transaction():
            prompt = conversations.add(
                self.database, ask.prompt, language=language, system=request.system, task=ask.task, split=ask.split,
                earlier=ask.earlier,
            )  # fmt: skip
            stored = store_answers(self.database, prompt.id, answers, request.sampling, request.request)
        return [{"prompt": ask.given or ask.prompt, "language": language, **described(sample)} for sample in stored]


def together(requests: Sequence[Generate]) -> Generate:
    """A fresh request that answers them all in one batch; all have the same count and sampling."""
    first, *others = requests
    also = tuple(Question(one.prompt, one.system, one.seed, one.earlier) for one in others)
    return msgspec.structs.replace(first, request=clock.new_id(), also=also, stream=not others)


def read_asks(
    stdin: str | None,
    typed: Iterable[str],
    file: str | None,
    reading: Reading = Reading(),  # noqa: B008 (it is frozen)
) -> list[Ask]:
    """The prompts from the one place that was named.

    Raises:
        UsageError: no place or several, or a prompt that cannot be used: with its file and line.
    """
    typed = list(typed)
    if (stdin is not None) + bool(typed) + (file is not None) != 1 or stdin not in (None, "-"):
        raise UsageError("where are the prompts?", "give exactly one of --prompt TEXT, --from FILE.jsonl, or -")
    if typed:
        return [_checked(Ask(text), "--prompt") for text in typed]
    if file is None:
        read = [(number, text.rstrip("\r\n")) for number, text in enumerate(_lines(), start=1) if text.strip()]
        asks = [_checked(Ask(text), f"standard input, line {number}") for number, text in read]
        if read and all(_is_record(text) for _, text in read):
            say("each line is a JSON record, and is asked as it stands; `--from -` asks the prompts of records")
    else:
        asks = [ask for row in prompts(file, reading) for ask in _read_asks(file, row)]
    if not asks:
        raise UsageError("there are no prompts: the input is empty", "give at least one line")
    return asks


def _read_asks(file: str, row: Row | Problem) -> list[Ask]:
    """What one record of a file asks, in any form that `workbench import` reads."""
    where = f"{'standard input' if file == '-' else file}, line {row.line}"
    try:
        if isinstance(row, Problem):
            raise BadFieldError(row.field, row.reason)
        records = [{"prompt": prompt} for prompt in row.fields] if is_table(row.fields) else [row.fields]
        asks = [_ask(fields) for fields in records]
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: {error}", "nothing was generated; correct the line and run it again") from error
    return [_checked(ask, where) for ask in asks]


def _ask(fields: dict[str, Any]) -> Ask:
    flat, earlier = flatten(fields)
    answers = set(ANSWERS) & flat.keys()
    if answers and "messages" in fields and not set(ANSWERS) & fields.keys():
        raise BadFieldError(
            "messages", "end with a message of the assistant, and nothing says whether it is to go on or be answered "
            "anew: end them with the user's, or give the turns as prompt and the answer as completion",
        )  # fmt: skip
    ask = msgspec.convert({name: value for name, value in flat.items() if name in _FIELDS}, Ask, strict=False)
    given = fields.get("prompt", msgspec.to_builtins(list(messages_of(ask.prompt, ask.system or "", earlier))))
    return msgspec.structs.replace(
        ask, language=ask.language and language_tag(ask.language), earlier=earlier,
        given=given if isinstance(given, list) else None, answered=bool(answers),
    )  # fmt: skip


def _lines() -> list[str]:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input: {error}", "send the prompts as UTF-8") from error


def _is_record(line: str) -> bool:
    try:
        return "prompt" in msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return False


def _checked(ask: Ask, where: str) -> Ask:
    if not ask.prompt.strip():
        raise UsageError(f"{where}: the prompt is empty", "write something, or leave it out")
    try:
        ask.prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{where}: the prompt is not valid UTF-8", "save it as UTF-8 and try again") from error
    return ask
