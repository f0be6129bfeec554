"""Small records of each public layout, in sentences of our own, and what each becomes."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Case(NamedTuple):
    """Records of one layout that follow one another, and the records of our own that they become."""

    layout: str
    records: list[dict[str, Any]]
    becomes: list[dict[str, Any]]


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


_BASIL = "\n\nHuman: How do I dry basil?\n\nAssistant: On a rack or in the oven?\n\nHuman: Oven, please."
_BASIL_TURNS = [user("How do I dry basil?"), assistant("On a rack or in the oven?"), user("Oven, please.")]
_TEA = [user("How long does green tea steep?"), assistant("Two minutes."), user("And black tea?")]

HH = [
    Case(
        "hh",
        [{"chosen": _BASIL + "\n\nAssistant: Low heat, two hours. ", "rejected": _BASIL + "\n\nAssistant: No idea."}],
        [{"prompt": _BASIL_TURNS, "chosen": "Low heat, two hours. ", "rejected": "No idea."}],
    ),
    Case(
        "hh",
        [{"chosen": "\n\nHuman: Hi\n\nAssistant: Hello\nthere", "rejected": "\n\nHuman: Hi\n\nAssistant:"}],
        [{"prompt": "Hi", "chosen": "Hello\nthere", "rejected": ""}],
    ),
]
TRL = [
    Case(
        "trl",
        [{"chosen": "The sea is deep and blue.", "rejected": "The sea is dry."}],
        [{"prompt": "The sea is d", "chosen": "eep and blue.", "rejected": "ry."}],
    ),
    Case(
        "trl",
        [{"chosen": "Snow is white.", "rejected": "Snow is green.", "rater": "ines"}],
        [{"prompt": "Snow is", "chosen": " white.", "rejected": " green.", "rater": "ines"}],
    ),
]
SHAREGPT = [
    Case(
        "sharegpt",
        [
            {
                "id": "c-1",
                "conversations": [
                    {"from": "system", "value": "Be kind."},
                    {"from": "human", "value": "How long does green tea steep?"},
                    {"from": "gpt", "value": "Two minutes."},
                    {"from": "human", "value": "And black tea?"},
                    {"from": "gpt", "value": "Four."},
                ],
            }
        ],
        [{"prompt": [system("Be kind."), *_TEA], "completion": "Four."}],
    ),
    Case(
        "sharegpt",
        [
            {
                "conversations": [{"from": "human", "value": "Salut?"}],
                "system": "Réponds en français.",
                "language": "French",
            }
        ],
        [{"prompt": [system("Réponds en français."), user("Salut?")], "language": "fr"}],
    ),
]
ALPACA = [
    Case(
        "alpaca",
        [
            {
                "instruction": "Name the metal.",
                "input": "It melts in the hand.",
                "output": "Gallium.",
                "text": "Below is",
            }
        ],
        [{"prompt": "Name the metal.\nIt melts in the hand.", "completion": "Gallium."}],
    ),
    Case(
        "alpaca",
        [
            {
                "instruction": "And black tea?",
                "input": "",
                "output": "Four.",
                "system": "Be brief.",
                "history": [["How long does green tea steep?", "Two minutes."]],
            }
        ],
        [{"prompt": [system("Be brief."), *_TEA], "completion": "Four."}],
    ),
]
KTO = [
    Case(
        "kto",
        [{"instruction": "Is basalt a rock?", "input": "", "history": [], "output": "Yes.", "kto_tag": True}],
        [{"prompt": "Is basalt a rock?", "completion": "Yes.", "label": True}],
    ),
    Case(
        "kto",
        [{"messages": [user("Is amber a rock?"), assistant("Yes.")], "system": "Be exact.", "kto_tag": False}],
        [{"prompt": [system("Be exact."), user("Is amber a rock?")], "completion": "Yes.", "label": False}],
    ),
    Case(
        "kto",
        [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hm."}], "label": "false"}],
        [{"prompt": "Hi", "completion": "Hm.", "label": False}],
    ),
]
RANKING = [
    Case(
        "ranking",
        [{"instruction": "Name a rock.", "input": "", "chosen": "Basalt.", "rejected": "Butter.", "history": []}],
        [{"prompt": "Name a rock.", "chosen": "Basalt.", "rejected": "Butter."}],
    ),
    Case(
        "ranking",
        [
            {
                "conversations": [{"from": "human", "value": "Name a rock."}],
                "system": "Be brief.",
                "chosen": {"from": "gpt", "value": "Basalt."},
                "rejected": {"from": "gpt", "value": "Butter."},
            }
        ],
        [{"prompt": [system("Be brief."), user("Name a rock.")], "chosen": "Basalt.", "rejected": "Butter."}],
    ),
    Case(
        "ranking",
        [{"system": "", "question": "Name a rock.", "chosen": "Basalt.", "rejected": "Butter."}],
        [{"prompt": "Name a rock.", "chosen": "Basalt.", "rejected": "Butter."}],
    ),
    Case(
        "ranking",
        [{"instruction": "Name a rock.", "input": "", "output": ["Basalt.", "Amber.", "Butter."]}],
        [
            {"prompt": "Name a rock.", "chosen": "Basalt.", "rejected": "Amber."},
            {"prompt": "Name a rock.", "chosen": "Basalt.", "rejected": "Butter."},
            {"prompt": "Name a rock.", "chosen": "Amber.", "rejected": "Butter."},
        ],
    ),
]
SHP = [
    Case(
        "shp",
        [
            {
                "post_id": "p1", "domain": "askbaking_test", "history": "Why does my loaf sink?", "labels": label,
                "human_ref_A": "Too much yeast.", "human_ref_B": "Ask the moon.", "score_A": 40, "score_B": 3,
            }
        ],
        [{"prompt": "Why does my loaf sink?", "chosen": chosen, "rejected": rejected}],
    )
    for label, chosen, rejected in (
        (1, "Too much yeast.", "Ask the moon."),
        (0, "Ask the moon.", "Too much yeast."),
    )
]  # fmt: skip
_LOCK = {"prompt": "How do I open a lock?"}
PKU = [
    Case(
        "pku",
        [
            {
                **_LOCK, "response_0": "With its key.", "response_1": "Break it.", "prompt_source": "made",
                "response_0_source": "Model-7B", "response_1_source": "Model-8B",
                "is_response_0_safe": True, "is_response_1_safe": False,
                "response_0_harm_category": {"Theft": False, "Violence": False},
                "response_1_harm_category": {"Theft": True, "Violence": True},
                "response_0_severity_level": 0, "response_1_severity_level": 2,
                "better_response_id": 1, "safer_response_id": 0,
            }
        ],
        [
            {
                **_LOCK, "chosen": "Break it.", "rejected": "With its key.", "attribute": "overall",
                "chosen_model": "Model-8B", "rejected_model": "Model-7B",
            },
            {
                **_LOCK, "chosen": "With its key.", "rejected": "Break it.", "attribute": "safety",
                "chosen_model": "Model-7B", "rejected_model": "Model-8B",
            },
            {**_LOCK, "completion": "With its key.", "model": "Model-7B", "label": True, "attribute": "safety"},
            {**_LOCK, "completion": "Break it.", "model": "Model-8B", "label": False, "attribute": "safety"},
            {
                **_LOCK, "completion": "Break it.", "model": "Model-8B",
                "tags": {"harm": "Theft, Violence", "severity": 2},
            },
        ],
    )
]  # fmt: skip
_RIVER = {"prompt": "Name a river in Peru."}
ULTRAFEEDBACK = [
    Case(
        "ultrafeedback",
        [
            {
                "source": "made", "instruction": "Name a river in Peru.", "models": ["m-1", "m-2"],
                "correct_answers": ["None"], "incorrect_answers": ["None"],
                "completions": [
                    {
                        "model": "m-1", "response": "The Ucayali.", "overall_score": 9.0, "fine-grained_score": 4.5,
                        "critique": "Good.", "principle": "honesty", "custom_system_prompt": "Be honest.",
                        "annotations": {
                            "helpfulness": {"Rating": "5", "Rationale": "It answers.", "Type": ["1"]},
                            "honesty": {"Rating": "N/A", "Rationale": ""},
                        },
                    },
                    {"model": "m-2", "response": "The Nile.", "overall_score": 2, "annotations": {}},
                ],
            }
        ],
        [
            {
                **_RIVER, "response": "The Ucayali.", "model": "m-1", "score": 9.0, "scale": [1, 10],
                "attribute": "overall",
            },
            {
                **_RIVER, "response": "The Ucayali.", "model": "m-1", "score": 5.0, "scale": [1, 5],
                "attribute": "helpfulness",
            },
            {**_RIVER, "response": "The Nile.", "model": "m-2", "score": 2.0, "scale": [1, 10], "attribute": "overall"},
        ],
    ),
    Case(
        "ultrafeedback",
        [
            {
                **_RIVER, "prompt_id": "a1", "score_chosen": 8.0, "score_rejected": 2.5,
                "chosen": [user("Name a river in Peru."), assistant("The Ucayali.")],
                "rejected": [user("Name a river in Peru."), assistant("The Nile.")],
                "messages": [user("Name a river in Peru."), assistant("The Ucayali.")],
            }
        ],
        [
            {**_RIVER, "chosen": "The Ucayali.", "rejected": "The Nile."},
            {**_RIVER, "response": "The Ucayali.", "score": 8.0, "scale": [1, 10]},
            {**_RIVER, "response": "The Nile.", "score": 2.5, "scale": [1, 10]},
        ],
    ),
    *(
        Case(
            "ultrafeedback",
            [
                {
                    **_RIVER, "chosen": "The Ucayali.", "rejected": "The Nile.", f"chosen{mark}rating": 4.5,
                    f"rejected{mark}rating": 1, f"chosen{mark}model": "m-1", f"rejected{mark}model": "m-2",
                }
            ],
            [
                {
                    **_RIVER, "chosen": "The Ucayali.", "rejected": "The Nile.", "chosen_model": "m-1",
                    "rejected_model": "m-2",
                },
                {**_RIVER, "response": "The Ucayali.", "score": 4.5, "scale": [1, 5], "model": "m-1"},
                {**_RIVER, "response": "The Nile.", "score": 1.0, "scale": [1, 5], "model": "m-2"},
            ],
        )
        for mark in "-_"
    ),
]  # fmt: skip
HELPSTEER = [
    Case(
        "helpsteer",
        [
            {
                "prompt": "How long does green tea steep?\n<extra_id_1>Assistant\nTwo minutes.\n<extra_id_1>User\nAnd black tea?",
                "response": "Four.", "helpfulness": 4, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 0,
            }
        ],
        [
            {"prompt": _TEA, "response": "Four.", "scale": [0, 4], "score": float(score), "attribute": attribute}
            for attribute, score in (
                ("helpfulness", 4), ("correctness", 3), ("coherence", 4), ("complexity", 1), ("verbosity", 0),
            )
        ],
    ),
    *(
        Case(
            "helpsteer",
            [
                {
                    "split": split, "prompt": "Name a rock.", "response_1": "Basalt.", "response_2": "Butter.",
                    "preference_strength": strength, "preference_statement": "so", "preference_elaboration": "and so",
                }
            ],
            [
                {
                    "prompt": "Name a rock.", "split": stored, "response": "Basalt.", "other_response": "Butter.",
                    "choice": choice,
                }
            ],
        )
        for split, stored, strength, choice in (("train", "train", -2, "a"), ("val", "held-out", 0, "tie"))
    ),
    Case(
        "helpsteer",
        [
            {
                "domain": "multilingual", "language": "german", "context": [user("Nenne ein Gestein.")],
                "response1": "Butter.", "response2": "Basalt.", "overall_preference": 3,
                "individual_preference": [{"score": 3, "reasoning": "so"}],
            }
        ],
        [
            {
                "prompt": "Nenne ein Gestein.", "language": "de", "response": "Butter.", "other_response": "Basalt.",
                "choice": "b",
            }
        ],
    ),
]  # fmt: skip


def _oasst(key: str, parent: str | None, text: str, role: str = "assistant", **more: Any) -> dict[str, Any]:
    return {"message_id": key, "parent_id": parent, "text": text, "role": role, "lang": "en", "deleted": False, **more}


_LABELS = {"quality": {"value": 0.75, "count": 3}, "toxicity": {"value": 0.0, "count": 3}}
_ROOT = _oasst("m0", None, "How long does green tea steep?", "prompter")
_BEST = _oasst("m1", "m0", "Two minutes.", rank=0, labels=_LABELS, user_id="u7")
_EQUAL = _oasst("m2", "m0", "A short while.", rank=1, model_name="m-1", synthetic=True)
_LAST = _oasst("m3", "m0", "No.", rank=1)
_GONE = _oasst("m4", "m0", "(deleted)", rank=3, deleted=True)
_MORE = _oasst("m5", "m1", "And black tea?", "prompter")
_FOUR = _oasst("m6", "m5", "Four.", rank=None)
_ASKED = {"prompt": "How long does green tea steep?", "language": "en"}
_OASST_BECOMES = [
    {
        **_ASKED, "response": "Two minutes.", "other_response": "A short while.", "choice": "a",
        "other_model": "m-1",
    },
    {**_ASKED, "response": "Two minutes.", "other_response": "No.", "choice": "a"},
    {**_ASKED, "response": "A short while.", "other_response": "No.", "choice": "tie", "model": "m-1"},
    {**_ASKED, "response": "Two minutes.", "score": 0.75, "scale": [0, 1], "attribute": "quality"},
    {"prompt": _TEA, "language": "en", "completion": "Four."},
]  # fmt: skip
_LABELS_IN_LISTS = {"name": ["quality", "toxicity"], "value": [0.75, 0.0], "count": [3, 3]}
OASST = [
    Case(
        "oasst",
        [
            {
                "message_tree_id": "m0", "tree_state": "ready_for_export",
                "prompt": {
                    **_ROOT,
                    "replies": [{**_BEST, "replies": [{**_MORE, "replies": [_FOUR]}]}, _EQUAL, _LAST, _GONE],
                },
            }
        ],
        _OASST_BECOMES,
    ),
    Case(
        "oasst",
        [
            {**message, "message_tree_id": "m0"}
            for message in (_ROOT, {**_BEST, "labels": _LABELS_IN_LISTS}, _EQUAL, _LAST, _GONE, _MORE, _FOUR)
        ],
        _OASST_BECOMES,
    ),
    Case(
        "oasst",
        [{"message_tree_id": "n0", "prompt": {**_oasst("n0", None, "Nobody answers?", "prompter"), "replies": []}}],
        [{"prompt": "Nobody answers?", "language": "en"}],
    ),
]  # fmt: skip


def _battle(winner: str, choice: str) -> Case:
    sides = {
        "conversation_a": [user("Name a rock."), assistant("Basalt.")],
        "conversation_b": [user("Name a rock."), assistant("Butter.")],
    }
    record = {
        "question_id": "q1",
        "model_a": "m-1",
        "model_b": "m-2",
        "winner": winner,
        "judge": "arena_user_9",
        **sides,
        "turn": 1,
    }
    became = {"prompt": "Name a rock.", "response": "Basalt.", "other_response": "Butter.", "choice": choice}
    more = {"model": "m-1", "other_model": "m-2", "rater": "arena_user_9", "language": "en"}
    return Case("arena", [{**record, "anony": True, "language": "English", "tstamp": 1.5}], [{**became, **more}])


_PARTS = [{"type": "text", "text": "Name a rock.", "image": None}]
ARENA = [
    _battle("model_a", "a"),
    _battle("model_b", "b"),
    _battle("tie", "tie"),
    _battle("tie (bothbad)", "both-bad"),
    *(
        Case(
            "arena",
            [
                {
                    "id": 30192, "model_a": "m-1", "model_b": "m-2", "prompt": json.dumps(["Name a rock."]),
                    "response_a": json.dumps(["Basalt."]), "response_b": json.dumps(["Butter."]),
                    "winner_model_a": votes[0], "winner_model_b": votes[1], "winner_tie": votes[2],
                }
            ],
            [
                {
                    "prompt": "Name a rock.", "response": "Basalt.", "other_response": "Butter.", "choice": choice,
                    "model": "m-1", "other_model": "m-2",
                }
            ],
        )
        for votes, choice in (((1, 0, 0), "a"), ((0, 1, 0), "b"), ((0, 0, 1), "tie"))
    ),
    Case(
        "arena",
        [
            {
                "id": "x", "model_a": "m-1", "model_b": "m-2", "winner": "both_bad", "language": "unknown",
                "conversation_a": [{"role": "user", "content": _PARTS}, assistant("Butter.")],
                "conversation_b": [{"role": "user", "content": _PARTS}, assistant("Milk.")],
            }
        ],
        [
            {
                "prompt": "Name a rock.", "response": "Butter.", "other_response": "Milk.", "choice": "both-bad",
                "model": "m-1", "other_model": "m-2", "language": "und",
            }
        ],
    ),
]  # fmt: skip
_FIELDS = {"prompt": "Name a rock.", "response": "Basalt."}
_TWO = {"instruction": "Name a rock.", "response-1": "Basalt.", "response-2": "Butter."}
_PAIR = {"prompt": "Name a rock.", "response": "Basalt.", "other_response": "Butter."}
_BY_INES = {"rater": "ines", "attribute": "overall"}
ARGILLA = [
    Case(
        "argilla",
        [
            {
                "id": "r1", "status": "completed", "metadata": {}, "vectors": {}, "fields": _FIELDS,
                "suggestions": {"rating": {"value": 2, "score": None, "agent": "m-9"}},
                "responses": {
                    "rating": [{"value": 4, "user_id": "ines"}, {"value": 5, "user_id": "tomas"}],
                    "politeness": [{"value": "yes", "user_id": "ines"}],
                    "topics": [{"value": ["geology", "nature"], "user_id": "ines"}],
                    "correction": [{"value": "Basalt, say.", "user_id": "ines"}],
                },
            }
        ],
        [
            {**_FIELDS, **_BY_INES, "score": 4},
            {**_FIELDS, "rater": "tomas", "attribute": "overall", "score": 5},
            {**_FIELDS, "rater": "ines", "attribute": "politeness", "label": True},
            {**_FIELDS, "rater": "ines", "attribute": "topics", "tags": ["geology", "nature"]},
            {"prompt": "Name a rock.", "rater": "ines", "attribute": "correction", "completion": "Basalt, say."},
        ],
    ),
    Case(
        "argilla",
        [
            {
                "fields": _TWO,
                "responses": [
                    {
                        "user_id": "ines", "status": "submitted",
                        "values": {
                            "preference": {"value": "response-2"},
                            "ranking": {"value": [{"value": "response-1", "rank": 1}, {"value": "response-2", "rank": 1}]},
                            "rating-2": {"value": 1},
                        },
                    },
                    {"user_id": "tomas", "status": "discarded", "values": {"preference": {"value": "response-1"}}},
                ],
            }
        ],
        [
            {**_PAIR, **_BY_INES, "choice": "b"},
            {**_PAIR, **_BY_INES, "choice": "tie"},
            {"prompt": "Name a rock.", "response": "Butter.", **_BY_INES, "score": 1},
        ],
    ),
    Case(
        "argilla",
        [
            {
                "id": "r1", **_FIELDS, "rating.responses": [4, 2], "rating.responses.users": ["ines", "tomas"],
                "rating.responses.status": ["submitted", "draft"], "rating.suggestion": 3,
            }
        ],
        [{**_FIELDS, **_BY_INES, "score": 4}],
    ),
    Case(
        "argilla",
        [{**_FIELDS, "quality": [{"user_id": "ines", "value": 4, "status": "submitted"}], "quality-suggestion": 3}],
        [{**_FIELDS, **_BY_INES, "score": 4}],
    ),
    Case(
        "argilla",
        [
            {
                "chosen": "Basalt.", "rejected": "Butter.", "prompt": "Name a rock.",
                "choice": {"user_id": ["ines"], "value": ["chosen"], "status": ["submitted"]},
            }
        ],
        [{**_PAIR, **_BY_INES, "choice": "a"}],
    ),
]  # fmt: skip

CASES = [
    *ALPACA, *ARENA, *ARGILLA, *HELPSTEER, *HH, *KTO, *OASST, *PKU, *RANKING, *SHAREGPT, *SHP, *TRL, *ULTRAFEEDBACK,
]  # fmt: skip
