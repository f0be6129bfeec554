"""The languages offered first, each in its own name; any other BCP 47 tag may be typed."""

from __future__ import annotations

import re

LANGUAGES = {
    "en": "English", "es": "Español", "fr": "Français", "de": "Deutsch", "pt": "Português", "zh": "中文",
    "ar": "العربية", "hi": "हिन्दी", "ja": "日本語", "sw": "Kiswahili", "it": "Italiano", "nl": "Nederlands",
    "pl": "Polski", "ru": "Русский", "uk": "Українська", "tr": "Türkçe", "fa": "فارسی", "ur": "اردو",
    "bn": "বাংলা", "ta": "தமிழ்", "te": "తెలుగు", "mr": "मराठी", "vi": "Tiếng Việt", "th": "ไทย",
    "id": "Bahasa Indonesia", "ko": "한국어", "he": "עברית", "el": "Ελληνικά", "cs": "Čeština", "hu": "Magyar",
    "ro": "Română", "sv": "Svenska", "fi": "Suomi", "da": "Dansk", "nb": "Norsk bokmål", "ca": "Català",
    "eu": "Euskara", "am": "አማርኛ", "yo": "Yorùbá", "ha": "Hausa", "ig": "Igbo", "zu": "isiZulu", "xh": "isiXhosa",
    "so": "Soomaali", "tl": "Tagalog", "ms": "Bahasa Melayu", "und": "not known",
}  # fmt: skip

_TAG = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


def is_tag(text: str) -> bool:
    """Whether a text has the form of a BCP 47 language tag, such as `es-AR` or `zh-Hant`."""
    return _TAG.fullmatch(text) is not None


def canonical(tag: str) -> str:
    """A tag in the usual case: language lower, script Title, region UPPER."""
    first, *rest = tag.split("-")
    shaped = [part.title() if len(part) == 4 and part.isalpha() else part.upper() if len(part) == 2 else part.lower()
              for part in rest]  # fmt: skip
    return "-".join([first.lower(), *shaped])


def matching(typed: str) -> list[tuple[str, str]]:
    """Languages `(tag, name)` that fit what is typed; a well-formed tag that is not on the list comes last."""
    wanted = typed.strip().lower()
    found = [
        (tag, name) for tag, name in LANGUAGES.items() if tag.startswith(wanted) or name.lower().startswith(wanted)
    ]
    if wanted and is_tag(wanted) and canonical(wanted) not in LANGUAGES:
        found.append((canonical(wanted), "this tag, as typed"))
    return found
