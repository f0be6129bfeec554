"""Pictures of every screen, as SVG files: made by the program itself from a small workspace with invented figures.

python -m docs.pictures

writes them into docs/screenshots, and docs/screens.md, the page that shows them all. `python -m docs.pictures DIR`
writes them elsewhere, without the page.

And pictures of the loop in a workspace of yours, in which nothing is invented: what the served version gained, and the
same prompts answered before and after. Nothing is rated, trained or published there.

python -m docs.pictures DIR --loop WORKSPACE
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import tempfile
from pathlib import Path

import click
from textual.widgets import Input

from storage import clock, conversations, jobs, metrics, samples, versions
from storage.database import Database, open_database
from storage.errors import UsageError
from storage.feedback import log
from storage.records import Sample, Sampling, Source, Split
from storage.workspace import Workspace
from workbench.engine import protocol
from workbench.screens.versions.screen import VersionsScreen
from workbench.shell.app import WorkbenchApp
from workbench.training import verdict
from workbench.widgets.dialogs import FormDialog

SIZES = ((120, 40), (80, 24), (40, 12))
LOOP_SIZE = (100, 30)
LOOP_RATED = 40  # answers
OVER_ANY = {"settings": "f7", "keys": "alt+k", "themes": "alt+t", "about": "alt+i", "jump": "alt+j"}
RATER = "example"
STEPS, STEP = 80, 31

FOLDER = Path("docs/screenshots")
PAGE = Path("docs/screens.md")
# What is pictured, in the order of the tour, and in a line what it shows.
PICTURED = {
    "first-run": "A new workspace: what is being prepared, and what there is to do.",
    "prompt": "Prompt (`f1`): ask; the answers appear side by side.",
    "help": "The keys of a screen (`?`).",
    "review": "Review (`f2`): judge what is next, blind.",
    "train": "Train (`f3`): a run under way, and what it may start from.",
    "insight": "Insight (`f4`): what the feedback and the versions come to, a figure at a time.",
    "library": "Library (`f5`): every prompt, searched and filtered.",
    "opened": "A prompt of the Library, opened: its turns, an answer, and all that was said of it.",
    "preview": "An import of the Library (`i`), before anything is stored.",
    "settings": "Settings (`f7`), over any screen.",
    "keys": "The editor of keys (`alt+k`).",
    "themes": "Themes, seen while one chooses (`alt+t`).",
    "about": "About (`alt+i`): versions, paths, and the end of the logs.",
    "jump": "Jump mode (`alt+j`): a letter on all that takes the focus.",
    "versions": "Versions (`f6`): publish, compare, go back.",
    "answers": "Held-out answers before and after, of a version.",
}

# One prompt a language with two answers, the better one first.
TALK = (
    ("es", "Explica por qué el cielo es azul.",
     "El aire dispersa la luz azul mucho más que la roja. Por eso, de día, nos llega azul desde todas partes.",
     "Porque refleja el color del mar, que es azul y muy grande."),
    ("fr", "Qu'est-ce qu'un glacier ?",
     "Une masse de glace née de la neige tassée, qui s'écoule lentement sous son propre poids.",
     "C'est un endroit où il fait froid, comme un congélateur dans la montagne."),
    ("en", "How does a bicycle stay upright?",
     "By steering: a lean turns the front wheel, and the turn brings the wheels back under the rider.",
     "It stays upright because it is moving, and moving things do not fall."),
    ("de", "Warum haben Katzen Schnurrhaare?",
     "Mit ihnen tasten sie: Die Haare melden Luftzug und Abstände, auch im Dunkeln.",
     "Damit sie hübscher aussehen und andere Katzen sie erkennen."),
    ("pt", "Como se faz pão em casa?",
     "Misture farinha, água, sal e fermento, sove, deixe crescer uma hora e asse em forno bem quente.",
     "Compre o pão na padaria e leve-o para casa."),
    ("zh", "为什么海水是咸的?",
     "雨水溶解岩石中的盐, 河流把盐带进大海; 水会蒸发, 盐却留了下来。",
     "因为鱼在海里生活了很久。"),
    ("ar", "كيف يتكوّن قوس قزح؟",
     "تنكسر أشعة الشمس داخل قطرات المطر وتنعكس، فيظهر كل لون من زاوية مختلفة.",
     "يظهر بعد المطر."),
    ("hi", "चाय कैसे बनाते हैं?",
     "पानी उबालें, चायपत्ती और अदरक डालें, फिर दूध मिलाकर दो मिनट पकाएँ।", "दुकान से चाय लें।"),
    ("ja", "猫はなぜ昼間よく眠るのですか。",
     "夜明けと夕方に狩りをする動物なので、昼は休んで力をためます。",
     "眠いからです。"),
    ("sw", "Kwa nini majani ni ya kijani?",
     "Yana klorofili, ambayo hufyonza mwanga mwekundu na wa bluu na kurudisha kijani.",
     "Kwa sababu ya mvua."),
)  # fmt: skip


def take(folder: Path) -> list[Path]:
    """Write one SVG a screen and size into `folder`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["HOME"] = place  # the workspaces' paths begin with ~
        for width, height in SIZES:
            workspace = Workspace(Path(place) / "dialects" / f"{width}x{height}")
            written += asyncio.run(_tour(workspace, folder, (width, height)))
    return written


async def _tour(workspace: Workspace, folder: Path, size: tuple[int, int]) -> list[Path]:
    written: list[Path] = []
    app = WorkbenchApp(workspace, start_engine=False)

    def picture(name: str) -> None:
        assert name in PICTURED, "the page tells what is pictured"
        written.append(_picture(app, folder / f"{name}-{size[0]}x{size[1]}.svg"))

    async with app.run_test(size=size) as pilot:
        await _until(pilot, lambda: app.desk is not None)
        app.hear(protocol.Progress("convert", "tensors of SmolLM2-135M-Instruct", 0.41))
        await pilot.pause(0.2)
        picture("first-run")
        await pilot.press("enter")
        assert app.desk is not None
        with open_database(workspace) as database:
            furnish(database)
        app.desk.rater = RATER
        app.update_session(rater=RATER)
        await pilot.pause(0.4)
        app.hear(protocol.Ready("smollm2", "v2", "cpu", "bfloat16", 134_515_008, 2048, 3.0))
        await ask(app, pilot)
        picture("prompt")
        await pilot.press("f12")
        await pilot.pause(0.1)
        picture("help")
        await pilot.press("escape", "f2")
        await pilot.pause(0.4)
        picture("review")
        await pilot.press("f3")
        await pilot.pause(0.8)
        picture("train")
        await pilot.press("f4")
        await pilot.pause(0.8)
        picture("insight")
        await pilot.press("f5")
        await pilot.pause(0.4)
        picture("library")
        await preview(app, pilot)
        picture("preview")
        await pilot.press("escape")
        await _until(pilot, lambda: isinstance(app.screen, FormDialog))
        await pilot.press("escape")
        await pilot.pause(0.2)
        await pilot.press("end", "enter")
        await pilot.pause(0.4)
        picture("opened")
        app.hear(protocol.Swapped("v2", "v1", 0.4))
        await pilot.press("f6")
        await pilot.pause(0.4)
        picture("versions")
        await pilot.press("o")
        await pilot.pause(0.4)
        picture("answers")
        await pilot.press("escape")
        for name, key in OVER_ANY.items():
            await pilot.press(key)
            await pilot.pause(0.4)
            picture(name)
            await pilot.press("escape")
            await pilot.pause(0.1)
    return written


def take_loop(workspace: Workspace, folder: Path, *, start_engine: bool = True) -> list[Path]:
    """Write what `workspace` has come to as two SVGs into `folder`; the engine runs, so that the header is true.

    Raises:
        UsageError: fewer than `LOOP_RATED` ratings, or no version served that was compared with the one before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return asyncio.run(_loop(workspace, folder, start_engine))


async def _loop(workspace: Workspace, folder: Path, start_engine: bool) -> list[Path]:
    if not workspace.database.exists():
        raise UsageError(f"{workspace.root} is no workspace", "name one in which the loop was gone through")
    app = WorkbenchApp(workspace, start_engine=start_engine)
    async with app.run_test(size=LOOP_SIZE) as pilot:
        await _until(pilot, lambda: app.desk is not None and app.rated is not None)
        if (app.rated or 0) < LOOP_RATED:
            raise UsageError(f"{workspace.root} has {app.rated} ratings", f"rate {LOOP_RATED} answers first")
        await pilot.press("f6")
        screen = app.screen
        assert isinstance(screen, VersionsScreen)
        await _until(pilot, lambda: screen.shown is not None)
        served = screen.served
        if served is None or not verdict.answers(served.metrics):
            hint = "train with held-out prompts, and publish what passes the gate"
            raise UsageError(f"{workspace.root} serves no version that was compared with the one before", hint)
        if start_engine:
            await _until(pilot, lambda: app.engine.is_ready and app.engine.version == served.name, 240)
        screen.table.move_cursor(row=[version.name for version in screen.versions].index(served.name))
        await pilot.pause(0.5)
        written = [_picture(app, folder / "loop-versions-100x30.svg")]
        await pilot.press("o")
        await pilot.pause(0.2)
        app.screen.query_one("#page").scroll_to_widget(app.screen.query(".asked").first(), animate=False, top=True)
        await pilot.pause(0.2)
        return [*written, _picture(app, folder / "loop-answers-100x30.svg")]


def _picture(app: WorkbenchApp, path: Path) -> Path:
    path.write_text(app.export_screenshot(title="workbench"), encoding="utf-8")
    return path


async def ask(app: WorkbenchApp, pilot) -> None:
    """A prompt with two answers: the left one finished and scored, the right one preferred less."""
    from workbench.screens.prompt.screen import PromptScreen

    screen = app.screen
    assert isinstance(screen, PromptScreen)
    app.update_session(language="es")
    _, text, good, bad = TALK[0]
    screen.editor.write(text)
    await pilot.pause()
    await pilot.press("enter")
    await _until(pilot, lambda: app.conversation.current is not None)
    assert app.conversation.current is not None
    request = app.conversation.current.ask.generate.request
    for n, answer in enumerate((good, bad)):
        app.hear(protocol.Answer(request, n, answer, list(range(len(answer) // 4)), "eos", "v2", 7 + n))
    app.hear(protocol.Done(request, 60, 1.25, 48.0))
    await pilot.pause(0.2)
    await pilot.press("escape", "5", "a")
    await pilot.pause(0.2)


async def preview(app: WorkbenchApp, pilot) -> None:
    """An import that is looked at: a score, a preference and a demonstration."""
    from workbench.screens.library.exchanging import PreviewDialog

    (_, asked, good, bad), (_, other, better, worse) = TALK[1], TALK[9]
    lines = [
        {"prompt": asked, "response": good, "score": 4, "language": "fr", "rater": "amina", "minutes": 2},
        {"prompt": other, "chosen": better, "rejected": worse, "language": "sw", "rater": "amina"},
        {"prompt": asked, "completion": bad, "language": "fr"},
    ]
    file = app.workspace.root / "judgements.jsonl"
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    await pilot.press("i")
    await _until(pilot, lambda: isinstance(app.screen, FormDialog))
    app.screen.query_one("#field-file", Input).value = str(file)
    await pilot.press("enter")
    await _until(pilot, lambda: isinstance(app.screen, PreviewDialog))
    await pilot.pause(0.2)


async def _until(pilot, condition, seconds: float = 10.0) -> None:
    for _ in range(round(seconds / 0.05)):
        if condition():
            return
        await pilot.pause(0.05)
    raise TimeoutError("the app did not come to the expected state")


def furnish(database: Database) -> None:
    """Fill an empty workspace with prompts, answers, ratings, versions and a run under way; figures are invented."""
    base = versions.ensure_base(database, "smollm2", "0" * 64)
    for n, (language, text, _, bad) in enumerate(TALK):
        old = _answer(database, language, text, bad, base.name)
        log.append(database, log.score(old.id, 1 + n % 3, RATER, source=Source.SIMULATED))
        if language == "ar":
            log.append(database, log.label(old.id, False, RATER, source=Source.SIMULATED))
    finished = jobs.enqueue(database, "run", {"seed": 0, "ppo": {"steps": 40}})
    for step, parent, kl, reward in ((24, "v0", 2.2, 0.28), (40, "v1", 3.1, 0.41)):
        made = versions.add_candidate(
            database, base=base, parent=parent, file=f"versions/{step}.safetensors", sha256="0" * 64,
            job_id=finished.id, step=step, metrics=_found(reward, kl),
        )  # fmt: skip
        gates = [
            {
                "gate": "reward gain",
                "passed": True,
                "value": reward,
                "bound": 0.0,
                "detail": f"{reward:+.2f} over 40 held-out prompts; the lower end must pass 0",
            },
            {
                "gate": "judge",
                "passed": True,
                "value": 0.52,
                "bound": 0.0,
                "detail": "it foretells ratings that it never learned from by +0.52 [+0.34, +0.66]",
            },
            {
                "gate": "support",
                "passed": True,
                "value": 0.18,
                "bound": 0.3,
                "detail": "18% of the candidate's answers are like none that was rated; at most 30%",
            },
            {
                "gate": "KL bound",
                "passed": True,
                "value": kl,
                "bound": 15.0,
                "detail": f"{kl:.2f} nats per response to the base model; at most 15",
            },
            {"gate": "finite", "passed": True, "value": 1, "bound": 1, "detail": "weights, rewards and KL are finite"},
        ]
        versions.record_gates(database, made.name, gates, {})
        database.execute("UPDATE versions SET state = 'published' WHERE name = ?", (made.name,))
    for language, text, good, _ in TALK:
        _answer(database, language, text, good, "v2")
    _run_under_way(database)


def _found(reward: float, kl: float) -> dict[str, object]:
    """What a gate might find of a version."""
    answers = [
        {
            "prompt": text,
            "language": language,
            "before": bad,
            "after": good,
            "reward_before": -0.3,
            "reward_after": 0.6,
            "tokens_before": 48,
            "tokens_after": max(1, len(good) // 4),
            "finished_before": False,
            "finished_after": True,
        }
        for language, text, good, bad in TALK[:6]
    ]
    return {
        "reward_gain": reward, "reward_gain_interval": [reward - 0.2, reward + 0.2], "held_out_prompts": 40,
        "reward_gain_matched": reward - 0.15, "reward_gain_matched_interval": [reward - 0.4, reward + 0.1], "kl": kl,
        "length_before": 41.0, "length_after": 29.0, "finished_before": 0.35, "finished_after": 0.9,
        "outside_support": 0.18, "outside_support_before": 0.12, "answers": answers,
        "reward_gain_unknown": 0.11, "judge_agreement": 0.52, "judge_agreement_interval": [0.34, 0.66],
    }  # fmt: skip


def _answer(database: Database, language: str, text: str, answer: str, version: str) -> Sample:
    prompt = conversations.add(database, text, language=language, split=Split.TRAIN)
    tokens = list(range(len(answer) // 4))
    made = samples.new(
        prompt.id, answer, version=version, token_ids=tokens, finish_reason="eos", sampling=Sampling(), seed=0
    )
    samples.add(database, [made])
    return made


def _run_under_way(database: Database) -> None:
    """A job in the middle of its steps, with the curves of a run that goes well."""
    noise = random.Random(0)
    queued = jobs.enqueue(database, "run", {"seed": 1, "ppo": {"steps": STEPS, "kl_target": 6.0}}, steps=STEPS)
    job = jobs.claim(database, "example", job_id=queued.id, lease=3600)
    assert job is not None
    for step in range(1, STEP + 1):
        grown = 1 - math.exp(-step / 14)
        values: dict[tuple[str, str | None], float] = {
            ("objective/scores", None): -0.2 + 0.85 * grown + noise.gauss(0, 0.04),
            ("objective/kl", None): 3.2 * grown + noise.gauss(0, 0.1),
            ("objective/kl_coef", None): 0.15 - 0.04 * grown,
            ("objective/entropy", None): 2.3 - 0.4 * grown,
            ("policy/clipfrac", None): 0.08 + noise.gauss(0, 0.01),
            ("policy/approxkl", None): 0.011 + noise.gauss(0, 0.002),
            ("value/explained_variance", None): 0.5 * grown,
            ("loss/policy", None): -0.02 * grown + noise.gauss(0, 0.004),
            ("policy/sampler_gap", None): 3e-11,
            ("support/outside", None): 0.06 + 0.08 * grown,
            ("loss/value", None): 0.4 * math.exp(-step / 9) + 0.05,
            ("response/length", None): 42 - 4 * grown + noise.gauss(0, 0.8),
            ("throughput/tokens_per_second", None): 412 + noise.gauss(0, 6),
            ("memory/peak", None): 1.9e9,
        }
        for n, (language, *_) in enumerate(TALK[:6]):
            values["objective/scores", language] = -0.3 + 0.1 * n + 0.8 * grown + noise.gauss(0, 0.06)
            values["objective/kl", language] = 3.2 * grown + noise.gauss(0, 0.3)
            values["support/outside", language] = 0.03 * n + 0.06 * grown
        metrics.record(database, job.id, step, values)
        database.execute(
            "UPDATE metrics SET created_at = ? WHERE job_id = ? AND step = ?",
            (clock.after(12 * (step - STEP)), job.id, step),
        )
    metrics.add_rollouts(
        database,
        [
            metrics.new_rollout(
                job.id, STEP - n, text, language, good if n % 3 else bad, 1.2 if n % 3 else -0.4, 3.1, 40
            )
            for n, (language, text, good, bad) in enumerate(TALK)
        ],
    )
    jobs.progress(database, job, stage="policy", step=STEP, steps=STEPS)
    database.execute("UPDATE jobs SET log = ? WHERE id = ?", ("logs/example.log", job.id))
    file = database.path.parent / "logs" / "example.log"
    file.write_text("".join(f"{clock.now()[11:19]} step {n} of {STEPS}\n" for n in range(STEP - 12, STEP + 1)))


def page() -> str:
    """The page that shows every picture, as Markdown."""
    lines = [
        "# Screens",
        "",
        "Every screen at 120x40, 80x24 and 40x12, drawn by the program itself with invented figures:",
        "`python -m docs.pictures` draws them again and writes this page.",
    ]
    widest, *others = (f"{width}x{height}" for width, height in SIZES)
    for name, caption in PICTURED.items():
        lines += ["", f"## {caption}", "", f"![{name}, {widest}]({FOLDER.name}/{name}-{widest}.svg)", ""]
        lines.append(" ".join(f"![{name}, {size}]({FOLDER.name}/{name}-{size}.svg)" for size in others))
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=FOLDER)
@click.option("--loop", "workspace", type=click.Path(path_type=Path), help="A workspace to picture instead.")
def main(folder: Path, workspace: Path | None) -> None:
    """Write the pictures into FOLDER, and their names to standard output."""
    try:
        written = take(folder) if workspace is None else take_loop(Workspace(workspace.absolute()), folder)
    except UsageError as error:
        raise click.ClickException(f"{error.message}: {error.hint}") from error
    if folder == FOLDER and workspace is None:
        PAGE.write_text(page(), encoding="utf-8")
        written.append(PAGE)
    for path in written:
        print(path)


if __name__ == "__main__":
    main()
