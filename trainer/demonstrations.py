"""Answers to imitate: demonstrations that were written or imported, and answers that a rater corrected."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import dataclass, replace

from storage.database import Database
from storage.errors import UsageError
from storage.records import Begun, RatingKind, Split
from storage.wording import counted
from trainer.examples import Response, counting_ratings, stored_responses


@dataclass(frozen=True)
class Demonstrations:
    """What to imitate, the same answer to a prompt once, and where it came from.

    Attributes:
        sample_ids: of the demonstrations. rating_ids: of the edits.
    """

    responses: list[Response]
    sample_ids: list[str]
    rating_ids: list[str]

    def count(self) -> int:
        return len(self.responses)

    def shuffled(self, seed: int) -> Demonstrations:
        """The same answers, permuted among the prompts of their language: a control, in which none belongs."""
        generator, by_language = random.Random(f"{seed} control"), dict[str, list[Response]]()
        for response in self.responses:
            by_language.setdefault(response.prompt.language, []).append(response)
        made = []
        for own in by_language.values():
            others = generator.sample(own, len(own))
            made += [replace(other, prompt=one.prompt) for one, other in zip(own, others, strict=True)]
        return replace(self, responses=made)

    def languages(self) -> dict[str, int]:
        """Answers by language, the most frequent first."""
        return dict(Counter(response.prompt.language for response in self.responses).most_common())

    def digest(self) -> str:
        """A fingerprint of what was learned from."""
        return hashlib.sha256("\n".join(sorted([*self.sample_ids, *self.rating_ids])).encode()).hexdigest()


def demonstrations(database: Database, base_digest: str, begun: Begun | None = None) -> Demonstrations:
    """The demonstrations and the effective edits of *training* prompts; blank texts teach nothing.

    Args:
        base_digest: of the model that will learn; only its own versions' token ids are taken over.
        begun: what there was when a job began; by default what there is now.
    """
    known = stored_responses(database, base_digest, Split.TRAIN)
    sample_ids = [
        row["id"]
        for row in database.rows("SELECT id, sequence FROM samples WHERE origin = 'demonstration' ORDER BY sequence")
        if row["id"] in known and known[row["id"]].text.strip() and (begun is None or row["sequence"] <= begun.samples)
    ]
    edits = {
        event.id: Response(known[event.sample_id].prompt, event.text, None, None)
        for event in counting_ratings(database, begun)
        if event.kind == RatingKind.EDIT and event.sample_id in known and event.text and event.text.strip()
    }
    distinct: dict[tuple[str, str], Response] = {}
    for response in [*(known[key] for key in sample_ids), *edits.values()]:
        distinct.setdefault((response.prompt.id, response.text), response)
    return Demonstrations(list(distinct.values()), sample_ids, list(edits))


def check_enough(found: Demonstrations, minimum: int) -> None:
    """Refuse to imitate too little. Raises UsageError saying how many of what are missing."""
    if found.count() >= minimum:
        return
    missing = minimum - found.count()
    raise UsageError(
        f"too few answers to imitate: {counted(len(found.sample_ids), 'demonstration')} and "
        f"{counted(len(found.rating_ids), 'edit')} of "
        f"training prompts make {counted(found.count(), 'different answer')}; {minimum} are needed",
        f"correct {counted(missing, 'more answer')} in the app, or import demonstrations "
        "({prompt, completion} records) with `workbench import FILE`",
    )
