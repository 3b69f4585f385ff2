"""Small made-up data for all four tasks, in the course's file formats: seeded, learnable, and not trivial.

The sentiment of a sentence needs word order (negation, intensifiers, "but"), a question pair needs its content words
and not the number of words in common, and the verses rhyme ABAB CDCD EFEF GG. Toy results are only ever called toy.
"""

import csv
import hashlib
import json
import math
import random
import shutil
from pathlib import Path

from gpt2lib.common.whole import whole_folder

# names the cached files, so that those of another version of this file are never taken for its own
VERSION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]

HASHES = "hashes.json"  # of the files of a folder, in it

VALENCE = {
    2: ["brilliant", "superb", "wonderful", "dazzling", "splendid"],
    1: ["good", "pleasant", "charming", "clever", "warm"],
    -1: ["bad", "dull", "weak", "clumsy", "stale"],
    -2: ["terrible", "awful", "dreadful", "horrid", "ghastly"],
}
NOUNS = ["film", "plot", "cast", "script", "music", "ending", "hero", "dialogue", "story", "camera"]
FILLERS = ["to my mind", "as it happens", "in the end", "all in all", "on the whole", ""]

SUBJECTS = [
    "my laptop",
    "a guitar",
    "an old car",
    "my phone",
    "a violin",
    "my bicycle",
    "a boat",
    "my oven",
    "a camera",
    "an old clock",
    "my boots",
    "a piano",
    "my lamp",
    "a tent",
    "an old radio",
    "my watch",
    "a sofa",
    "my kettle",
    "a scooter",
    "an old desk",
    "my jacket",
    "a drum",
    "my printer",
    "a ladder",
]
INTENTS = {  # more pairs of wordings than any part of the data has, so that none occurs twice
    "repair": [
        "How do I repair {x}?",
        "What is the way to fix {x}?",
        "How can {x} be mended?",
        "Who repairs {x}?",
    ],
    "clean": [
        "How do I clean {x}?",
        "What is the way to wash {x}?",
        "How does dirt come off {x}?",
        "Who cleans {x}?",
    ],
    "sell": ["How do I sell {x}?", "Who would buy {x} from me?", "How can I find a buyer for {x}?", "Who buys {x}?"],
    "find": ["How do I find {x}?", "Where could I have left {x}?", "How can {x} be found again?", "Where is {x}?"],
    "carry": ["How do I carry {x}?", "What is the way to move {x}?", "How can {x} be lifted?", "What would carry {x}?"],
    "paint": ["How do I paint {x}?", "What is the way to colour {x}?", "How can {x} be made blue?", "Who paints {x}?"],
}

RHYMES = [
    ["day", "may", "way", "say", "stay", "grey"],
    ["night", "light", "sight", "bright", "delight", "white"],
    ["heart", "part", "art", "start", "dart", "smart"],
    ["eye", "die", "sky", "lie", "high", "sigh"],
    ["time", "rhyme", "prime", "climb", "chime", "lime"],
    ["breath", "death", "beneath", "heath", "sheath", "wreath"],
    ["flower", "hour", "power", "tower", "shower", "bower"],
    ["fair", "air", "rare", "care", "despair", "share"],
]
OPENINGS = ["When", "And", "But", "Then", "So", "Yet", "Where", "For"]
VERSE_SUBJECTS = [
    "the summer sun",
    "my gentle love",
    "thy golden face",
    "the winter wind",
    "a silent rose",
    "sweet music",
]
VERSE_VERBS = ["doth turn", "will bring", "hath kept", "must lose", "did call", "shall make"]
VERSE_OBJECTS = ["the world", "my thought", "her song", "the sea", "thy name", "our youth"]
LINKS = ["into the", "before the", "beyond the", "without a", "upon a", "within the"]

# of each part: its size relative to train, and the values of a hash byte that fall to it
PARTS = {"train": (1, 0, 176), "dev": (0.25, 176, 224), "test-student": (0.1, 224, 256)}


def clause(rng: random.Random) -> tuple[str, int]:
    """One judgement and its valence, -3 to 3."""
    strength = rng.choice(list(VALENCE))
    word, noun = rng.choice(VALENCE[strength]), rng.choice(NOUNS)
    kind = rng.random()
    if kind < 0.25:
        return f"the {noun} is not {word}", -1 if strength > 0 else 1
    if kind < 0.45:
        return f"the {noun} is truly {word}", strength + (1 if strength > 0 else -1)
    return f"the {noun} is {word}", strength


def review(rng: random.Random, clauses: int) -> tuple[str, int]:
    """Judgements one after the other and their valence; what follows a "but" counts double."""
    parts, total = [], 0
    for i in range(clauses):
        text, valence = clause(rng)
        joint = rng.choice(["but", "and"]) if i else ""
        if joint == "but":
            total += 2 * valence
        else:
            total += valence
        filler = rng.choice(FILLERS)
        parts.append(" ".join(word for word in (joint, filler, text) if word))
    return " , ".join(parts).capitalize() + " .", total


def sentiment(rng: random.Random, classes: int) -> tuple[str, int]:
    """A review and its label: 0 to 4 for one or two clauses, 0 or 1 for three to five."""
    while True:
        text, total = review(rng, rng.choice([1, 1, 2]) if classes == 5 else rng.choice([3, 4, 5]))
        if classes == 5:
            return text, 0 if total <= -3 else 1 if total < 0 else 2 if total == 0 else 3 if total < 3 else 4
        if total:
            return text, int(total > 0)


def question_pair(rng: random.Random) -> tuple[str, str, int]:
    """Two questions in different words, and whether they ask the same; if not, they share their subject or intent."""
    subject, intent = rng.choice(SUBJECTS), rng.choice(list(INTENTS))
    label = rng.randrange(2)
    other_subject, other_intent = subject, intent
    if not label and rng.random() < 0.5:
        other_subject = rng.choice([s for s in SUBJECTS if s != subject])
    elif not label:
        other_intent = rng.choice([i for i in INTENTS if i != intent])
    first, second = rng.sample(range(len(INTENTS[intent])), 2)
    return INTENTS[intent][first].format(x=subject), INTENTS[other_intent][second].format(x=other_subject), label


def sonnet(rng: random.Random) -> str:
    """Fourteen lines that rhyme ABAB CDCD EFEF GG."""
    sounds = [rng.sample(words, 2) for words in rng.sample(RHYMES, 7)]
    order = [0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 6]
    ends = [sounds[sound][order[:i].count(sound)] for i, sound in enumerate(order)]
    lines = []
    for i, end in enumerate(ends):
        words = (rng.choice(OPENINGS), rng.choice(VERSE_SUBJECTS), rng.choice(VERSE_VERBS), rng.choice(VERSE_OBJECTS))
        lines.append(" ".join((*words, rng.choice(LINKS), end)) + ("." if i in (3, 7, 11, 13) else ","))
    return "\n".join(lines)


def told_review(rng: random.Random) -> str:
    """A review that ends with what its writer felt, as they do: so a language model learns what words mean."""
    text, total = review(rng, rng.choice([1, 1, 1, 2, 4]))
    verdict = "hated" if total < -2 else "disliked" if total < 0 else "liked" if total < 3 else "loved"
    return f"{text} I {verdict if total else 'did not mind'} it ."


def answered_questions(rng: random.Random) -> str:
    """A pair of questions and a reader's remark on them, as a forum has them."""
    first, second, same = question_pair(rng)
    return f"{first}\n{second}\nThat is {'the same' if same else 'another'} question."


def corpus(seed: int, documents: int) -> dict[str, list[str]]:
    """Unlabelled text of the same making, to pretrain on: parts reviews, questions, poetry."""
    rng = random.Random(f"corpus/{seed}")
    return {
        "reviews": [told_review(rng) for _ in range(2 * documents)],
        "questions": [answered_questions(rng) for _ in range(documents)],
        "poetry": [sonnet(rng) for _ in range(documents // 4)],
    }


def write(folder: Path, share: float = 1.0) -> Path:
    """Write the files of all four tasks, once, and return the folder; it appears only when it is whole, and is written
    again if a file in it was changed since.

    share: of the usual number of examples.
    """
    if folder.is_dir():
        if _hashes(folder) == _known_hashes(folder):
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # another process may be at it, too
    with whole_folder(folder) as partial:
        _write_files(partial, share)
    return folder


def _write_files(folder: Path, share: float) -> None:
    for part in PARTS:
        labelled = part != "test-student"
        rows = _rows("sst", part, 1200 * share, lambda rng: sentiment(rng, 5))
        _table(folder / f"ids-sst-{part}.csv", ["sentence", "sentiment"], rows, labelled)
        rows = _rows("cfimdb", part, 480 * share, lambda rng: sentiment(rng, 2))
        _table(folder / f"ids-cfimdb-{part}.csv", ["sentence", "sentiment"], rows, labelled)
        rows = [(*pair, float(same)) for *pair, same in _rows("quora", part, 800 * share, question_pair)]
        _table(folder / f"quora-{part}.csv", ["sentence1", "sentence2", "is_duplicate"], rows, labelled)
    rng = random.Random("sonnets")
    sonnets = [sonnet(rng) for _ in range(60)]
    prompts = ["\n".join(poem.splitlines()[:3]) for poem in sonnets]
    few = math.ceil(6 * share)
    _sonnets(folder / "sonnets.txt", sonnets, range(8 * few))
    _sonnets(folder / "TRUE_sonnets_held_out_dev.txt", sonnets, range(48, 48 + few))
    _sonnets(folder / "sonnets_held_out_dev.txt", prompts, range(48, 48 + few))
    _sonnets(folder / "sonnets_held_out.txt", prompts, range(54, 54 + few))
    (folder / HASHES).write_text(json.dumps(_hashes(folder)), encoding="utf-8")


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.iterdir() if path.name != HASHES)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _known_hashes(folder: Path) -> dict[str, str] | None:
    try:
        return json.loads((folder / HASHES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _rows(task: str, part: str, train_size: float, make) -> list[tuple]:
    """Rows of one part. What is written falls to one part by its hash, so no text of dev or test occurs in train; nor
    does a pair, in either order, and it occurs once."""
    rng = random.Random(f"{task}/{part}")
    size, low, high = math.ceil(train_size * PARTS[part][0]), *PARTS[part][1:]
    rows, pairs = [], set()
    while len(rows) < size:
        *texts, label = make(rng)
        key = repr(sorted(texts))
        if low <= hashlib.sha256(key.encode()).digest()[0] < high and key not in pairs:
            rows.append((*texts, label))
            pairs |= {key} if len(texts) > 1 else set()
    return rows


def _table(path: Path, columns: list[str], rows: list[tuple], labelled: bool) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, delimiter="\t", lineterminator="\n")
        out.writerow(["", "id", *(columns if labelled else columns[:-1])])
        for i, row in enumerate(rows):
            id_ = hashlib.sha256(f"{path.name}/{i}".encode()).hexdigest()[:25]
            out.writerow([i, id_, *(row if labelled else row[:-1])])


def _sonnets(path: Path, texts: list[str], which: range) -> None:
    path.write_text("".join(f"{i + 1}\n\n{texts[i]}\n\n" for i in which), encoding="utf-8")
