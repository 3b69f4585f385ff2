"""What notebooks share to show."""

import pandas as pd


def count_table(model) -> pd.DataFrame:
    """Parameters of a model, all and trained, by its parts."""
    names = {"wte": "token embedding", "wpe": "positions", "ln_f": "final norm", "output_weight": "output layer"}
    rows = {}
    for name, p in model.named_parameters():
        part = name.removeprefix("body.").split(".")[0]
        row = rows.setdefault(names.get(part, part), {"parameters": 0, "trained": 0})
        row["parameters"] += p.numel()
        row["trained"] += p.numel() * p.requires_grad
    table = pd.DataFrame(rows).T.astype(int)
    table.loc["total"] = table.sum()
    return table


def mistakes(examples: list, predictions: list[int]) -> pd.DataFrame:
    """The first examples that were predicted wrongly."""
    wrong = [(e.text, e.pair, e.label, p) for e, p in zip(examples, predictions, strict=True) if e.label != p][:5]
    table = pd.DataFrame(wrong, columns=["text", "pair", "label", "predicted"])
    return table.dropna(axis=1, how="all")
