"""What a judge model is worth where the right answer is known.

    python -m benchmarks.judges [options of trainer judge, such as --model gemma or --endpoint URL]

Easy questions in four languages, each with its right answer and three wrong ones: the answer to another question, the
right one backwards, and one word over and over. A person scored all of them 5 or 1 and preferred each right answer to
each wrong one. `trainer judge` is run on all of it, and says how far it agrees and what it would weigh. It works in a
folder of its own that is gone afterwards; converted models are kept where other benchmarks keep theirs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measuring import cache_folder
from storage import conversations, samples
from storage.database import Database, open_database
from storage.feedback import log
from storage.records import Choice, Split
from storage.workspace import Workspace
from trainer import cli

QUESTIONS = {
    "en": (
        ("What is the capital of France?", "The capital of France is Paris."),
        ("How many legs does a spider have?", "A spider has eight legs."),
        ("What is frozen water called?", "Frozen water is called ice."),
        ("Which planet is closest to the sun?", "Mercury is the planet closest to the sun."),
        ("What do bees make?", "Bees make honey."),
        ("What is two plus three?", "Two plus three is five."),
        ("How many days are in a week?", "There are seven days in a week."),
        ("Where do fish live?", "Fish live in water."),
    ),
    "es": (
        ("¿Cuál es la capital de España?", "La capital de España es Madrid."),
        ("¿Qué producen las abejas?", "Las abejas producen miel."),
        ("¿Cuántos días tiene una semana?", "Una semana tiene siete días."),
        ("¿De qué color es la hierba?", "La hierba es verde."),
        ("¿Qué es el hielo?", "El hielo es agua congelada."),
        ("¿Dónde viven los peces?", "Los peces viven en el agua."),
    ),
    "de": (
        ("Was ist die Hauptstadt von Deutschland?", "Die Hauptstadt von Deutschland ist Berlin."),
        ("Was machen Bienen?", "Bienen machen Honig."),
        ("Wie viele Tage hat eine Woche?", "Eine Woche hat sieben Tage."),
        ("Welche Farbe hat Gras?", "Gras ist grün."),
        ("Was ist Eis?", "Eis ist gefrorenes Wasser."),
        ("Wo leben Fische?", "Fische leben im Wasser."),
    ),
    "sw": (
        ("Mji mkuu wa Kenya ni upi?", "Mji mkuu wa Kenya ni Nairobi."),
        ("Nyuki hutengeneza nini?", "Nyuki hutengeneza asali."),
        ("Wiki moja ina siku ngapi?", "Wiki moja ina siku saba."),
        ("Nyasi zina rangi gani?", "Nyasi zina rangi ya kijani."),
        ("Barafu ni nini?", "Barafu ni maji yaliyoganda."),
        ("Samaki huishi wapi?", "Samaki huishi majini."),
    ),
}


def fill(database: Database) -> None:
    """The questions with their answers, and what a person says of them; which answer stands first changes in turn."""
    for language, rows in QUESTIONS.items():
        for place, (question, right) in enumerate(rows):
            prompt = conversations.add(database, question, language=language, split=Split.TRAIN)
            wrong = [rows[(place + 3) % len(rows)][1], right[::-1], " ".join(right.split()[:1] * 8)]
            good, *bad = [samples.new(prompt.id, text) for text in (right, *wrong)]
            samples.add(database, [good, *bad])
            log.append_all(
                database, [log.score(good.id, 5, "person"), *(log.score(one.id, 1, "person") for one in bad)]
            )
            for number, one in enumerate(bad):
                first, second = (good, one) if (place + number) % 2 else (one, good)
                choice = Choice.A if first is good else Choice.B
                log.append(database, log.pair(first.id, second.id, choice, "person"))


def main() -> None:
    kept = Workspace(cache_folder() / "workspace").prepare()
    with TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "models").symlink_to(kept.models)
        workspace = Workspace(root).prepare()
        with open_database(workspace) as database:
            fill(database)
        cli.main(["judge", "--limit", "1", "--calibrate", "1000", "--workspace", str(root), *sys.argv[1:]])


if __name__ == "__main__":
    main()
