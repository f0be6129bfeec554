"""Suites and `trainer evaluate`: what is asked, what is counted, and what is never learned from."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from architectures import make_model, tokens
from rated_workspace import fill
from tiny_model import make_adapter

from storage import command_line, conversations, evaluations, packs, versions
from storage.errors import UsageError
from storage.forms import text_key
from storage.records import Sampling, Split
from trainer import adopting, cli
from trainer.evaluation import figures, no_worse, suites, trying
from trainer.evaluation.answers import is_incoherent, is_refusal, judged
from trainer.evaluation.intervals import unseen
from trainer.evaluation.items import Options, Outcome, Question
from trainer.evaluation.trying import attempt
from trainer.policy import models
from trainer.policy.decoding import Decoder
from trainer.prompt_split import split_prompts
from workbench.cli import cli as workbench
from workbench.cli import run_command

CPU = torch.device("cpu")
ALL_FIGURES = {
    "bias": {"ambiguous/accuracy", "ambiguous/bias", "clear/accuracy", "clear/bias"}, "swaps": {"stereotyped"},
    "norms": {"accuracy"}, "toxicity": {"unkind"},
}  # fmt: skip


# What the suites are


@pytest.mark.parametrize("language", suites.languages())
def test_each_language_has_its_dozen_texts_of_its_own(language):
    own = suites.read(language)
    for name in ("bias", "swaps", "refusal", "norms", "toxicity"):
        assert len(getattr(own, name)) >= 12, name
    for task in ("dialogue", "translation", "summary", "sentiment", "creative"):
        assert len(getattr(own.tasks, task)) >= 4, task
    assert {one.label for one in own.tasks.sentiment} == {0, 1, 2}
    assert len(own.sentiments) == 3
    for one in own.bias:
        assert one.for_expected != one.for_other
    for one in own.swaps:
        assert one.stereotyped != one.swapped


def test_no_two_items_are_alike_and_none_is_of_a_prompt_pack():
    texts = [text_key(text) for item in suites.every() for text in item.said]
    assert len(set(texts)) == len(texts)
    assert not set(texts) & {text_key(text) for pack in packs.every() for text in pack.prompts}


def test_the_right_option_stands_in_every_place():
    for language in suites.languages():
        places = {
            item.prompt.splitlines()[-3:].index(f"- {item.texts[2]}")
            for item in suites.chosen(["bias"], [language])
            if isinstance(item, Options) and item.prompt
        }
        assert places == {0, 1, 2}


def test_what_is_not_there_is_named():
    with pytest.raises(UsageError, match="no suite charm"):
        suites.chosen(["charm"])
    with pytest.raises(UsageError, match="no suites in tlh"):
        suites.chosen([], ["tlh"])


# What is counted


@pytest.mark.parametrize("network", ["llama", "gpt2"])
@pytest.mark.parametrize("changed", [False, True], ids=["base", "version"])
def test_a_text_is_as_likely_as_it_was_sampled(network, changed, tmp_path, tiny_model):
    """Scoring is of the weights that answer, in every network, and does not depend on what stands in the batch."""
    folder = tiny_model if network == "llama" else make_model(tmp_path / "gpt2", "gpt2")
    file = make_adapter(tmp_path / "version", folder) if changed and network == "llama" else None
    decoder = Decoder.load(folder, CPU, torch.float32, file)
    prompts = tokens(5, 7) + tokens(3, 4)
    said = decoder.generate(prompts, Sampling(max_new_tokens=9), list(range(len(prompts))), frozenset())
    found = decoder.likelihood(prompts, [one.token_ids for one in said])
    np.testing.assert_allclose(found, [sum(one.logprobs) for one in said], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "language", "told"),
    [
        ("Soak the pan overnight, then scrub it with salt and half a lemon.", "en", "answered"),
        ("I’m sorry, but I can’t help with that.", "en", "refused"),
        ("", "en", "incoherent"),
        ("?! ...", "en", "incoherent"),
        ("the cat and the cat and the cat and the cat and the cat and the cat and", "en", "incoherent"),
        ("猫和狗猫和狗猫和狗猫和狗猫和狗猫和狗猫和狗猫和狗", "zh", "incoherent"),
        ("Weiche die Pfanne über Nacht ein und scheuere sie dann mit Salz.", "en", "wrong_language"),
        ("Loweka sufuria usiku kucha, kisha isugue kwa chumvi na limau.", "sw", "answered"),
        ("No.", "en", "answered"),
    ],
)
def test_what_becomes_of_an_answer_is_told_apart(text, language, told):
    found = judged(text, language, ["I'm sorry, but I can"], ended=True)
    assert [name for name, value in found.items() if value] == [told]


def test_a_refusal_is_one_in_its_beginning_alone():
    assert is_refusal("LO SIENTO, pero no puedo ayudarte", ["lo siento, pero no"])
    assert not is_refusal("Tell her: " + "very politely, " * 20 + "I can't help", ["I can't help"])
    assert not is_incoherent("Ja.", "de")


@pytest.mark.parametrize(
    ("language", "apology", "refusal"),
    [
        ("ar", "كيف أعتذر لصديقي؟ قل له: أعتذر عن التأخير.", "أعتذر، لكن هذا غير ممكن."),
        ("hi", "उससे कहिए: क्षमा करें, कल देर हो गई।", "क्षमा करें, मैं यह नहीं बता सकता।"),
        ("de", "Schreib ihr: Es tut mir leid, dass ich zu spät kam.", "Es tut mir leid, aber das geht nicht."),
        ("zh", "你可以说：很抱歉昨天迟到了。", "很抱歉，我不能回答。"),
        ("sw", "Mwambie: I'm sorry about yesterday.", "I'm sorry, but I can't help with that."),
    ],
)
def test_an_apology_is_no_refusal(language, apology, refusal):
    phrases = suites.read(language).refusals
    assert not is_refusal(apology, phrases)
    assert is_refusal(refusal, phrases)


def lean(language: str, name: str, value: float) -> Outcome:
    item = Options("bias", language, name, ("a", "b", "c"), {"ambiguous/bias": (1.0, -1.0, 0.0)})
    return Outcome(item, {"ambiguous/bias": value}, "a")


def test_a_gain_is_what_came_nearer_to_what_it_should_be():
    """A bias is as bad to either side; a change of sign without a change of size gains nothing."""
    before = [lean("en", str(place), 1.0) for place in range(12)]
    after = [lean("en", str(place), -1.0 if place < 6 else 1.0) for place in range(12)]
    told = {one.language: one.interval for one in figures.gains(after, before)}
    assert told["en"].mean == told[None].mean == 1.0
    assert told["en"].low > 0
    mirrored = [lean("en", str(place), -1.0) for place in range(12)]
    assert figures.gains(mirrored, before)[0].interval.mean == 0.0
    assert figures.goodness("stereotyped", 0.4) == figures.goodness("stereotyped", 0.6)
    assert figures.goodness("refused", 1.0, harmful=True) > figures.goodness("refused", 0.0, harmful=True)


@pytest.mark.parametrize(("before", "after"), [(1, 23), (2, 22), (22, 2), (23, 1)])
def test_as_far_from_a_half_on_the_other_side_is_no_gain_and_no_loss(before: int, after: int):
    """Not a hair of one, which would be a sure loss where every draw says it."""

    def swaps(many: int) -> list[Outcome]:
        items = [Options("swaps", "en", str(place), ("a", "b"), {}) for place in range(24)]
        return [Outcome(item, {"stereotyped": float(place < many)}, "a") for place, item in enumerate(items)]

    assert figures.gains(swaps(after), swaps(before))[0].interval.mean == 0


@pytest.mark.parametrize("n", [2, 12, 120])
def test_items_that_are_all_alike_tell_nothing_of_those_that_were_not_asked(n: int):
    """Neither a bias of 0 nor a gain of 0 is certain: up to the bound, a share of other items is missed by `n` of them
    with a probability of 2.5% or more."""
    share = unseen(n)
    assert (1 - share) ** n == pytest.approx(0.025)
    neutral = [lean("en", str(place), 0.0) for place in range(n)]
    prejudiced = [lean("en", str(place), 1.0) for place in range(n)]
    (of_itself, _), (gain, _), (kept, _) = (
        figures.figures(neutral), figures.gains(neutral, prejudiced), figures.gains(neutral, neutral)
    )  # fmt: skip
    assert (of_itself.interval.low, of_itself.interval.high) == (pytest.approx(-share), pytest.approx(share))
    assert (kept.interval.low, kept.interval.high) == (pytest.approx(-2 * share), pytest.approx(2 * share))
    assert (gain.interval.low, gain.interval.high) == (pytest.approx(1 - 3 * share), pytest.approx(1 + share))


def test_a_share_of_a_dozen_that_all_agree_still_has_an_interval():
    item = Question("refusal", "en", "x", "?", "en")
    outcomes = [Outcome(Question("refusal", "en", str(n), "?", "en"), {"refused": 0.0}, "") for n in range(12)]
    overall, english = figures.figures(outcomes)
    assert (overall.language, english.language, item.suite) == (None, "en", "refusal")
    assert english.interval.mean == 0
    assert english.interval.high == pytest.approx(0.2425, abs=1e-3)  # Wilson, of 0 in 12


def test_a_planted_prejudice_is_found(backbone, monkeypatch):
    """Weights that find what a prejudice expects likeliest of all lean the whole way."""
    items = suites.chosen(["bias", "swaps", "toxicity"], ["en"])
    first = iter([place == 0 for item in items for place in range(len(item.texts))])
    decoder = backbone.decoder()
    monkeypatch.setattr(decoder, "likelihood", lambda prompts, texts: [0.0 if next(first) else -9e9 for _ in texts])
    found = figures.figures(attempt(decoder, backbone.tokenizer, items, Sampling()))
    told = {(one.suite, one.metric): one.interval.mean for one in found if one.language is None}
    assert told == {
        ("bias", "ambiguous/accuracy"): 0.0, ("bias", "ambiguous/bias"): 1.0, ("bias", "clear/accuracy"): 0.5,
        ("bias", "clear/bias"): 1.0, ("swaps", "stereotyped"): 1.0, ("toxicity", "unkind"): 1.0,
    }  # fmt: skip


# The command


@pytest.fixture
def version(workspace, database, tiny_model) -> str:
    """A version on the tiny model; returns its name."""
    base = adopting.root_of(database, workspace, models.resolve(str(tiny_model), workspace))
    file = make_adapter(workspace.versions / "made", tiny_model)
    made = versions.add_candidate(
        database, base=base, parent=base.name, file=str(file.relative_to(workspace.root)),
        sha256=versions.sha256_of(file),
    )  # fmt: skip
    return made.name


@pytest.fixture
def run_plain(workspace, tiny_model, capsys):
    """Run the command without --json; returns the lines that it prints."""

    def call(*arguments: str) -> list[str]:
        more = ("--model", str(tiny_model), "--device", "cpu", "--dtype", "fp32", "--workspace", str(workspace.root))
        assert command_line.run(cli.cli, [*arguments, *more], "trainer") == 0
        return capsys.readouterr().out.splitlines()

    return call


def test_a_version_is_measured_beside_its_parent(trainer, database, version, tmp_path):
    answers = tmp_path / "answers.jsonl"
    options = ("evaluate", "--version", version, "--languages", "en", "--max-new-tokens", "4")
    code, told = trainer(*options, "--answers-to", str(answers))
    assert code == 0
    plain = {(row["version"], row["suite"], row["metric"], row["language"]): row for row in told if not row["against"]}
    gained = [row for row in told if row["against"]]
    for suite, names in ALL_FIGURES.items():
        assert {key[2] for key in plain if key[1] == suite} == names
    assert {key[0] for key in plain} == {version, "v0"}
    assert {key[3] for key in plain} == {None, "en"}
    assert len(gained) == len(plain) / 2
    assert all(row["low"] <= row["value"] <= row["high"] for row in told if row["low"] is not None)
    one = next(row for row in gained if row["suite"] == "norms" and row["language"] is None)
    new, old = (plain[name, "norms", "accuracy", None]["value"] for name in (version, "v0"))
    assert one["value"] == pytest.approx(new - old)
    assert [row.value for row in evaluations.of(database, "v0")] == [
        row["value"] for row in told if row["version"] == "v0"
    ]
    lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(lines) == len(suites.chosen([], ["en"]))
    assert all(line[version]["answer"] is not None and line["v0"]["answer"] is not None for line in lines)
    again = trainer(*options)[1]
    assert [row["value"] for row in again] == [row["value"] for row in told]


def test_the_table_tells_each_figure_beside_the_parents(workspace, version, tiny_model, run_plain):
    told = run_plain(
        "evaluate", "--version", version, "--suite", "norms,swaps", "--languages", "en,es", "--by-language"
    )
    assert told[0].split() == [version, "v0", "gain", "n"]
    assert [line.split()[0] for line in told[1:]] == ["swaps", "en", "es", "norms", "en", "es"]
    assert [line.split()[-1] for line in told[1:]] == ["24", "12", "12"] * 2


@pytest.mark.parametrize("option", ["--suite", "--languages"])
@pytest.mark.parametrize("names", ["", " , "])
def test_an_option_that_names_nothing_does_not_measure_everything(workspace, database, command, option, names):
    code, out, err = command("evaluate", option, names)
    assert (code, out) == (2, "")
    assert "names nothing" in err
    assert evaluations.newest(database) == []


def test_what_was_measured_before_an_interruption_is_kept(
    workspace, database, version, tiny_model, monkeypatch, capsys
):
    """The suites that are done are stored, with their gains, and printed; what is left to ask for is said."""
    asked = []

    def interrupted(decoder, tokenizer, items, *rest):
        asked.append(items[0].suite)
        if asked.count("norms") == 2:
            raise KeyboardInterrupt
        return attempt(decoder, tokenizer, items, *rest)

    monkeypatch.setattr(trying, "attempt", interrupted)
    arguments = ("evaluate", "--version", version, "--suite", "swaps,norms,toxicity", "--languages", "en", "--json",
                 "--model", str(tiny_model), "--device", "cpu", "--workspace", str(workspace.root))  # fmt: skip
    assert command_line.run(cli.cli, arguments, "trainer") == command_line.INTERRUPTED
    told = capsys.readouterr()
    rows = json.loads(told.out)
    assert {(row["suite"], row["metric"]) for row in rows} == {("swaps", "stereotyped"), ("swaps", "stereotyped/gain")}
    kept = [*evaluations.of(database, version), *evaluations.of(database, "v0")]
    assert sorted(row.value for row in kept) == sorted(row["value"] for row in rows)
    assert f"{version}: swaps, 12 items in" in told.err
    assert "the rest by: --suite norms,toxicity" in told.err


def test_figures_of_a_suite_do_not_depend_on_which_others_are_asked(trainer, version):
    options = ("evaluate", "--version", version, "--alone", "--languages", "en", "--max-new-tokens", "4")
    together, alone = (trainer(*options, "--suite", suites)[1] for suites in ("refusal,tasks", "tasks"))
    assert [row["value"] for row in together if row["suite"] == "tasks"] == [row["value"] for row in alone]


def test_the_base_model_is_measured_in_an_empty_workspace(trainer, database):
    code, told = trainer("evaluate", "--suite", "swaps,norms", "--languages", "en")
    assert code == 0
    assert {(row["version"], row["against"]) for row in told} == {("v0", None)}
    assert {row["suite"] for row in told} == {"swaps", "norms"}


# What is never learned from


@pytest.mark.parametrize("language", suites.languages())
def test_a_leaked_text_of_a_suite_is_refused_and_one_put_apart_is_not(language, database):
    conversations.add(database, "What is rain?", language=language, split=Split.TRAIN)
    own = suites.read(language)
    leaked = conversations.add(database, f"Hello\n{own.bias[3].context} ", language=language, split=Split.TRAIN)
    with pytest.raises(UsageError, match=rf"1 training prompt belongs to .* bias \({language}\)"):
        split_prompts(database)
    conversations.put_to_use(database, leaked.id, Split.ETHICS, "")
    assert [prompt.text for prompt in split_prompts(database).practice] == ["What is rain?"]
    for item in suites.chosen([], [language])[::9]:
        conversations.add(database, item.said[0], language=language, split=Split.HELD_OUT)
    split_prompts(database)


@pytest.mark.parametrize("form", ["as it is", "shouted", "in a later turn"])
def test_a_run_refuses_to_learn_from_a_suite(trainer, database, workspace, tmp_path, form, capsys):
    fill(database)
    text = suites.read("en").refusal[0]
    said = {
        "as it is": text,
        "shouted": f" {text.upper()}".replace(" ", "  "),
        "in a later turn": [
            {"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": text},
        ],
    }[form]  # fmt: skip
    file = tmp_path / "leaked.jsonl"
    file.write_text(json.dumps({"prompt": said, "split": "train", "response": "No.", "score": 5}) + "\n")
    assert run_command(workbench, ["import", str(file), "--workspace", str(workspace.root)]) == 0
    capsys.readouterr()
    code, told = trainer("reward", "--rank", "4")
    assert code == 2
    assert "1 training prompt belongs to the suites of `trainer evaluate`" in told["error"]


# The gate


def norms(right: dict[str, float]) -> list[Outcome]:
    """Twenty answers a language, of which a share is right."""
    items = [
        Options("norms", language, str(n), ("a", "b"), {"accuracy": (1.0, 0.0)})
        for language in right
        for n in range(20)
    ]
    return [Outcome(item, {"accuracy": float(int(item.name) < 20 * right[item.language])}, "a") for item in items]


def test_a_version_that_became_worse_in_one_language_alone_does_not_pass(backbone, monkeypatch):
    before = norms({"en": 0.5, "sw": 0.8, "hi": 0.6})
    after = norms({"en": 0.9, "sw": 0.2, "hi": 0.55})
    items = [one.item for one in after]
    sides = iter([after, before, before, before])
    monkeypatch.setattr(no_worse, "attempt", lambda *_, **named: next(sides))
    (verdict,) = no_worse.suite_gates(backbone, None, None, items)
    assert (verdict["gate"], verdict["passed"]) == ("suite norms", False)
    assert verdict["detail"].startswith("worse in sw (accuracy -0.60")
    assert "en (" not in verdict["detail"]
    assert "hi (" not in verdict["detail"]
    (verdict,) = no_worse.suite_gates(backbone, None, None, items)
    assert verdict["passed"]


ROUND = (
    "rloo", "--rank", "4", "--steps", "1", "--batch", "4", "--answers", "2", "--minibatch", "4",
    "--max-new-tokens", "4", "--gate-prompts", "4", "--reward-model", "new",
)  # fmt: skip


def test_a_run_asks_the_suites_that_it_was_told_to(trainer, database):
    fill(database)
    code, told = trainer(*ROUND, "--gate-suites", "swaps, norms")
    assert code == 0, told["error"]
    gates = versions.get(database, told["version"]).gates
    assert [gate["gate"] for gate in gates][-2:] == ["suite swaps", "suite norms"]
    assert all(gate["passed"] for gate in gates[-2:])
    code, told = trainer(*ROUND, "--gate-suites", "charm")
    assert (code, told["error"]) == (2, "there is no suite charm")
