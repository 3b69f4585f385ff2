"""Texts: reading and checking the tasks' files, toy data, token ids, batches, and text to pretrain on.

It knows no model; training, tasks and all above them may call it.
"""

from gpt2lib.data.batches import Batch, Encoded, bucketed_batches, sorted_batches
from gpt2lib.data.example import Example
from gpt2lib.data.load import COURSE_TASKS, HASHES, PROMPT_LINES, TaskData, find_file, load_task, read_sonnets
from gpt2lib.data.split import hold_out, selection
from gpt2lib.data.tokens import tokenize
