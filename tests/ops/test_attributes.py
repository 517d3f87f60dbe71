"""Attributes that an op does not have a meaning for: refused where the graph is declared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ShapeError
from graphc.ops.base import call

IMAGE = np.ones((1, 4, 4, 2), np.float32)
FILTER = np.ones((3, 3, 2, 4), np.float32)
PADS = np.ones((4, 2), np.int32)
UNKNOWN = None

WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("MirrorPad", (IMAGE, PADS), {"mode": "zzz"}, '"zzz".*"REFLECT", "SYMMETRIC"'),
    ("MirrorPadGrad", (IMAGE, PADS), {"mode": "reflect"}, '"reflect".*"REFLECT"'),
    ("MirrorPadGrad", (UNKNOWN, PADS), {"mode": ""}, "mode"),
    ("BiasAdd", (IMAGE, np.ones(2, np.float32)), {"data_format": "HWC"}, '"NHWC", "NCHW"'),
    ("BiasAddGrad", (IMAGE,), {"data_format": "NC"}, '"NHWC", "NCHW"'),
    ("BiasAddGrad", (UNKNOWN,), {"data_format": "NC"}, '"NHWC", "NCHW"'),
    ("FlipFilter", (FILTER,), {"groups": 0}, "groups must be positive, not 0"),
    ("FlipFilter", (FILTER,), {"groups": -2}, "groups must be positive, not -2"),
    ("FlipFilter", (FILTER,), {"groups": 3}, "4 channels cannot be divided into 3"),
    ("SpreadImage", (IMAGE,), {"sizes": (4,)}, "sizes must be two numbers"),
    ("SpreadImage", (IMAGE,), {"sizes": (4, -1)}, "sizes must not be negative"),
    ("SpreadImage", (IMAGE,), {"sizes": (4, 4), "before": (1, 1, 1)}, "before must be two"),
    ("SpreadImage", (IMAGE,), {"sizes": (4, 4), "strides": (0, 1)}, "strides must be two pos"),
    ("Conv2DCore", (IMAGE, FILTER), {"groups": 2}, "channels must be equal, but are 2 and 4"),
    ("Conv2DCore", (IMAGE, np.ones((6, 1, 2, 3), np.float32)), {}, "larger than the image"),
    ("Conv2DFilterCore", (IMAGE, IMAGE), {"ksize": (1, 1), "groups": 3}, "2 channels cannot be"),
    ("Unpack", (UNKNOWN,), {"num": -1}, "num must not be negative"),
    ("Split", (np.int32(0), IMAGE), {"num_split": 0}, "num_split must be at least 1"),
    ("Split", (np.int32(0), UNKNOWN), {"num_split": -2}, "num_split must be at least 1"),
]


@pytest.mark.parametrize(("op", "operands", "attrs", "text"), WRONG)
def test_attributes_without_a_meaning_are_refused(
    op: str, operands: tuple[Any, ...], attrs: dict[str, Any], text: str
):
    with gc.Graph().as_default():
        tensors = [gc.placeholder("float32") if v is UNKNOWN else v for v in operands]
        with pytest.raises(ShapeError, match=f"{text}.*op: '{op}'"):
            call(op, *tensors, **attrs)
