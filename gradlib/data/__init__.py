"""Data sets on disk, read as untrusted input, and everything that is wrong with them.

files      reading bytes, text and JSON within bounds
yaml_file  the one YAML reader, which remembers lines
data_yaml  the values of a data.yaml
folders    the images that it names, and their label files
image_classes  the class of an image from its name or from a table
labels     the rows of a label file
images     decoding, letterboxing, FrameSet
faults     the kinds of problems and the rule for each
dataset    read_dataset: all of the above
splits     published parts, patient folds
tables     what is in a data set, as pandas
phantom    the synthetic data set
phantom_frames  how a frame of it is drawn
"""

from gradlib import offer

__all__, __getattr__, __dir__ = offer(
    __name__,
    dataset="Dataset Frame read_dataset",
    images="FrameSet",
    tables="views_from_jets",
)
