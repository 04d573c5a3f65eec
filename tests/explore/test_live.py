"""A training is watched, stopped by its button, and goes on."""

import asyncio
import threading

import pytest

from gradlib.explore import live
from gradlib.train.trainer import Stopped


class Page:
    """What stands in for IPython's `display`."""

    def __init__(self):
        self.panels, self.kept = [], []

    def display(self, panel, display_id):
        self.panels.append(panel)
        return self  # for a handle

    def update(self, panel):
        self.kept.append(panel._repr_mimebundle_()["image/png"])


@pytest.fixture
def page(monkeypatch):
    page = Page()
    monkeypatch.setattr(live, "display", page.display)
    return page


def test_a_training_is_watched_stopped_by_its_button_and_goes_on(trainer_of, page):
    panels, steps = page.panels, []
    trainer = trainer_of("gradnorm")
    step = trainer._step

    def pressed(*arguments):
        step(*arguments)
        if trainer.step == 3 and not steps:  # as the front end does: in another thread than the training's
            steps.append(threading.Thread(target=panels[0].button.click))
            steps[0].start()
            steps[0].join()

    trainer._step = pressed
    with pytest.raises(Stopped, match="after step 3 of"):
        asyncio.run(live.train(trainer))
    assert panels[0].button.disabled and "after step 3 of" in panels[0].status.value
    assert panels[0].bar.value == 3 and bytes(panels[0].figure.value).startswith(b"\x89PNG")
    _, history = asyncio.run(live.train(trainer))
    assert panels[1].bar.value == trainer.steps == len(history.steps)
    assert "done" in panels[1].status.value and panels[1].figure.value != panels[0].figure.value
    assert page.kept == [panel.figure.value for panel in panels]  # for readers without a kernel


def test_an_interrupt_of_the_kernel_stops_it_too(trainer_of, page):
    """IPython cancels the coroutine of a cell that is interrupted."""
    trainer = trainer_of("dual")

    async def cell():
        task = asyncio.ensure_future(live.train(trainer))
        while trainer.step < 2:
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(Stopped, match="after step 2 of 6"):
        asyncio.run(cell())
    assert len(asyncio.run(live.train(trainer))[1].steps) == 6


@pytest.mark.parametrize("name", ["dual", "detection-only", "classification-only"])
def test_any_solution_can_be_watched(trainer_of, page, name):
    asyncio.run(live.train(trainer_of(name)))
    panels = page.panels
    assert panels[0].bar.value == 6 and bytes(panels[0].figure.value).startswith(b"\x89PNG")
