"""Many runs from one file: what to run, where it runs, what a search finds, pages to share.

study_file    the keys of a study file and the types of their values
points        its solutions, each at every combination of its grid's values
spec          what a study runs: each point on each fold and seed, as one notebook with its parameters
search_spec   what a study searches: a solution, the space of its values, an objective
driver        a study from its first run to its pages
executor      one notebook in a process of its own; threads here, or the workers of a Dask cluster
engine        the kernel of a notebook that runs beside others
rounds        seeds that are added until intervals are narrow
status        how far a study is, from its folders
objective     what a search maximises or minimises
search        the trials of a search: asked for, run, ended early
trials        the trials that there are: read and said in words
pages         executed notebooks as HTML and Markdown
"""

from gradlib import offer

__all__, __getattr__, __dir__ = offer(
    __name__,
    spec="read_spec StudySpec",
    driver="run_study",
    status="describe_status",
    trials="load_search read_asked best_entry best_first",
    pages="write_html write_markdown",
)
