"""A training to watch in JupyterLab, to stop and to go on with.

model, history = await live.train(trainer)
"""

import asyncio
import html
import time

import ipywidgets
from IPython.display import display
from matplotlib.figure import Figure
from torch import nn

from gradlib.explore.base import Panel
from gradlib.plots import style, training
from gradlib.train.trainer import History, Trainer

__all__ = ["Live", "train"]

QUIET = 1.0  # least seconds between two drawings
SHARE = 0.05  # most of the time that may go into drawing


class Live(Panel):
    """Progress, time left, curves and a button to stop, of a `Trainer` that runs."""

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self.bar = ipywidgets.IntProgress(
            trainer.step, 0, trainer.steps, layout=ipywidgets.Layout(width="22em")
        )
        self.button = ipywidgets.Button(description="Stop", icon="stop", tooltip="after the present step")
        self.says = ipywidgets.HTML()
        self.figure = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))
        self.button.on_click(lambda button: trainer.stop())
        row = ipywidgets.Layout(flex_flow="row wrap", align_items="center", grid_gap="2px 12px")
        super().__init__([ipywidgets.HBox([self.bar, self.button, self.says], layout=row), self.figure])
        self._began, self._first = time.monotonic(), trainer.step
        self._drawn, self._cost, self._epochs = 0.0, 0.0, -1

    def update(self) -> None:
        """To be called after every step."""
        trainer, now, history = self._trainer, time.monotonic(), self._trainer.history
        self.bar.value = trainer.step
        left = (now - self._began) / max(trainer.step - self._first, 1) * (trainer.steps - trainer.step)
        epoch = min(len(history.epochs) + 1, trainer.training.epochs)
        self.says.value = (
            f"epoch {epoch} of {trainer.training.epochs}, step {trainer.step} of {trainer.steps}, "
            f"{int(left) // 60}:{int(left) % 60:02d} left"
        )
        # A new epoch's metrics are worth a drawing at once.
        if len(history.epochs) > self._epochs or now - self._drawn > max(QUIET, self._cost / SHARE):
            self._epochs = len(history.epochs)
            self.draw()

    def draw(self) -> None:
        """The curves as far as they go."""
        began = time.monotonic()
        figure = Figure((9.6, 3.0), layout="constrained")
        tables = self._trainer.history.tables()
        training.live(tables["steps"], tables["epochs"], self._trainer.tasks, figure)
        self.figure.value = style.png(figure)
        self._drawn = time.monotonic()
        self._cost = self._drawn - began

    def end(self, said: str) -> None:
        """No more to come for now."""
        if self._trainer.step:
            self.draw()
        self.says.value = html.escape(said)
        self.button.disabled = True

    def _repr_mimebundle_(self, **options) -> dict:
        """For readers of texts: no list of all the parts."""
        said = {"text/plain": f"training of {self._trainer.solution.name}"}
        return {**super()._repr_mimebundle_(**options), **said}


async def train(trainer: Trainer) -> tuple[nn.Module, History]:
    """`trainer.run()` with progress, time left and live curves.

    The button ends it after the present step, and so does the kernel's ■, also with kernels that do not hear
    of a button while a cell runs (ipykernel before 7). Run the cell again to go on.
    """
    panel = Live(trainer)
    shown = display(panel, display_id=True)
    try:
        for _ in trainer.going():
            panel.update()
            try:
                await asyncio.sleep(0)  # the kernel hears of the button
            except asyncio.CancelledError:  # the kernel's ■
                trainer.stop()
        ended = trainer.result()
    except BaseException as error:
        panel.end(str(error) or type(error).__name__)
        raise
    else:
        panel.end(f"done: {trainer.steps} steps, {trainer.training.epochs} epochs")
    finally:
        shown.update(panel)  # what is saved has the last curves
    return ended
