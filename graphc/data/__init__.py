"""Data sets, batches, progress and pictures: what a script needs around a model.

``mnist()`` and ``digits()`` give handwritten digits, ``text()`` the characters of a text,
``batches()`` cuts arrays into mini-batches. None of them needs a package beyond NumPy.
"""

from graphc.data.batching import batches
from graphc.data.corpus import Text, text
from graphc.data.files import DataNotFoundError
from graphc.data.images import Dataset, Split, digits, mnist
from graphc.data.picture import training_picture
from graphc.data.progress import Progress, track

__all__ = [
    "DataNotFoundError",
    "Dataset",
    "Progress",
    "Split",
    "Text",
    "batches",
    "digits",
    "mnist",
    "text",
    "track",
    "training_picture",
]
