"""A real JupyterLab, and a notebook in it as a person meets it: opened, run, clicked and looked at."""

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
from playwright.sync_api import BrowserContext, Locator, Page

START_TIMEOUT_S = 60  # for the server to answer
OPEN_TIMEOUT_S = 60  # for a notebook to be open with its kernel idle
RUN_TIMEOUT_S = 180  # for cells to end
IDLE_TIMEOUT_S = 600  # after which a server and its kernels that nobody uses end
CHANGE_TIMEOUT_S = 30  # for a figure to change
# What JupyterLab would read and write in a person's home.
FOLDERS = (
    *("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"),
    *("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"),
)
SETTINGS = {
    # Every cell is in the page, scrolled to or not, and nothing beyond the last.
    "notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
    "docmanager-extension/plugin": {"autosave": False},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
# What the console of the page calls an error, and is none of ours.
IGNORED = (
    "/favicon.ico",
    ".map: ",  # source maps that packages of JupyterLab name and do not ship
)
# In an output, also where a widget says so instead of raising it.
ERROR_TEXT = re.compile(r"Traceback|Error displaying widget|^\w*(Error|Exception): ", re.MULTILINE)
BUSY = """
() => {
  const panel = document.querySelector(".jp-NotebookPanel:not(.lm-mod-hidden)");
  const prompts = [...panel.querySelectorAll(".jp-CodeCell .jp-InputArea-prompt")];
  return panel.querySelector(".jp-Notebook-ExecutionIndicator").dataset.status !== "idle"
    || prompts.some(prompt => prompt.textContent.includes("*"))
    || [...panel.querySelectorAll(".jp-OutputArea-output")].some(o => o.textContent === "Loading widget...")
    || [...panel.querySelectorAll(".jp-OutputArea-output img")].some(image => !image.complete);
}
"""
DIGEST = """
async image => {
  const bytes = await (await fetch(image.src)).arrayBuffer();
  return [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].join();
}
"""
# `done` is the milliseconds from the first event of a person's hand to the load of the first other image. The
# bytes tell whether it is another: every image has a name of its own, equal or not.
WATCH = """
async (output, [index, patience]) => {
  const image = () => output.querySelectorAll("img")[index];
  const digest = DIGEST;
  const before = await digest(image());
  let begun = null, loads = 0;
  for (const name of ["keydown", "pointerdown", "input", "change"])
    addEventListener(name, () => { begun ??= performance.now(); }, {capture: true});
  return {done: new Promise((resolve, reject) => {
    setTimeout(() => {
      const seen = begun === null ? "no event came" : `images: ${loads}`;
      reject(new Error(`the figure did not change in ${patience} ms; ${seen}`));
    }, patience);
    document.addEventListener("load", async event => {  // the window never hears of an image's
      const now = performance.now();
      if (begun === null || event.target !== image()) return;
      loads += 1;
      // An image whose name is gone has been replaced: the next load is its heir's.
      const after = await digest(image()).catch(() => before);
      if (after !== before) resolve(now - begun);
    }, {capture: true});
  })};
}
""".replace("DIGEST", DIGEST.strip())


class Server:
    """JupyterLab on the folder `project`, as `make lab` starts it, with a home of its own in `private`."""

    def __init__(self, project: Path, private: Path):
        self.project, self._token = project, secrets.token_hex(16)
        folders = {name: private / name.lower() for name in FOLDERS}
        for name, values in SETTINGS.items():
            file = folders["JUPYTERLAB_SETTINGS_DIR"] / f"@jupyterlab/{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        self._told, self._log = folders["JUPYTER_RUNTIME_DIR"], private / "server.log"
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.root_dir={project}"),
            *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"),  # any port that is free
            # Should nobody be left to end it, it ends itself when nobody has asked for anything for long.
            f"--ServerApp.shutdown_no_activity_timeout={IDLE_TIMEOUT_S}",
            f"--MappingKernelManager.cull_idle_timeout={IDLE_TIMEOUT_S}",
            *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
        ]
        own = {"JUPYTER_TOKEN": self._token} | {name: str(folder) for name, folder in folders.items()}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=project, env=os.environ | own, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._await()
        except BaseException:
            self.end()
            raise

    def _await(self) -> None:
        """Learn the address, and wait until the server answers there."""
        ends = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < ends:
            with contextlib.suppress(OSError, ValueError):  # no address yet, or half of it, or no answer
                told = (self._told / f"jpserver-{self._process.pid}.json").read_text()
                self._url = json.loads(told)["url"].rstrip("/")
                self._ask("GET", "/api/status")
                return
            time.sleep(0.1)
        raise RuntimeError(f"JupyterLab did not start:\n{self._log.read_text()[-2000:]}")

    def address(self, path: str) -> str:
        """Where a browser finds the notebook at `path`, with nothing else open."""
        return f"{self._url}/lab/tree/{path}?reset&token={self._token}"

    def kernels(self) -> list[str]:
        """The state of each kernel."""
        return [session["kernel"]["execution_state"] for session in self._ask("GET", "/api/sessions")]

    def end_kernels(self) -> None:
        """End all kernels."""
        for session in self._ask("GET", "/api/sessions"):
            self._ask("DELETE", f"/api/sessions/{session['id']}")

    def end(self) -> None:
        """End the server and everything that it started: first it is let do so itself."""
        with contextlib.suppress(psutil.NoSuchProcess):
            server = psutil.Process(self._process.pid)
            started = [server, *server.children(recursive=True)]
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(15)
            for process in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._process.wait()

    def _ask(self, method: str, path: str):
        request = urllib.request.Request(
            self._url + path, method=method, headers={"Authorization": f"token {self._token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")


def pictures_of(notebook: Path, html: Path, browser: BrowserContext) -> list[int]:
    """The widths of all pictures that a browser without a network shows of `html`, the page of the executed
    `notebook`: as many as its outputs have."""
    images = [
        output
        for cell in nbformat.read(notebook, as_version=4).cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    browser.set_offline(True)
    page = browser.new_page()
    page.goto(html.as_uri())
    shown = page.locator("img").evaluate_all("all => all.map(image => image.naturalWidth)")
    page.close()
    browser.set_offline(False)
    assert len(shown) == len(images), html
    return shown


class Notebook:
    """A notebook in JupyterLab. A cell is named by its place among all cells, or by a text in its source."""

    def __init__(self, page: Page, server: Server, path: str):
        """Open the notebook at `path`, from the server's folder, and wait for its kernel."""
        self.page, self._server, self._path = page, server, path
        self._sources = [cell.source for cell in nbformat.read(server.project / path, as_version=4).cells]
        self._console: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self._console.append(str(error)))
        page.goto(server.address(path), timeout=OPEN_TIMEOUT_S * 1000)
        self._panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        self._panel.locator(".jp-Cell").nth(len(self._sources) - 1).wait_for(timeout=OPEN_TIMEOUT_S * 1000)
        ends = (
            time.monotonic() + OPEN_TIMEOUT_S
        )  # the page shows `idle` also before it has asked for a kernel
        while self._server.kernels() != ["idle"] and time.monotonic() < ends:
            page.wait_for_timeout(100)
        self.rest(OPEN_TIMEOUT_S)

    def _hear(self, message) -> None:
        text = f"{message.location.get('url', '')}: {message.text}"
        if message.type == "error" and not any(noise in text for noise in IGNORED):
            self._console.append(text)

    # Running

    def run(self, cell: int | str | None = None, seconds: float = RUN_TIMEOUT_S) -> None:
        """Run one cell, or all of them, to the end."""
        self.start(cell)
        self.rest(seconds)

    def start(self, cell: int | str | None = None) -> None:
        """Run one cell, or all of them, and do not wait; return when it has begun."""
        first = self._panel.locator(".jp-CodeCell").first if cell is None else self.cell(cell)
        prompt = first.locator(".jp-InputPrompt")
        before = prompt.text_content()
        if cell is None:
            self.page.get_by_role("menuitem", name="Run", exact=True).click()
            self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        else:
            prompt.click()
            self.page.keyboard.press("Control+Enter")
        changed = "([prompt, before]) => prompt.textContent !== before"
        self.page.wait_for_function(changed, arg=[prompt.element_handle(), before])

    def rest(self, seconds: float = RUN_TIMEOUT_S) -> None:
        """Wait until no cell waits or runs, the kernel is idle, and all that the cells made is shown."""
        self.page.wait_for_function(f"() => !({BUSY.strip()})()", timeout=seconds * 1000)

    def interrupt(self) -> None:
        """Press the button that interrupts the kernel."""
        self._panel.locator('.jp-Toolbar [data-command="notebook:interrupt-kernel"]').click()

    def save(self) -> Path:
        """Press the button that saves the notebook; its file."""
        written = lambda answer: answer.request.method == "PUT" and "/api/contents/" in answer.url  # noqa: E731
        with self.page.expect_response(written):
            self._panel.locator('.jp-Toolbar [data-command="docmanager:save"]').click()
        return self._server.project / self._path

    # Looking

    def cell(self, which: int | str) -> Locator:
        """One cell."""
        if isinstance(which, str):
            (which,) = (place for place, source in enumerate(self._sources) if which in source)
        return self._panel.locator(".jp-Cell").nth(which)

    def output(self, cell: int | str | None = None) -> Locator:
        """What one cell shows, or everything that cells show."""
        return (self._panel if cell is None else self.cell(cell)).locator(".jp-OutputArea-output")

    def figures(self, cell: int | str | None = None) -> list[int]:
        """The widths of the pictures that are shown, in pixels of their own; 0 is a broken one."""
        return self.output(cell).locator("img").evaluate_all("all => all.map(image => image.naturalWidth)")

    def errors(self) -> list[str]:
        """All that a person would call an error: in outputs, in dialogs, in notes and in the console."""
        found = []
        for output in self.output().all():
            kind, text = output.get_attribute("data-mime-type") or "", output.inner_text()
            if kind.endswith((".error", ".stderr")) or ERROR_TEXT.search(text):
                found.append(text)
        notes = ".jp-Dialog, .Toastify__toast--error, .Toastify__toast--warning"
        return found + self.page.locator(notes).all_inner_texts() + self._console

    def screenshot(self, path: Path) -> None:
        """A picture of the whole notebook, however long."""
        size = self.page.viewport_size
        scrolled = self._panel.locator(".jp-WindowedPanel-outer")
        beyond = scrolled.evaluate("pane => pane.scrollHeight - pane.clientHeight")
        self.page.set_viewport_size(size | {"height": min(size["height"] + beyond, 16000)})
        self.page.screenshot(path=path)
        self.page.set_viewport_size(size)

    # Widgets, found by the description beside them (a button: on it)

    def widget(self, description: str, cell: int | str | None = None) -> Locator:
        """A widget with its description, among those of one cell or of all."""
        labelled = self.page.get_by_text(description, exact=True)
        return self.output(cell).locator(".widget-inline-hbox, .widget-inline-vbox").filter(has=labelled)

    def slide(self, description: str, steps: int = 1, cell: int | str | None = None) -> None:
        """Move a slider with the arrow keys; to the left if `steps` is negative."""
        handle = self.widget(description, cell).locator(".noUi-handle").first
        for _ in range(abs(steps)):
            handle.press("ArrowRight" if steps > 0 else "ArrowLeft")

    def type(self, description: str, value: str, cell: int | str | None = None) -> None:
        """Type the number of a slider."""
        number = self.widget(description, cell).locator(".widget-readout")
        number.fill(value)
        number.press("Enter")

    def tick(self, description: str, cell: int | str | None = None) -> None:
        """Tick a checkbox, or take its tick away."""
        self.widget(description, cell).locator("input[type=checkbox]").click()

    def choose(self, description: str, option: str | list[str], cell: int | str | None = None) -> None:
        """Choose one option of a list, or several."""
        self.widget(description, cell).locator("select").select_option(label=option)

    def press(self, text: str, cell: int | str | None = None) -> None:
        """Press a button, also one of a row of buttons."""
        named = re.compile(rf"^\s*{re.escape(text)}\s*$")  # an icon is a letter of the button's name
        self.output(cell).locator("button").filter(has_text=named).click()

    def click(self, across: float, down: float, cell: int | str, index: int = 0) -> None:
        """Click into a picture of a cell, at a place in 0-1 of its width and height."""
        picture = self.output(cell).locator("img").nth(index)
        size = picture.bounding_box()
        picture.click(position={"x": across * size["width"], "y": down * size["height"]})

    def digest(self, cell: int | str, index: int = 0) -> str:
        """What is the same as long as a picture of a cell has the same bytes."""
        return self.output(cell).locator("img").nth(index).evaluate(DIGEST)

    def settled(self, cell: int | str, index: int = 0) -> str:
        """The `digest` of a picture, once it stays for a quarter of a second and the kernel is idle."""
        before, now = None, self.digest(cell, index)
        while now != before:
            self.page.wait_for_timeout(250)
            self.rest()
            before, now = now, self.digest(cell, index)
        return now

    def changed(
        self, cell: int | str, after: Callable[[], object], index: int = 0, seconds: float = CHANGE_TIMEOUT_S
    ) -> float:
        """Once a picture of `cell` has settled, do `after` and wait until it has other bytes: the
        milliseconds that took.

        They are counted in the page, from the first event of the keyboard, the mouse or a field to the
        picture's being loaded.
        """
        self.settled(cell, index)  # or what an earlier move has yet to draw would be taken for the answer
        area = self.cell(cell).locator(".jp-Cell-outputArea")
        watch = area.evaluate_handle(WATCH, [index, seconds * 1000])
        after()
        return watch.evaluate("watch => watch.done")
