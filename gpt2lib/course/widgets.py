"""Things to move and to type into, with a still picture where no kernel runs (a web page, a notebook unopened).

A function draws; `explore` gives it sliders. The still picture is what it draws at their first values.
"""

import html
from collections.abc import Callable

from IPython import get_ipython
from IPython.display import HTML, display
from ipywidgets import Text, interactive

COLOURS = ("#cfe2f3", "#fce5cd", "#d9ead3", "#f4cccc", "#d9d2e9")  # light, for dark text, whatever the page's theme


def explore(draw: Callable, **controls) -> None:
    """Show what `draw` returns, with a control for each of its arguments.

    controls: widgets, or what ipywidgets makes them from, such as (first, last, step) with the default in draw's
    signature, or a list to choose from. The output carries both the widget and a still picture; a front end shows the
    best it can.
    """
    box = interactive(draw, {"auto_display": True}, **controls)
    shell = get_ipython()
    if shell is None:  # run as a script
        return
    still, _ = shell.display_formatter.format(box.result)
    display(still | box._repr_mimebundle_(), raw=True)


def verbatim(text: str) -> HTML:
    """A text line by line, for `explore`."""
    return HTML(f"<pre>{html.escape(text)}</pre>")


def tokenizer_box(tokenizer, text: str) -> None:
    """A box to type into, and below it the tokens of the text, each with its number."""
    explore(lambda text: token_strip(tokenizer, text), text=Text(text, continuous_update=True, layout={"width": "95%"}))


def token_strip(tokenizer, text: str) -> HTML:
    """The tokens of a text as boxes in turning colours, spaces as underscores, each above its number."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    style = "display:inline-block;padding:2px 5px;margin:1px;border-radius:4px;color:#111;text-align:center;background:"
    boxes = []
    for i, token in enumerate(ids):
        piece = html.escape(tokenizer.decode([token]).replace(" ", "_").replace("\n", "\\n"))
        boxes.append(f'<span style="{style}{COLOURS[i % len(COLOURS)]}">{piece}<br><small>{token}</small></span>')
    return HTML(f"<div>{''.join(boxes)}</div><div>{len(ids)} tokens for {len(text)} characters</div>")
