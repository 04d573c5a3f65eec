"""Notebooks of a study executed in the process of the tests, where their processes are not what is tested."""

import io
import threading
import traceback
from functools import partial

import papermill
import pytest
from nbformat.v4 import new_output
from papermill.engines import Engine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from gradlib.study import executor
from gradlib.study.engine import last_line


class Here(Engine):
    """Executes the cells one after another; keeps what they print, and the error that ends them."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        names, printed = {"__name__": "__main__"}, io.StringIO()
        names["print"] = partial(print, file=printed)
        for index, cell in enumerate(nb_man.nb.cells):
            nb_man.cell_start(cell, index)
            try:
                if cell.cell_type == "code":
                    exec(compile(cell.source, f"cell {index}", "exec"), names)
            except Exception as error:
                lines = traceback.format_exception(error)
                output = new_output("error", ename=type(error).__name__, evalue=str(error), traceback=lines)
                cell.outputs.append(output)
                nb_man.cell_exception(cell, index, exception=error)
                break
            finally:
                if printed.getvalue():
                    cell.outputs.append(new_output("stream", name="stdout", text=printed.getvalue()))
                    printed.truncate(printed.seek(0))
                nb_man.cell_complete(cell, index)


@pytest.fixture
def execute_here(monkeypatch):
    """From its call on, a study's notebooks are executed in this process, but for these."""

    def begin(*others: str) -> None:
        papermill_engines.register("here", Here)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        in_a_process, one_at_a_time = executor._run, threading.Lock()

        def run(request, *rest):
            if request["input_path"] in others:
                return in_a_process(request, *rest)
            options = {"engine_name": "here", "kernel_name": "python3", "progress_bar": False}
            try:
                with one_at_a_time:  # papermill changes the current folder
                    papermill.execute_notebook(**request, **options)
            except PapermillExecutionError as error:
                return f"{error.ename}: {last_line(error.evalue)}"
            return ""

        monkeypatch.setattr(executor, "_run", run)

    return begin
