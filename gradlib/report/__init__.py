"""The analysis of a study as Markdown: Python computes facts, templates say them in English or Chinese.

analysis   Analysis: a study, its tables, its sections
facts      numbers, names and verdicts of every section
reference_report  the figures and the claims of the report that is verified
rendering  names, numbers, intervals and tables as Markdown

`templates/sections.md.j2` lays the sections out; `en.md.j2` and `zh-Hant.md.j2` have the words.
"""

from gradlib import offer

__all__, __getattr__, __dir__ = offer(
    __name__, analysis="Analysis", rendering="alarms bullets commonest_confusion escape interference"
)
