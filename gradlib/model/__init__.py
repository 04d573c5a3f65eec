"""The YOLOv5-style network with a classification path, its losses, and weights from files.

yolo          MultiTaskYOLO: the stages, and where the tasks part
blocks        Conv, C3, SPPF
boxes         formats, overlap, non-maximum suppression
losses        of detection and of classification
anchors       anchors that fit the boxes of a data set
checkpoints   YOLOv5's checkpoints: read, start from, export
tensor_files  files of torch.save as untrusted input
"""

from gradlib import offer

__all__, __getattr__, __dir__ = offer(
    __name__, yolo="MultiTaskYOLO network_cost", anchors="fit_anchors", checkpoints="export start_from"
)
