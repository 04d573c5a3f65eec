"""gradlib: do detection and classification fight in the layers they share?

Train one YOLOv5-style network on both tasks, measure where and how much their gradients conflict,
and compare remedies. `notebooks/` shows it; `python -m gradlib study FILE` runs a whole study.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
