"""What a model must beat: the majority class, and a bag of words (TF-IDF and logistic regression)."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import sklearn
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from gpt2lib.common.machine import cache_folder
from gpt2lib.common.whole import write_json
from gpt2lib.data.example import Example
from gpt2lib.data.load import TaskData


def floors(
    data: TaskData, seen: TaskData | None = None, read: Callable[[list[Example]], list[Example]] = list
) -> tuple[dict[str, float], list[int]]:
    """What there is to beat, and what the bag of words answers: dev accuracy of the majority class, dev accuracy and
    macro-F1 of the bag of words, and its parameters; and its class for each example of data.dev.

    seen: what they are fitted and chosen on, as a model would be (see `data.split`); `data` itself by default. read:
    what a model reads of the examples (`Encoder.as_read`), whole texts by default. They depend on the data alone, so a
    study's runs share them through the cache folder.
    """
    seen = seen or data
    seen, data = replace(seen, train=read(seen.train), dev=read(seen.dev)), replace(data, dev=read(data.dev))
    code = Path(__file__).read_bytes() + sklearn.__version__.encode()
    digest = hashlib.sha256(code + repr((seen.train, seen.dev, data.dev)).encode()).hexdigest()
    path = cache_folder() / "floors" / f"{digest[:32]}.json"
    if not path.is_file():
        write_json(path, _floors(data, seen))
    return tuple(json.loads(path.read_text(encoding="utf-8")))


def _floors(data: TaskData, seen: TaskData) -> tuple[dict[str, float], list[int]]:
    labels = [example.label for example in data.dev]
    majority = Counter(example.label for example in seen.train).most_common(1)[0][0]
    predictions, parameters = bag_of_words(data, seen)
    metrics = {
        "majority_accuracy": labels.count(majority) / len(labels),
        "bag_of_words_accuracy": float(accuracy_score(labels, predictions)),
        "bag_of_words_macro_f1": float(f1_score(labels, predictions, average="macro")),
        "bag_of_words_params": parameters,
    }
    return metrics, predictions


def bag_of_words(data: TaskData, seen: TaskData) -> tuple[list[int], int]:
    """Predictions for data.dev of a logistic regression on TF-IDF of words and word pairs, and its number of weights.

    A question pair is described by |a - b|, a * b, the cosine, and the share of words in common (Jaccard). It is fitted
    to seen.train, and its regularisation is the best of three on seen.dev, where a model's epoch is chosen, too.
    """
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    vectorizer.fit([text for example in seen.train for text in (example.text, example.pair) if text is not None])

    def features(examples: list[Example]) -> sparse.csr_matrix:
        a = vectorizer.transform([example.text for example in examples])
        if examples[0].pair is None:
            return a
        b = vectorizer.transform([example.pair for example in examples])
        product = a.multiply(b)
        words = [(set(e.text.lower().split()), set(e.pair.lower().split())) for e in examples]
        jaccard = [[len(x & y) / max(1, len(x | y))] for x, y in words]
        return sparse.hstack([abs(a - b), product, product.sum(1), np.array(jaccard)]).tocsr()

    x, y = features(seen.train), [example.label for example in seen.train]
    chooses_x, chooses_y = features(seen.dev), [example.label for example in seen.dev]
    models = [LogisticRegression(C=c, max_iter=300).fit(x, y) for c in (1, 10, 100)]
    best = max(models, key=lambda model: model.score(chooses_x, chooses_y))
    return best.predict(features(data.dev)).tolist(), best.coef_.size + best.intercept_.size
