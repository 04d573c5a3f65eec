"""Notebooks as a study executes them, by `papermill --engine gradlib`."""

import os
import stat
import time
from pathlib import Path

import nbformat
import papermill
import pytest
from papermill.clientwrap import PapermillNotebookClient

from gradlib.study import engine


def test_only_its_user_may_enter_a_kernels_folder():
    with engine._environment() as private:
        assert stat.S_IMODE(os.stat(private).st_mode) == 0o700
        settings = engine._settings(private)
        assert settings.KernelManager.transport == "ipc"  # a socket in that folder, no port
        assert Path(settings.KernelManager.connection_file).parent == Path(private)


def test_what_a_cell_has_printed_may_come_late(tmp_path, monkeypatch):
    """As on a busy machine. papermill's own engine gives up four seconds after the end of the cell."""
    process = PapermillNotebookClient.process_message

    def slow(*arguments, **options):
        time.sleep(0.1)
        return process(*arguments, **options)

    monkeypatch.setattr(PapermillNotebookClient, "process_message", slow)
    cell = nbformat.v4.new_code_cell("for number in range(60):\n    display(number)")
    book = nbformat.v4.new_notebook(cells=[cell])
    nbformat.write(book, tmp_path / "in.ipynb")
    files = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    papermill.execute_notebook(*files, engine_name="gradlib", kernel_name="python3", progress_bar=False)
    (cell,) = nbformat.read(files[1], as_version=4).cells
    assert [output["data"]["text/plain"] for output in cell["outputs"]] == [str(n) for n in range(60)]


@pytest.mark.skipif(os.name == "nt", reason="no sockets in files")
def test_a_kernel_listens_on_no_port_and_says_what_it_prints(tmp_path):
    source = """\
import psutil, subprocess, sys
found = psutil.Process().net_connections("inet")
print([c.laddr for c in found if c.status == psutil.CONN_LISTEN])
print(subprocess.check_output([sys.executable, "-c", "print(3)"], text=True), file=sys.stderr)"""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(book, tmp_path / "in.ipynb")
    files = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    papermill.execute_notebook(*files, engine_name="gradlib", kernel_name="python3", progress_bar=False)
    (cell,) = nbformat.read(files[1], as_version=4).cells
    assert [output["text"] for output in cell["outputs"]] == ["[]\n", "3\n\n"]
