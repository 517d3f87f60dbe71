"""The names, shapes and errors of the shaping functions are those of TensorFlow 1.15.5.

``CASES`` is what TensorFlow printed: an expression, its outputs, the operations it declared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc.ops  # noqa: F401 - registers the ops and the operators of tensors
from graphc import dtypes
from graphc.build import constant, convert_to_tensor
from graphc.graph import Graph, Operation, get_default_graph
from graphc.ops import array, shaping, shaping_make, shaping_slice
from graphc.shapes import TensorShape

CASES = """
tf.zeros([2,3])
  -> zeros:0:f32:(2,3):Const
  | zeros(Const)
tf.zeros(tf.stack([n, 10]))
  -> zeros:0:f32:(?,10):Fill
  | stack/1(Const) stack(Pack) zeros/Const(Const) zeros(Fill)
tf.zeros([1000, 2])
  -> zeros:0:f32:(1000,2):Fill
  | zeros/shape_as_tensor(Const) zeros/Const(Const) zeros(Fill)
tf.zeros(tf.shape(x))
  -> zeros:0:f32:(?,3):Fill
  | Shape(Shape) zeros/Const(Const) zeros(Fill)
tf.zeros(3)
  -> zeros:0:f32:(3,):Fill
  | zeros/shape_as_tensor(Const) zeros/Const(Const) zeros(Fill)
tf.zeros_like(x)
  -> zeros_like:0:f32:(?,3):ZerosLike
  | zeros_like(ZerosLike)
tf.zeros_like(c)
  -> zeros_like:0:f32:(2,3):Const
  | zeros_like(Const)
tf.zeros_like(x, dtype=tf.int32)
  -> zeros_like:0:i32:(?,3):Fill
  | zeros_like/Shape(Shape) zeros_like/Const(Const) zeros_like(Fill)
tf.ones_like(x)
  -> ones_like:0:f32:(?,3):Fill
  | ones_like/Shape(Shape) ones_like/Const(Const) ones_like(Fill)
tf.ones_like(c)
  -> ones_like:0:f32:(2,3):Fill
  | ones_like/Shape(Const) ones_like/Const(Const) ones_like(Fill)
tf.fill([2, n], 1.0)
  -> Fill:0:f32:(2,?):Fill
  | Fill/dims/0(Const) Fill/dims(Pack) Fill/value(Const) Fill(Fill)
tf.reshape(x, [-1, 2])
  -> Reshape:0:f32:(?,2):Reshape
  | Reshape/shape(Const) Reshape(Reshape)
tf.reshape(x, [n, 2])
  -> Reshape:0:f32:(?,2):Reshape
  | Reshape/shape/1(Const) Reshape/shape(Pack) Reshape(Reshape)
tf.transpose(x)
  -> transpose:0:f32:(3,?):Transpose
  | transpose/perm(Const) transpose(Transpose)
tf.transpose(u)
  -> transpose:0:f32:<unknown>:Transpose
  | transpose/Rank(Rank) transpose/sub/y(Const) transpose/sub(Sub)
  | transpose/Range/start(Const) transpose/Range/delta(Const) transpose/Range(Range)
  | transpose/sub_1(Sub) transpose(Transpose)
tf.transpose(x, [1, 0])
  -> transpose:0:f32:(3,?):Transpose
  | transpose/perm(Const) transpose(Transpose)
tf.transpose(x, name='tt')
  -> tt:0:f32:(3,?):Transpose
  | tt/perm(Const) tt(Transpose)
tf.expand_dims(x, -1)
  -> ExpandDims:0:f32:(?,3,1):ExpandDims
  | ExpandDims/dim(Const) ExpandDims(ExpandDims)
tf.expand_dims(x, dim=0)
  -> ExpandDims:0:f32:(1,?,3):ExpandDims
  | ExpandDims/dim(Const) ExpandDims(ExpandDims)
tf.squeeze(tf.zeros([1,2,1]))
  -> Squeeze:0:f32:(2,):Squeeze
  | zeros(Const) Squeeze(Squeeze)
tf.squeeze(tf.zeros([1,2,1]), [0])
  -> Squeeze:0:f32:(2,1):Squeeze
  | zeros(Const) Squeeze(Squeeze)
tf.squeeze(x)
  -> Squeeze:0:f32:<unknown>:Squeeze
  | Squeeze(Squeeze)
tf.concat([x, x], 0)
  -> concat:0:f32:(?,3):ConcatV2
  | concat/axis(Const) concat(ConcatV2)
tf.concat([x], 0)
  -> concat/concat:0:f32:(?,3):Identity
  | concat/concat_dim(Const) concat/concat(Identity)
tf.concat(axis=1, values=[x, c2])
  -> concat:0:f32:(2,6):ConcatV2
  | concat/axis(Const) concat(ConcatV2)
tf.stack([1, 2])
  -> stack:0:i32:(2,):Const
  | stack(Const)
tf.stack([x, x])
  -> stack:0:f32:(2,?,3):Pack
  | stack(Pack)
tf.stack([x, x], axis=1)
  -> stack:0:f32:(?,2,3):Pack
  | stack(Pack)
tf.stack([n, 3])
  -> stack:0:i32:(2,):Pack
  | stack/1(Const) stack(Pack)
tf.stack([[n, 3], [1, 2]])
  -> stack:0:i32:(2,2):Pack
  | stack/0/1(Const) stack/0(Pack) stack/1_1(Const) stack(Pack)
tf.unstack(c)
  -> unstack:0:f32:(3,):Unpack unstack:1:f32:(3,):Unpack
  | unstack(Unpack)
tf.unstack(c, axis=1)
  -> unstack:0:f32:(2,):Unpack unstack:1:f32:(2,):Unpack unstack:2:f32:(2,):Unpack
  | unstack(Unpack)
tf.split(c, 2)
  -> split:0:f32:(1,3):Split split:1:f32:(1,3):Split
  | Const(Const) split/split_dim(Const) split(Split)
tf.split(c, 3, axis=1)
  -> split:0:f32:(2,1):Split split:1:f32:(2,1):Split split:2:f32:(2,1):Split
  | Const(Const) split/split_dim(Const) split(Split)
tf.split(c, [1, 2], 1, name='sp')
  -> sp:0:f32:(2,1):SplitV sp:1:f32:(2,2):SplitV
  | Const(Const) sp/split_dim(Const) sp(SplitV)
tf.tile(x, [2, 1])
  -> Tile:0:f32:(?,3):Tile
  | Tile/multiples(Const) Tile(Tile)
tf.tile([1,2], [n])
  -> Tile:0:i32:(?,):Tile
  | Tile/input(Const) Tile/multiples(Pack) Tile(Tile)
tf.pad(x, [[1, 1], [0, 2]])
  -> Pad:0:f32:(?,5):Pad
  | Pad/paddings(Const) Pad(Pad)
tf.pad(x, [[1, 1], [0, 2]], constant_values=3)
  -> PadV2:0:f32:(?,5):PadV2
  | PadV2/paddings(Const) PadV2/constant_values(Const) PadV2(PadV2)
tf.pad(c, [[1, 1], [0, 2]], mode='reflect')
  -> MirrorPad:0:f32:(4,5):MirrorPad
  | MirrorPad/paddings(Const) MirrorPad(MirrorPad)
tf.slice(c, [0, 1], [1, 2])
  -> Slice:0:f32:(1,2):Slice
  | Slice/begin(Const) Slice/size(Const) Slice(Slice)
tf.strided_slice(c, [0, 0], [1, 2])
  -> StridedSlice:0:f32:(1,2):StridedSlice
  | ones_like/tensor(Const) ones_like/Shape(Const) ones_like/Const(Const) ones_like(Fill)
  | StridedSlice/begin(Const) StridedSlice/end(Const) StridedSlice(StridedSlice)
tf.strided_slice(c, [0, 0], [1, 2], [1, 1], name='q')
  -> q:0:f32:(1,2):StridedSlice
  | q/begin(Const) q/end(Const) q/strides(Const) q(StridedSlice)
tf.gather(c, [0, 1])
  -> GatherV2:0:f32:(2,3):GatherV2
  | GatherV2/indices(Const) GatherV2/axis(Const) GatherV2(GatherV2)
tf.gather(c, [0, 1], axis=1)
  -> GatherV2:0:f32:(2,2):GatherV2
  | GatherV2/indices(Const) GatherV2/axis(Const) GatherV2(GatherV2)
tf.gather(c, n)
  -> GatherV2:0:f32:(3,):GatherV2
  | GatherV2/axis(Const) GatherV2(GatherV2)
tf.gather_nd(c, [[0, 1]])
  -> GatherNd:0:f32:(1,):GatherNd
  | GatherNd/indices(Const) GatherNd(GatherNd)
tf.one_hot([1, 2], 3)
  -> one_hot:0:f32:(2,3):OneHot
  | one_hot/on_value(Const) one_hot/off_value(Const) one_hot/indices(Const)
  | one_hot/depth(Const) one_hot(OneHot)
tf.one_hot(i, 3, on_value=5, off_value=2)
  -> one_hot:0:i32:(?,3):OneHot
  | one_hot/Const(Const) one_hot/Const_1(Const) one_hot/depth(Const)
  | one_hot/on_value(Const) one_hot/off_value(Const) one_hot(OneHot)
tf.one_hot(i, n, axis=0)
  -> one_hot:0:f32:(?,?):OneHot
  | one_hot/on_value(Const) one_hot/off_value(Const) one_hot(OneHot)
tf.range(5)
  -> range:0:i32:(5,):Range
  | range/start(Const) range/limit(Const) range/delta(Const) range(Range)
tf.range(n)
  -> range:0:i32:(?,):Range
  | range/start(Const) range/delta(Const) range(Range)
tf.range(0., 1., .5)
  -> range:0:f32:(2,):Range
  | range/start(Const) range/limit(Const) range/delta(Const) range(Range)
tf.range(0, 5, 1.0)
  -> range:0:f32:(5,):Range
  | range/start(Const) range/limit(Const) range/delta(Const) range/Cast(Cast)
  | range/Cast_1(Cast) range(Range)
tf.linspace(0., 1., 5)
  -> LinSpace:0:f32:(5,):LinSpace
  | LinSpace/start(Const) LinSpace/stop(Const) LinSpace/num(Const) LinSpace(LinSpace)
tf.shape(x)
  -> Shape:0:i32:(2,):Shape
  | Shape(Shape)
tf.shape(c)
  -> Shape:0:i32:(2,):Const
  | Shape(Const)
tf.shape(x, out_type=tf.int64)
  -> Shape:0:i64:(2,):Shape
  | Shape(Shape)
tf.size(x)
  -> Size:0:i32:():Size
  | Size(Size)
tf.size(c)
  -> Size:0:i32:():Const
  | Size(Const)
tf.rank(x)
  -> Rank:0:i32:():Const
  | Rank(Const)
tf.rank(u)
  -> Rank:0:i32:():Rank
  | Rank(Rank)
tf.broadcast_to(x, [4, 3, 3])
  -> BroadcastTo:0:f32:(4,3,3):BroadcastTo
  | BroadcastTo/shape(Const) BroadcastTo(BroadcastTo)
tf.reverse(x, [0])
  -> ReverseV2:0:f32:(?,3):ReverseV2
  | ReverseV2/axis(Const) ReverseV2(ReverseV2)
tf.sequence_mask([1, 3], 4)
  -> SequenceMask/Less:0:bool:(2,4):Less
  | SequenceMask/Const(Const) SequenceMask/Const_1(Const) SequenceMask/Const_2(Const)
  | SequenceMask/Const_3(Const) SequenceMask/Range(Range)
  | SequenceMask/ExpandDims/dim(Const) SequenceMask/ExpandDims(ExpandDims)
  | SequenceMask/Cast(Cast) SequenceMask/Less(Less)
tf.sequence_mask([1, 3], 4, dtype=tf.float32)
  -> SequenceMask/Cast_1:0:f32:(2,4):Cast
  | SequenceMask/Const(Const) SequenceMask/Const_1(Const) SequenceMask/Const_2(Const)
  | SequenceMask/Const_3(Const) SequenceMask/Range(Range)
  | SequenceMask/ExpandDims/dim(Const) SequenceMask/ExpandDims(ExpandDims)
  | SequenceMask/Cast(Cast) SequenceMask/Less(Less) SequenceMask/Cast_1(Cast)
tf.eye(3)
  -> eye/diag:0:f32:(3,3):MatrixDiag
  | eye/ones(Const) eye/diag(MatrixDiag)
tf.eye(2, 3)
  -> eye/set_diag:0:f32:(2,3):MatrixSetDiag
  | eye/ones(Const) eye/zeros(Const) eye/set_diag(MatrixSetDiag)
tf.eye(2, batch_shape=[2])
  -> eye/diag:0:f32:(2,2,2):MatrixDiag
  | eye/ones(Const) eye/diag(MatrixDiag)
tf.invert_permutation([1, 0])
  -> InvertPermutation:0:i32:(2,):InvertPermutation
  | InvertPermutation/x(Const) InvertPermutation(InvertPermutation)
tf.broadcast_dynamic_shape(tf.shape(x), [3])
  -> BroadcastArgs:0:i32:(2,):BroadcastArgs
  | Shape(Shape) BroadcastArgs/s1(Const) BroadcastArgs(BroadcastArgs)
tf.convert_to_tensor([[n, 1], [2, n]])
  -> packed:0:i32:(2,2):Pack
  | packed/0/1(Const) packed/0(Pack) packed/1/0(Const) packed/1(Pack) packed(Pack)
tf.convert_to_tensor([n, 1], name='cc')
  -> cc:0:i32:(2,):Pack
  | cc/1(Const) cc(Pack)
c[0]
  -> strided_slice:0:f32:(3,):StridedSlice
  | strided_slice/stack(Const) strided_slice/stack_1(Const) strided_slice/stack_2(Const)
  | strided_slice(StridedSlice)
c[-1]
  -> strided_slice:0:f32:(3,):StridedSlice
  | strided_slice/stack(Const) strided_slice/stack_1(Const) strided_slice/stack_2(Const)
  | strided_slice(StridedSlice)
c[:, 1]
  -> strided_slice:0:f32:(2,):StridedSlice
  | strided_slice/stack(Const) strided_slice/stack_1(Const) strided_slice/stack_2(Const)
  | strided_slice(StridedSlice)
c[tf.newaxis]
  -> strided_slice:0:f32:(1,2,3):StridedSlice
  | strided_slice/stack(Const) strided_slice/stack_1(Const) strided_slice/stack_2(Const)
  | strided_slice(StridedSlice)
c[:, None, ::2]
  -> strided_slice:0:f32:(2,1,2):StridedSlice
  | strided_slice/stack(Const) strided_slice/stack_1(Const) strided_slice/stack_2(Const)
  | strided_slice(StridedSlice)
c[::-1]
  -> strided_slice:0:f32:(2,3):StridedSlice
  | strided_slice/stack(Const) strided_slice/stack_1(Const) strided_slice/stack_2(Const)
  | strided_slice(StridedSlice)
x[1:]
  -> strided_slice:0:f32:(?,3):StridedSlice
  | strided_slice/stack(Const) strided_slice/stack_1(Const) strided_slice/stack_2(Const)
  | strided_slice(StridedSlice)
x[n]
  -> strided_slice:0:f32:(3,):StridedSlice
  | add/y(Const) add(AddV2) strided_slice/stack(Pack) strided_slice/stack_1(Pack)
  | strided_slice/stack_2(Const) strided_slice(StridedSlice)
x[n:n + 2, 0]
  -> strided_slice:0:f32:(?,):StridedSlice
  | add/y(Const) add(AddV2) strided_slice/stack/1(Const) strided_slice/stack(Pack)
  | strided_slice/stack_1/1(Const) strided_slice/stack_1(Pack)
  | strided_slice/stack_2(Const) strided_slice(StridedSlice)
x[:, 1:3]
  -> strided_slice:0:f32:(?,2):StridedSlice
  | strided_slice/stack(Const) strided_slice/stack_1(Const) strided_slice/stack_2(Const)
  | strided_slice(StridedSlice)
c[0:1, ...]
  -> strided_slice:0:f32:(1,3):StridedSlice
  | strided_slice/stack(Const) strided_slice/stack_1(Const) strided_slice/stack_2(Const)
  | strided_slice(StridedSlice)
tf.shape(x)[0]
  -> strided_slice:0:i32:():StridedSlice
  | Shape(Shape) strided_slice/stack(Const) strided_slice/stack_1(Const)
  | strided_slice/stack_2(Const) strided_slice(StridedSlice)
tf.shape(x)[1:]
  -> strided_slice:0:i32:(1,):StridedSlice
  | Shape(Shape) strided_slice/stack(Const) strided_slice/stack_1(Const)
  | strided_slice/stack_2(Const) strided_slice(StridedSlice)
v[0]
  -> strided_slice:0:i32:():StridedSlice
  | strided_slice/stack(Const) strided_slice/stack_1(Const) strided_slice/stack_2(Const)
  | strided_slice(StridedSlice)
c[i64]
  -> strided_slice:0:f32:(3,):StridedSlice
  | add/y(Const) add(AddV2) strided_slice/stack(Pack) strided_slice/stack_1(Pack)
  | strided_slice/stack_2(Const) strided_slice/Cast(Cast) strided_slice(StridedSlice)
"""


class Tf:
    """The public functions under TensorFlow's names."""

    float32, int32, int64, newaxis = dtypes.float32, dtypes.int32, dtypes.int64, None
    slice = staticmethod(shaping_slice.slice_)
    TensorShape, constant = TensorShape, staticmethod(constant)
    convert_to_tensor = staticmethod(convert_to_tensor)

    def __getattr__(self, name: str) -> Any:
        for module in (shaping, shaping_make, shaping_slice):
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(name)


def scope() -> dict[str, Any]:
    """Tensors to declare things of, in the default graph."""
    numbers = np.arange(6.0).reshape(2, 3)
    feed = array.placeholder
    return {
        "tf": Tf(),
        "np": np,
        "x": feed(dtypes.float32, [None, 3], name="X"),
        "u": feed(dtypes.float32, name="U"),
        "n": feed(dtypes.int32, [], name="N"),
        "i": feed(dtypes.int32, [None], name="I"),
        "i2": feed(dtypes.int32, [], name="I2"),
        "i64": feed(dtypes.int64, [], name="I64"),
        "c": constant(numbers, dtypes.float32, name="C"),
        "c2": constant(numbers, dtypes.float32, name="C2"),
        "v": feed(dtypes.int32, [2], name="V"),
    }


def cases(text: str) -> list[Any]:
    """The indented lines below each expression, joined."""
    found: list[tuple[str, list[str]]] = []
    for line in text.strip().splitlines():
        if line.startswith("  "):
            found[-1][1].append(line.strip())
        else:
            found.append((line, []))
    return [pytest.param(expression, lines, id=expression) for expression, lines in found]


def described(t: Any) -> str:
    dtype = {"float32": "f32", "int32": "i32", "int64": "i64"}.get(t.dtype.name, t.dtype.name)
    return f"{t.name}:{dtype}:{t.shape}:{t.op.type}".replace(", ", ",")


def declared(before: int) -> list[Operation]:
    return get_default_graph().get_operations()[before:]


@pytest.mark.parametrize(("expression", "lines"), cases(CASES))
def test_names_and_shapes(expression: str, lines: list[str]) -> None:
    with Graph().as_default() as graph:
        names = scope()
        before = len(graph.get_operations())
        result = eval(expression, names)  # noqa: S307 - the expressions above
        outputs = result if isinstance(result, list) else [result]
        operations = " ".join(f"{o.name}({o.type})" for o in declared(before))
    assert " ".join(described(t) for t in outputs) == lines[0].removeprefix("-> ")
    assert operations == " ".join(line.removeprefix("| ") for line in lines[1:])
