"""The analysis of a study as Markdown: Python computes facts, templates say them in English or Chinese.

analysis   Analysis: a study, its tables, its sections
facts      numbers, names and verdicts of every section
claims     the reference report's claims, read off the runs
reported   the reference report's own figures
rendering  names, numbers and intervals as Markdown
one_run    what the tables of one solution show, in a sentence

`templates/sections.md.j2` lays the sections out; `en.md.j2` and `zh-Hant.md.j2` have the words.
"""

from gradlib import offer

__all__, __getattr__, __dir__ = offer(
    __name__, analysis="Analysis", rendering="bullets escape", one_run="alarms commonest_confusion"
)
