"""A training to watch in JupyterLab, to stop and to continue: `model, history = await train(trainer)`."""

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

MIN_INTERVAL_S = 5.0  # between two drawings within an epoch; one takes about 0.3 s


class Live(Panel):
    """Progress, time left, curves and a stop button of a `Trainer` that runs."""

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self.bar = ipywidgets.IntProgress(trainer.step, 0, trainer.steps, layout={"width": "22em"})
        self.button = ipywidgets.Button(description="Stop", icon="stop", tooltip="after the present step")
        self.button.on_click(lambda button: trainer.stop())
        self.status = ipywidgets.HTML()
        super().__init__([self.bar, self.button, self.status])
        self._start, self._first_step = time.monotonic(), trainer.step
        self._drawn_at, self._epochs = 0.0, -1

    def update(self) -> None:
        """To be called after every step."""
        trainer, now, epochs = self._trainer, time.monotonic(), len(self._trainer.history.epochs)
        self.bar.value = trainer.step
        per_step = (now - self._start) / max(trainer.step - self._first_step, 1)
        minutes, seconds = divmod(int(per_step * (trainer.steps - trainer.step)), 60)
        self.status.value = (
            f"epoch {min(epochs + 1, trainer.training.epochs)} of {trainer.training.epochs}, "
            f"step {trainer.step} of {trainer.steps}, {minutes}:{seconds:02d} left"
        )
        if epochs > self._epochs or now - self._drawn_at > MIN_INTERVAL_S:
            self._epochs = epochs
            self.draw()

    def draw(self) -> None:
        """Draw the curves so far."""
        figure, tables = Figure((9.6, 3.0), layout="constrained"), self._trainer.history.tables()
        training.live(tables["steps"], tables["epochs"], self._trainer.tasks, figure)
        self.figure.value = style.png(figure)
        self._drawn_at = time.monotonic()

    def end(self, status: str) -> None:
        """Draw a last time, and say how the training ended."""
        if self._trainer.step:
            self.draw()
        self.status.value = html.escape(status)
        self.button.disabled = True


async def train(trainer: Trainer) -> tuple[nn.Module, History]:
    """`trainer.run()` with progress, time left, live curves and a stop button.

    The button ends the training after the present step, and so does interrupting the kernel (■), also with
    kernels that do not hear of a button while a cell runs (ipykernel before 7). Run the cell again to go on.
    """
    panel = Live(trainer)
    handle = display(panel, display_id=True)
    try:
        for _ in trainer.iter_steps():
            panel.update()
            try:
                await asyncio.sleep(0)  # lets the kernel hear of the button
            except asyncio.CancelledError:  # the kernel was interrupted
                trainer.stop()
        result = trainer.result()
    except BaseException as error:
        panel.end(str(error) or type(error).__name__)
        raise
    else:
        panel.end(f"done: {trainer.steps} steps, {trainer.training.epochs} epochs")
    finally:
        handle.update(panel)  # the saved notebook has the last curves
    return result
