"""The small workspace that is pictured: prompts in ten languages, ratings, versions and a run under way.

Its figures are invented.
"""

from __future__ import annotations

import math
import random

from storage import clock, conversations, jobs, metrics, samples, versions
from storage.database import Database
from storage.feedback import log
from storage.records import Sample, Sampling, Source, Split

RATER = "example"
STEPS, STEP = 80, 31
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
