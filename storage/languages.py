"""Language tags: which are valid, their normal form, and what the languages are called.

Tags are those of BCP 47, checked against IANA's registry and named after Unicode's CLDR, both through langcodes. It is
imported when a tag is first looked at: its tables take a tenth of a second.
"""

from __future__ import annotations

from functools import cache

UNKNOWN = "und"
_NAMELESS = "Unknown language"  # how langcodes names what CLDR has no name for
# What the app offers before anything is typed, in this order. Any other valid tag may be typed.
OFFERED = (
    "en", "es", "fr", "de", "pt", "zh", "ar", "hi", "ja", "sw", "it", "nl", "pl", "ru", "uk", "tr", "fa", "ur", "bn",
    "ta", "te", "mr", "vi", "th", "id", "ko", "he", "el", "cs", "hu", "ro", "sv", "fi", "da", "nb", "ca", "eu", "am",
    "yo", "ha", "ig", "zu", "xh", "so", "fil", "ms", UNKNOWN,
)  # fmt: skip


class BadTagError(ValueError):
    """A text that is no language tag; the message says why, without the text."""


@cache
def normal(tag: str) -> str:
    """The normal form of a tag: `pt_BR` and `pt-br` become `pt-BR`, `eng_Latn` becomes `en`, `iw` becomes `he`.

    Raises:
        BadTagError: it has not the form of a tag, or names a language, script or region that is not registered.
    """
    import langcodes

    try:
        found = langcodes.standardize_tag(tag.strip())
    except (langcodes.LanguageTagError, ValueError):
        raise BadTagError("must be a language tag such as en or pt-BR") from None
    if not tag.strip() or not langcodes.tag_is_valid(found):
        raise BadTagError("must be a registered language tag (und where the language is not known)")
    return found


def is_tag(text: str) -> bool:
    """Whether a text is a valid language tag, in normal form or not."""
    try:
        normal(text)
    except BadTagError:
        return False
    return True


@cache
def name(tag: str) -> str:
    """What a language is called in English, such as `Portuguese (Brazil)`; the tag itself where it has no name."""
    import langcodes

    try:
        found = langcodes.get(tag).display_name("en")
    except (langcodes.LanguageTagError, ValueError):
        return tag
    return tag if found.startswith(_NAMELESS) and tag != UNKNOWN else found


@cache
def own_name(tag: str) -> str:
    """What a language calls itself, such as `português`; its English name where that is not known."""
    import langcodes

    try:
        own = langcodes.get(tag).autonym()
    except (langcodes.LanguageTagError, ValueError):
        return tag
    return name(tag) if own.startswith(_NAMELESS) else own


@cache
def by_name(named: str) -> str | None:
    """The tag of a language by its English name (`Portuguese`), None where none goes by it."""
    import langcodes

    try:
        return normal(str(langcodes.find(named)))
    except (LookupError, BadTagError):
        return None


def renamed(tag: str) -> str | None:
    """The normal form of a valid tag where it goes by another name (`tl`, Tagalog, is `fil`, Filipino), else None.

    Other spellings of one language, such as `eng` and `en`, go by one name.
    """
    import langcodes

    found, was = normal(tag), name_before(tag)
    # Three letters where two would do have no name of their own; their normal form has.
    return None if was.startswith(_NAMELESS) or was == langcodes.get(found).language_name() else found


def name_before(tag: str) -> str:
    """What the language of a valid tag is called in English before it is brought into normal form: `tl` is Tagalog."""
    import langcodes

    return langcodes.Language.get(tag.strip(), normalize=False).language_name()


@cache
def spoken(tag: str) -> str:
    """The language of a tag alone, without script and region, by the name that covers it: `zh` of `cmn-Hant`.

    Both written forms of Norwegian are one. A tag that is not valid gives its first part.
    """
    import langcodes

    try:
        found = langcodes.get(tag).prefer_macrolanguage().language or UNKNOWN
    except (langcodes.LanguageTagError, ValueError):
        found = tag.split("-")[0].lower()
    return "no" if found in ("nb", "nn") else found


def matching(typed: str) -> list[tuple[str, str]]:
    """Languages `(tag, own name)` that fit what is typed: the start of a tag, of their own name or their English one.

    A valid tag that is not among those offered comes last.
    """
    wanted = typed.strip().casefold()
    found = [
        (tag, own_name(tag))
        for tag in OFFERED
        if not wanted or any(word.casefold().startswith(wanted) for word in (tag, own_name(tag), name(tag)))
    ]
    if wanted and is_tag(wanted) and normal(wanted) not in dict(found):
        found.append((normal(wanted), own_name(normal(wanted))))
    return found
