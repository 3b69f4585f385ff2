"""What the notebooks share to show, to ask and to check. Only notebooks call it.

**A coding exercise** is four cells. (1) Tagged `cases`: imports and arguments that its check needs, and nothing that
takes long or that an untagged cell would have to make. (2) Markdown: what to write, the formula with shapes, and a
folded hint, `<details><summary>Hint</summary>`, blank line, text, blank line, `</details>`. (3) Tagged `exercise`: the
reader's cell, one empty function (or class) under `@exercise("1 merge", like=lora.merged, on=[(weight, a, b, 2.0)])`;
it prints "waits", "not yet" with what is amiss, or "right". For a plain value:
`share = exercise("2 share", digest="...")(None)`. Titles are unique in a notebook. (4) Tagged `solution` and folded,
`# %% jupyter={"source_hidden": true} tags=["solution"]`: one or more typical mistakes,
`@merged.mistake("B and A are exchanged")`, each of which the check must reject (the words go on after "this is what one
gets when", and the reader who makes that mistake is told so), then `@merged.solution`, each on a function of the name
in (3); for a value `share.mistake("...")(3)` and `share = share.solution(4)`. From there on the name is the reader's
own function if it is right and the solution otherwise, so nbval runs the solutions, and `tests/test_exercises.py` runs
the tagged cells alone, with the solution and with each mistake written into (3). Broken code to mend is an exercise
whose cell (3) is also tagged `broken`; cells that show the symptom may stand between (3) and (4). **A prediction**:
`guess = predict("Which rank wins?", [1, 4, 16])(None)` before the result,
`guess.was(table["accuracy"].idxmax(), {1: "...", 4: "...", 16: "..."})` after it. **Claims**: `check = Verdicts()` near
the top, then `check("claim", passed)` and
`check.close("claim", seen, expected, 1e-6)`, which print nothing and raise at once; the last cell but the references,
tagged `nbval-check-output`, is `check.table()`.
"""

from gpt2lib.course.exercises import exercise
from gpt2lib.course.predictions import predict
from gpt2lib.course.verdicts import Verdicts
