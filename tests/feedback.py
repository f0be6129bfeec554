"""Imported feedback enough to train on: prompts in ten languages, each with answers of different scores."""

from __future__ import annotations

import json
from pathlib import Path

PROMPTS = {
    "en": "Why does bread rise?",
    "es": "¿Por qué sube el pan?",
    "fr": "Pourquoi le pain lève-t-il ?",
    "de": "Warum geht Brot auf?",
    "pt": "Por que o pão cresce?",
    "zh": "面包为什么会发起来？",
    "ar": "لماذا ينتفخ الخبز؟",
    "hi": "रोटी क्यों फूलती है?",
    "ja": "パンはなぜふくらむのですか。",
    "sw": "Kwa nini mkate huumuka?",
}
HELD_OUT = {
    "en": "What keeps a boat afloat?",
    "es": "¿Qué mantiene a flote un barco?",
    "fr": "Qu'est-ce qui fait flotter un bateau ?",
    "sw": "Ni nini hufanya mashua ielee?",
}
ANSWERS = {5: "Yeast makes gas, and the dough holds it.", 3: "Yeast.", 1: "no no no no no"}


def write_feedback(path: Path) -> Path:
    """A JSONL file of 30 scores of training prompts and 4 held-out prompts."""
    records: list[dict[str, object]] = [
        {"prompt": prompt, "language": language, "split": "train", "response": answer, "score": score}
        for language, prompt in PROMPTS.items()
        for score, answer in ANSWERS.items()
    ]
    records += [{"prompt": prompt, "language": language, "split": "held-out"} for language, prompt in HELD_OUT.items()]
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path
