"""Nobody else is let in: where JupyterLab listens, and what it asks for."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest


def listens(pid: int) -> set:
    """The addresses at which this process listens."""
    found = psutil.Process(pid).net_connections("inet")
    return {connection.laddr for connection in found if connection.status == psutil.CONN_LISTEN}


def wait_until(condition) -> None:
    """Wait until `condition()`; ten minutes are far more than anything here takes."""
    until = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_make_lab_opens_jupyterlab_on_this_machine_alone(tmp_path):
    """What `make lab` runs, without a browser: where it listens, and whether it asks for its token."""
    root = Path(__file__).parents[2]
    options = "LAB=--no-browser --allow-root --ServerApp.port_retries=50"
    # Also within `make test`, whose make would say where it goes.
    command = ["make", "--no-print-directory", "-n", "-o", ".venv/.ready", "lab", options]
    recipe = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    folders = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    environment = {**os.environ, **{f"JUPYTER_{name}": str(tmp_path) for name in folders}}
    lab = subprocess.Popen(
        ["bash", "-c", f"exec {recipe}"], cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=-3
    )
    try:
        wait_until(lambda: list(tmp_path.glob("jpserver-*.json")))
        server = json.loads(next(tmp_path.glob("jpserver-*.json")).read_text())
        assert server["hostname"] == "localhost" and len(server["token"]) >= 32
        wait_until(lambda: listens(lab.pid))
        assert {address.ip for address in listens(lab.pid)} <= {"127.0.0.1", "::1"}
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{server['url']}api/contents", timeout=10)
    finally:
        lab.terminate()
        lab.wait()
