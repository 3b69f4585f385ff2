"""What a model must beat: the majority class, and a bag of words (TF-IDF and logistic regression)."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import sklearn
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score

from gpt2lib.common.machine import cache_folder
from gpt2lib.common.whole import write_json
from gpt2lib.data.load import Example, TaskData


def floors(data: TaskData) -> dict[str, float]:
    """Dev accuracy of the majority class, dev accuracy and macro-F1 of the bag of words, and its parameters.

    They depend on the data alone, so a study's runs share them through the cache folder.
    """
    code = Path(__file__).read_bytes() + sklearn.__version__.encode()
    digest = hashlib.sha256(code + repr((data.train, data.dev)).encode()).hexdigest()
    path = cache_folder() / "floors" / f"{digest[:32]}.json"
    if not path.is_file():
        write_json(path, _floors(data))
    return json.loads(path.read_text(encoding="utf-8"))


def _floors(data: TaskData) -> dict[str, float]:
    labels = [example.label for example in data.dev]
    majority = Counter(example.label for example in data.train).most_common(1)[0][0]
    predictions, parameters = bag_of_words(data)
    return {
        "majority_accuracy": labels.count(majority) / len(labels),
        "bag_of_words_accuracy": float(accuracy_score(labels, predictions)),
        "bag_of_words_macro_f1": float(f1_score(labels, predictions, average="macro")),
        "bag_of_words_params": parameters,
    }


def bag_of_words(data: TaskData) -> tuple[list[int], int]:
    """Predictions for dev of a logistic regression on TF-IDF of words and word pairs, and its number of weights.

    A question pair is described by |a - b|, a * b, the cosine, and the share of words in common (Jaccard). The strength
    of the regularisation is the best of three on dev, as the models' stopping is.
    """
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    vectorizer.fit([text for example in data.train for text in (example.text, example.pair) if text is not None])

    def features(examples: list[Example]) -> sparse.csr_matrix:
        a = vectorizer.transform([example.text for example in examples])
        if examples[0].pair is None:
            return a
        b = vectorizer.transform([example.pair for example in examples])
        product = a.multiply(b)
        words = [(set(e.text.lower().split()), set(e.pair.lower().split())) for e in examples]
        jaccard = [[len(x & y) / max(1, len(x | y))] for x, y in words]
        return sparse.hstack([abs(a - b), product, product.sum(1), np.array(jaccard)]).tocsr()

    x, y = features(data.train), [example.label for example in data.train]
    dev_x, dev_y = features(data.dev), [example.label for example in data.dev]
    models = [LogisticRegression(C=c, max_iter=300).fit(x, y) for c in (1, 10, 100)]
    best = max(models, key=lambda model: model.score(dev_x, dev_y))
    return best.predict(dev_x).tolist(), best.coef_.size + best.intercept_.size
