"""Nobody else is let in: where the processes of a study and JupyterLab listen, and what they ask for."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from distributed import Client, Security
from distributed.comm import parse_host_port

from gradlib.study import executor


def listens(pid: int) -> set:
    """The addresses at which this process listens."""
    found = psutil.Process(pid).net_connections("inet")
    return {connection.laddr for connection in found if connection.status == psutil.CONN_LISTEN}


def patient(condition) -> None:
    """Wait until `condition()`; three minutes are far more than anything here takes."""
    until = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_local_cluster_is_this_processs_own():
    with executor.local(2, 2) as client:
        scheduler = client.scheduler_info()
        comms = [scheduler["address"], *scheduler["workers"]]
        comms += [worker["nanny"] for worker in scheduler["workers"].values()]
        assert len(comms) == 5 and all(address.startswith("tls://127.0.0.1:") for address in comms)
        me = psutil.Process()
        listening = {
            address for process in (me, *me.children(recursive=True)) for address in listens(process.pid)
        }
        assert {address.ip for address in listening} == {"127.0.0.1"}
        # No certificate, no word: Dask's scheduler would run what it is sent.
        for security in (None, Security.temporary()):
            for address in comms:
                plainly = address if security else address.replace("tls:", "tcp:")
                with pytest.raises(OSError):
                    Client(plainly, security=security, timeout=3)
        # Each has a web server too, which has nothing to say.
        for address in listening - {parse_host_port(address) for address in comms}:
            with pytest.raises(OSError):
                for page in ("info/main/workers.html", "json/counts.json", "metrics", "status", "health"):
                    urllib.request.urlopen(f"http://{address.ip}:{address.port}/{page}", timeout=3)


def test_make_lab_opens_jupyterlab_on_this_machine_alone(tmp_path):
    """What `make lab` runs, without a browser: where it listens, and whether it asks for its token."""
    root = Path(__file__).parents[1]
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
        patient(lambda: list(tmp_path.glob("jpserver-*.json")))
        server = json.loads(next(tmp_path.glob("jpserver-*.json")).read_text())
        assert server["hostname"] == "localhost" and len(server["token"]) >= 32
        patient(lambda: listens(lab.pid))
        assert {address.ip for address in listens(lab.pid)} <= {"127.0.0.1", "::1"}
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{server['url']}api/contents", timeout=10)
    finally:
        lab.terminate()
        lab.wait()
