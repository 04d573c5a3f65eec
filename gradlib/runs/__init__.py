"""The run folder: written by a run, read into pandas as untrusted input.

schema   what its files may hold
lock     one process at a time
resolve  fields of a solution that come from other runs
write    RunFolder, which a run writes
read     StudyResults, all runs of a study; load_model, the network of one
"""

from gradlib import offer

__all__, __getattr__, __dir__ = offer(
    __name__,
    schema="KEYS is_complete",
    write="RunFolder write_whole",
    read="StudyResults load_model load_study",
)
