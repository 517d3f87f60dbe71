"""The errors of the shaping functions are those of TensorFlow 1.15.5.

``CASES`` is what TensorFlow printed: an expression, the class and the first line of the message.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc.ops  # noqa: F401 - registers the ops and the operators of tensors
from graphc import dtypes
from graphc.build import constant, convert_to_tensor
from graphc.graph import Graph
from graphc.ops import array, shaping, shaping_make, shaping_slice

CASES = """
tf.reshape(c, [4, 2])
  ValueError: Cannot reshape a tensor with 6 elements to shape [4,2] (8 elements) for
  'Reshape' (op: 'Reshape') with input shapes: [2,3], [2] and with input tensors computed
  as partial shapes: input[1] = [4,2].
tf.reshape(c, [4, -1])
  ValueError: Dimension size must be evenly divisible by 4 but is 6 for 'Reshape' (op:
  'Reshape') with input shapes: [2,3], [2] and with input tensors computed as partial
  shapes: input[1] = [4,?].
tf.concat([c, tf.zeros([2, 4])], 0)
  ValueError: Dimension 0 in both shapes must be equal, but are 3 and 4. Shapes are [3]
  and [4]. for 'concat' (op: 'ConcatV2') with input shapes: [2,3], [2,4], [] and with
  computed input tensors: input[2] = <0>.
tf.concat([1, 2], 0)
  ValueError: Can't concatenate scalars (use tf.stack instead) for 'concat' (op:
  'ConcatV2') with input shapes: [], [], [].
tf.concat([c, tf.zeros([2])], 0)
  ValueError: Shape must be rank 2 but is rank 1 for 'concat' (op: 'ConcatV2') with input
  shapes: [2,3], [2], [].
tf.concat([c, c], 2)
  ValueError: Shape must be at least rank 3 but is rank 2 for 'concat' (op: 'ConcatV2')
  with input shapes: [2,3], [2,3], [] and with computed input tensors: input[2] = <2>.
tf.stack([c, tf.zeros([2, 4])])
  ValueError: Dimension 1 in both shapes must be equal, but are 3 and 4. Shapes are [2,3]
  and [2,4].
tf.stack([c, tf.zeros([2])])
  ValueError: Shapes must be equal rank, but are 2 and 1
tf.stack([c, c], axis=4)
  ValueError: axis = 4 not in [-3, 3)
tf.stack([c, tf.constant([[1]])])
  TypeError: Tensors in list passed to 'values' of 'Pack' Op have types [float32, int32]
  that don't all match.
tf.unstack(x)
  ValueError: Cannot infer num from shape (?, 3)
tf.unstack(c, axis=2)
  ValueError: axis = 2 not in [-2, 2)
tf.unstack(c, num=4)
  ValueError: Dimension must be 4 but is 2 for 'unstack' (op: 'Unpack') with input shapes:
  [2,3].
tf.split(c, 4)
  ValueError: Dimension size must be evenly divisible by 4 but is 2
tf.split(c, [1, 3])
  ValueError: can't split axis of size 2 into pieces of size [1,3] for 'split' (op:
  'SplitV') with input shapes: [2,3], [2], [] and with computed input tensors: input[1] =
  <1 3>, input[2] = <0>.
tf.split(c, n)
  ValueError: Rank-0 tensors are not supported as the num_or_size_splits argument to
  split. Argument provided: Tensor("N:0", shape=(), dtype=int32)
tf.split(c, 2, axis=3)
  ValueError: Dimension size, given by scalar input 3 must be in range [-2, 2) for 'split'
  (op: 'Split') with input shapes: [], [2,3] and with computed input tensors: input[0] =
  <3>.
tf.squeeze(c, [0])
  ValueError: Can not squeeze dim[0], expected a dimension of 1, got 2 for 'Squeeze' (op:
  'Squeeze') with input shapes: [2,3].
tf.expand_dims(c, 4)
  ValueError: dim 4 not in the interval [-3, 2]. for 'ExpandDims' (op: 'ExpandDims') with
  input shapes: [2,3], [] and with computed input tensors: input[1] = <4>.
tf.expand_dims(c)
  ValueError: Must specify an axis argument to tf.expand_dims()
tf.transpose(c, [0])
  ValueError: Dimension must be 2 but is 1 for 'transpose' (op: 'Transpose') with input
  shapes: [2,3], [1].
tf.transpose(c, [0, 2])
  ValueError: perm dim 2 is out of range of input rank 2 for 'transpose' (op: 'Transpose')
  with input shapes: [2,3], [2] and with computed input tensors: input[1] = <0 2>.
tf.tile(c, [2])
  ValueError: Shape must be rank 2 but is rank 1 for 'Tile' (op: 'Tile') with input
  shapes: [2,3], [1].
tf.pad(c, [[1, 1]])
  ValueError: Shape must be rank 1 but is rank 2 for 'Pad' (op: 'Pad') with input shapes:
  [2,3], [1,2].
tf.pad(c, [[1, 1], [0, -2]])
  ValueError: Paddings must be non-negative for 'Pad' (op: 'Pad') with input shapes:
  [2,3], [2,2] and with computed input tensors: input[1] = <[1 1][0 -2]>.
tf.pad(c, [[1, 1], [0, 3]], mode='FOO')
  ValueError: Unknown padding mode: FOO
tf.slice(c, [0], [3])
  ValueError: Shape must be rank 1 but is rank 2 for 'Slice' (op: 'Slice') with input
  shapes: [2,3], [1], [1].
tf.gather(c, 1, axis=2)
  ValueError: Shape must be at least rank 3 but is rank 2 for 'GatherV2' (op: 'GatherV2')
  with input shapes: [2,3], [], [] and with computed input tensors: input[2] = <2>.
tf.gather(tf.constant(1), 0)
  ValueError: Shape must be at least rank 1 but is rank 0 for 'GatherV2' (op: 'GatherV2')
  with input shapes: [], [], [].
tf.gather_nd(c, [[0, 1, 1]])
  ValueError: indices.shape[-1] must be <= params.rank, but saw indices shape: [1,3] and
  params shape: [2,3] for 'GatherNd' (op: 'GatherNd') with input shapes: [2,3], [1,3].
tf.one_hot([1], -1)
  ValueError: Dimension size, given by scalar input 1, must be non-negative but is -1 for
  'one_hot' (op: 'OneHot') with input shapes: [1], [], [], [] and with computed input
  tensors: input[1] = <-1>.
tf.one_hot([1], 3, on_value=1, off_value=1.0)
  TypeError: dtype <dtype: 'int32'> of on_value does not match dtype <dtype: 'float32'> of
  off_value
tf.range(5, 2)
  ValueError: Requires start <= limit when delta > 0: 5/2 for 'range' (op: 'Range') with
  input shapes: [], [], [] and with computed input tensors: input[0] = <5>, input[1] =
  <2>, input[2] = <1>.
tf.range(5, 2, 0)
  ValueError: Requires delta != 0 for 'range' (op: 'Range') with input shapes: [], [], []
  and with computed input tensors: input[0] = <5>, input[1] = <2>, input[2] = <0>.
tf.linspace(0., 1., 0)
  ValueError: Requires num > 0: 0 for 'LinSpace' (op: 'LinSpace') with input shapes: [],
  [], [] and with computed input tensors: input[2] = <0>.
tf.fill([2, -1], 1)
  ValueError: Fill dimensions must be >= 0 for 'Fill' (op: 'Fill') with input shapes: [2],
  [] and with input tensors computed as partial shapes: input[0] = [2,?].
tf.fill(2, 1)
  ValueError: Shape must be rank 1 but is rank 0 for 'Fill' (op: 'Fill') with input
  shapes: [], [].
tf.broadcast_to(c, [2])
  ValueError: Shape must be at most rank 1 but is rank 2 for 'BroadcastTo' (op:
  'BroadcastTo') with input shapes: [2,3], [1].
tf.broadcast_to(c, [2, 4])
  ValueError: Dimensions must be equal, but are 3 and 4 for 'BroadcastTo' (op:
  'BroadcastTo') with input shapes: [2,3], [2] and with input tensors computed as partial
  shapes: input[1] = [2,4].
tf.reverse(c, [0, 0])
  ValueError: axis 0 specified more than once. for 'ReverseV2' (op: 'ReverseV2') with
  input shapes: [2,3], [2] and with computed input tensors: input[1] = <0 0>.
tf.eye(2.0)
  TypeError: num_rows and num_columns must be positive integer values.
tf.convert_to_tensor([n, 1.5])
  TypeError: Expected int32, got 1.5 of type 'float' instead.
tf.convert_to_tensor([n, x])
  TypeError: Cannot convert a list containing a tensor of dtype <dtype: 'float32'> to
  <dtype: 'int32'> (Tensor is: <tf.Tensor 'X:0' shape=(?, 3) dtype=float32>)
tf.zeros([-1, 2])
  ValueError: Fill dimensions must be >= 0 for 'zeros' (op: 'Fill') with input shapes:
  [2], [] and with input tensors computed as partial shapes: input[0] = [?,2].
c[2]
  ValueError: slice index 2 of dimension 0 out of bounds. for 'strided_slice' (op:
  'StridedSlice') with input shapes: [2,3], [1], [1], [1] and with computed input tensors:
  input[1] = <2>, input[2] = <3>, input[3] = <1>.
c[0, 0, 0]
  ValueError: Index out of range using input dim 2; input has only 2 dims for
  'strided_slice' (op: 'StridedSlice') with input shapes: [2,3], [3], [3], [3] and with
  computed input tensors: input[3] = <1 1 1>.
c[1.0]
  TypeError: Only integers, slices (`:`), ellipsis (`...`), tf.newaxis (`None`) and scalar
  tf.int32/tf.int64 tensors are valid indices, got 1.0
c['a']
  TypeError: Only integers, slices (`:`), ellipsis (`...`), tf.newaxis (`None`) and scalar
  tf.int32/tf.int64 tensors are valid indices, got 'a'
c[..., ...]
  ValueError: Multiple ellipses in slice spec not allowed for 'strided_slice' (op:
  'StridedSlice') with input shapes: [2,3], [2], [2], [2] and with computed input tensors:
  input[3] = <1 1>.
c[:, ::0]
  ValueError: strides[1] must be non-zero for 'strided_slice' (op: 'StridedSlice') with
  input shapes: [2,3], [2], [2], [2] and with computed input tensors: input[3] = <1 0>.
x[0][0][0]
  ValueError: Index out of range using input dim 0; input has only 0 dims for
  'strided_slice_2' (op: 'StridedSlice') with input shapes: [], [1], [1], [1] and with
  computed input tensors: input[3] = <1>.
"""


class Tf:
    """The public functions under TensorFlow's names."""

    float32, int32, int64, newaxis = dtypes.float32, dtypes.int32, dtypes.int64, None
    slice = staticmethod(shaping_slice.slice_)
    constant, convert_to_tensor = staticmethod(constant), staticmethod(convert_to_tensor)

    def __getattr__(self, name: str) -> Any:
        for module in (shaping, shaping_make, shaping_slice):
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(name)


def cases(text: str) -> list[Any]:
    """The indented lines below each expression, joined."""
    found: list[tuple[str, list[str]]] = []
    for line in text.strip().splitlines():
        if line.startswith("  "):
            found[-1][1].append(line.strip())
        else:
            found.append((line, []))
    return [pytest.param(expression, " ".join(lines), id=expression) for expression, lines in found]


@pytest.mark.parametrize(("expression", "expected"), cases(CASES))
def test_errors_are_tensorflows(expression: str, expected: str) -> None:
    kind, _, message = expected.partition(": ")
    with Graph().as_default():
        names = {
            "tf": Tf(),
            "x": array.placeholder(dtypes.float32, [None, 3], name="X"),
            "n": array.placeholder(dtypes.int32, [], name="N"),
            "c": constant(np.arange(6.0).reshape(2, 3), dtypes.float32, name="C"),
        }
        with pytest.raises({"ValueError": ValueError, "TypeError": TypeError}[kind]) as raised:
            eval(expression, names)  # noqa: S307 - the expressions above
    assert str(raised.value).split("\n")[0] == message


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("tf.transpose(c, [0, 0])", "is not a permutation"),
        ("tf.tile(c, [2, -1])", "Expected multiples.1. >= 0, but got -1"),
        ("tf.pad(c, [[1, 1], [0, 3]], mode='REFLECT')", "paddings must be less than"),
        ("tf.slice(c, [0, 1], [3, 2])", "Expected size.0. in .0, 2., but got 3"),
    ],
)
def test_errors_that_tensorflow_raises_in_the_run(expression: str, message: str) -> None:
    with Graph().as_default():
        names = {"tf": Tf(), "c": constant(np.zeros((2, 3)), dtypes.float32)}
        with pytest.raises(ValueError, match=message):
            eval(expression, names)  # noqa: S307 - the expressions above
