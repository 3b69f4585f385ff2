"""What a task is made of: records of tasks and methods, prompts, heads, the file to hand in, floors, scores.

Notebooks, studies and benchmarks call it.
"""

from gpt2lib.tasks.adapted import Adapted, load_adapted, save_adapted
from gpt2lib.tasks.method import METHODS, Full, LastLayer, Method, method_named
from gpt2lib.tasks.parameters import method_of, settings_of
from gpt2lib.tasks.prepare import Encoder, prepare
from gpt2lib.tasks.prompts import answer_ids, paraphrase_prompt, plain_prompt, sonnet_prompt
from gpt2lib.tasks.sonnets import complete_sonnets
from gpt2lib.tasks.submission import read_submission, write_submission
from gpt2lib.tasks.task import TASKS, Task
