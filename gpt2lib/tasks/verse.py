"""How good a completed sonnet is, and how good one must be to say anything: overlap scores beside their floors.

chrF (Popovic 2015) and BLEU (Papineni et al. 2002) are sacrebleu's. The course scores whole sonnets, so the three given
lines are scored too; here every score comes in both conventions, whole and continuation only.
"""

import random
import re
from functools import cache

from sacrebleu.metrics import BLEU, CHRF

from gpt2lib.data.example import Example
from gpt2lib.data.load import PROMPT_LINES
from gpt2lib.tasks.sonnets import LINES, verse_lines

SCHEME = [(0, 2), (1, 3), (4, 6), (5, 7), (8, 10), (9, 11), (12, 13)]  # ABAB CDCD EFEF GG


def overlap(texts: list[str], truths: list[str]) -> dict[str, float]:
    """Corpus chrF and BLEU, 0 to 100, of whole poems of at most 14 lines and of what follows the third line."""
    hypotheses = [verse_lines(text)[:LINES] for text in texts]
    references = [verse_lines(text) for text in truths]
    scores = {}
    for convention, first in (("whole", 0), ("continuation", PROMPT_LINES)):
        ours = ["\n".join(lines[first:]) for lines in hypotheses]
        true = ["\n".join(lines[first:]) for lines in references]
        scores[f"chrf_{convention}"] = CHRF().corpus_score(ours, [true]).score
        scores[f"bleu_{convention}"] = BLEU().corpus_score(ours, [true]).score
    return scores


def form(texts: list[str], train: list[Example]) -> dict[str, float]:
    """Mean number of lines; the share of the rhymes that a sonnet should have and that the written lines decide; the
    share of written lines that stand word for word in a training sonnet."""
    known = {_bare(line) for example in train for line in verse_lines(example.text)}
    poems = [verse_lines(text) for text in texts]
    decided = [(a, b) for a, b in SCHEME if b >= PROMPT_LINES]
    rhymed = sum(len(poem) > b and rhymes(poem[a], poem[b]) for poem in poems for a, b in decided)
    written = [line for poem in poems for line in poem[PROMPT_LINES:LINES]]
    return {
        "lines": sum(map(len, poems)) / len(poems),
        "rhyme_rate": rhymed / (len(decided) * len(poems)),
        "copied_line_rate": sum(_bare(line) in known for line in written) / max(1, len(written)),
    }


def floors(data, draws: int = 20) -> dict[str, dict[str, float]]:
    """The overlap scores of three completions that know nothing: the given lines alone, repeated to fourteen, and
    followed by random lines of the training sonnets (mean of `draws`)."""
    truths = [example.text for example in data.dev]
    given = [verse_lines(text)[:PROMPT_LINES] for text in truths]
    pool = [line for example in data.train for line in verse_lines(example.text)]
    rng = random.Random(0)
    drawn = [
        overlap(["\n".join(lines + rng.choices(pool, k=LINES - PROMPT_LINES)) for lines in given], truths)
        for _ in range(draws)
    ]
    return {
        "given lines alone": overlap(["\n".join(lines) for lines in given], truths),
        "given lines repeated": overlap(["\n".join((lines * LINES)[:LINES]) for lines in given], truths),
        "given and random lines": {key: sum(d[key] for d in drawn) / draws for key in drawn[0]},
    }


def rhymes(a: str, b: str) -> bool:
    """Whether the last words of two lines rhyme and differ: by pronunciation (CMU dictionary), or by spelling from the
    last vowels on if the dictionary lacks one of them."""
    a, b = _last_word(a), _last_word(b)
    if a == b or not a or not b:
        return False
    if _sounds(a) and _sounds(b):
        return bool(_sounds(a) & _sounds(b))
    return _spelling(a) == _spelling(b)


@cache
def _sounds(word: str) -> frozenset[str]:
    """The sounds from the last stressed vowel on, without stress, of every pronunciation that the dictionary has."""
    import pronouncing  # reads its dictionary at the first use

    return frozenset(re.sub(r"\d", "", pronouncing.rhyming_part(p)) for p in pronouncing.phones_for_word(word))


def _spelling(word: str) -> str:
    return re.search(r"[aeiouy]*[^aeiouy]*(e[ds]?)?$", word).group()


def _last_word(line: str) -> str:
    words = re.findall(r"[a-z']+", line.lower())
    return words[-1].strip("'") if words else ""


def _bare(line: str) -> str:
    return " ".join(re.findall(r"[a-z']+", line.lower()))
