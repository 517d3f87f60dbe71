"""Element definitions of the movement and indexing ops against their NumPy references.

Every sample is evaluated element by element by the definition of the loop IR's expressions, three
times: with sizes known, with symbolic sizes, and with the integer operands fed.  A load outside of
its operand fails.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc.ops  # noqa: F401 - registers the ops
from graphc import dtypes
from graphc.build import constant, copy_operation, create
from graphc.dims import Dim, DimLike, Symbol, fresh, substitute
from graphc.errors import ShapeError
from graphc.graph import Graph, Operation, Tensor
from graphc.loop import ir
from graphc.loop.scalar import FUNCTIONS
from graphc.op import (
    REGISTRY,
    ElementContext,
    ElementOp,
    InferContext,
    ReductionOp,
    Sample,
    ShapeEnv,
    evaluate_reference,
)
from graphc.ops.array import placeholder

MODULES = (
    "movement", "movement_reshape", "movement_join", "movement_split", "movement_fill",
    "movement_range", "indexing", "indexing_pad", "indexing_mirror", "indexing_gather",
    "indexing_onehot", "indexing_scatter",
)  # fmt: skip
OPS = sorted(
    name
    for name, op in REGISTRY.items()
    if type(op).__module__.rpartition(".")[2] in MODULES
    and isinstance(op, (ElementOp, ReductionOp))
)


class Recording(ShapeEnv):
    """Inference that may assume what the given sizes and values bear out, and nothing else."""

    def __init__(self, binding: dict[Symbol, int], arrays: dict[Tensor, np.ndarray]) -> None:
        self.binding = binding
        self.arrays = arrays
        self.assumed: list[tuple[DimLike, DimLike]] = []
        self.symbols: dict[Tensor, tuple[DimLike, ...]] = {}

    def holds(self) -> bool:
        return all(
            substitute(a, self.binding) == substitute(b, self.binding) for a, b in self.assumed
        )

    def assume_equal(self, a: DimLike, b: DimLike) -> DimLike:
        self.assumed.append((a, b))
        return super().assume_equal(a, b)

    def broadcast_unknown(self, a: DimLike, b: DimLike) -> DimLike:
        return self.assume_equal(a, b)

    def is_one(self, size: DimLike) -> bool | None:
        return substitute(size, self.binding) == 1

    def value_symbols(self, tensor: Tensor, count: int) -> tuple[DimLike, ...]:
        if tensor not in self.symbols:
            self.symbols[tensor] = tuple(fresh("v", positive=False) for _ in range(count))
            values = self.arrays[tensor].reshape(-1)
            for symbol, value in zip(self.symbols[tensor], values, strict=True):
                self.binding[symbol.as_symbol] = int(value)
        return self.symbols[tensor]


class Failed(Exception):
    """A Require did not hold."""


class At(ir.Expr):
    """An operand's element."""

    def __init__(self, operand: int, index: tuple[ir.Expr, ...], dtype: Any) -> None:
        super().__init__(dtype, index)
        self.operand = operand
        self.index = index


class Context(ElementContext):
    """The element context over arrays."""

    def __init__(self, op: Operation, arrays: list[np.ndarray], binding: dict[Symbol, int]):
        self.op = op
        self.arrays = arrays
        self.binding = binding
        self.sites: list[str] = []

    def operand(self, i: int, index: tuple[ir.Expr, ...]) -> ir.Expr:
        assert len(index) == self.arrays[i].ndim
        return At(i, index, self.op.inputs[i].dtype.base_dtype)

    def size(self, value: Any) -> ir.Expr:
        if isinstance(value, int):
            return ir.const(value)
        return Bound(self.bound(value))

    def bound(self, value: Any) -> int:
        found = substitute(value, self.binding)
        assert isinstance(found, int), found
        return found

    def site(self, message: str, op: Operation | None = None) -> int:
        self.sites.append(message)
        return len(self.sites) - 1

    def value(self, e: ir.Expr) -> Any:
        """The value of an expression."""
        if isinstance(e, ir.Const):
            return e.dtype.numpy.type(e.value)
        if isinstance(e, Bound):
            return np.int64(e.number)
        if isinstance(e, At):
            index = tuple(int(self.value(i)) for i in e.index)
            shape = self.arrays[e.operand].shape
            assert all(0 <= i < n for i, n in zip(index, shape, strict=True)), (index, shape)
            return self.arrays[e.operand][index]
        if isinstance(e, ir.Guard):
            return self.value(e.value if self.value(e.cond) else e.otherwise)
        if isinstance(e, ir.Require):
            if not self.value(e.cond):
                details = tuple(int(self.value(d)) for d in e.details)
                raise Failed(self.sites[e.site] % details)
            return self.value(e.value)
        if isinstance(e, ir.Cast):
            return e.dtype.numpy.type(self.value(e.value))
        assert isinstance(e, ir.Apply), e
        return FUNCTIONS[e.fn].numpy(*[self.value(a) for a in e.args])


class Bound(ir.Expr):
    """A symbolic size whose number only the run knows."""

    def __init__(self, number: int) -> None:
        super().__init__(dtypes.int64, ())
        self.number = number


def computed(op: Operation, arrays: list[np.ndarray], binding: dict[Symbol, int]) -> list[Any]:
    """The outputs of an operation, element by element."""
    found = []
    for k, out in enumerate(op.outputs):
        ctx = Context(op, arrays, binding)
        ctx.output_index = k
        assert out.sizes is not None
        shape = tuple(ctx.bound(s) if isinstance(s, Dim) else s for s in out.sizes)
        array = np.zeros(shape, out.dtype.numpy)
        for index in np.ndindex(*shape):
            at = tuple(Bound(i) for i in index)
            with np.errstate(all="ignore"):
                array[index] = element(ctx, at)
        found.append(array)
    return found


def element(ctx: Context, index: tuple[ir.Expr, ...]) -> Any:
    definition = ctx.op.definition
    if isinstance(definition, ElementOp):
        return ctx.value(definition.element(ctx, index))
    assert isinstance(definition, ReductionOp)
    r = definition.reduction(ctx, index)
    ranges = [range(ctx.bound(e) if isinstance(e, Dim) else e) for e in r.extents]
    bodies = [
        ctx.value(r.body(tuple(Bound(i) for i in inner))) for inner in itertools.product(*ranges)
    ]
    total = {"add": sum, "min": min}[r.op](bodies)
    # The op's own expression of the reduced value, with a variable bound to it.
    return ctx.value(r.finish(Bound(total)))


def operands(op_name: str, sample: Sample) -> tuple[list[Any], list[np.ndarray]]:
    """The sample's operands nested as declared, and flat, in the dtypes of the op."""
    nested, flat = [], []
    for arg, value in zip(REGISTRY[op_name].args, sample.inputs, strict=True):
        values = value if arg.variadic else [value]
        arrays = []
        for v in values:
            array = np.asarray(v)
            of_kind = [t for t in arg.types if t.numpy.kind == array.dtype.kind]
            wide = max(of_kind, key=lambda t: t.size) if of_kind else arg.types[0]
            arrays.append(array.astype(wide.numpy))
        nested.append(arrays if arg.variadic else arrays[0])
        flat += arrays
    return nested, flat


SAMPLES = [
    pytest.param(name, sample, id=f"{name}-{i}")
    for name in OPS
    for i, sample in enumerate(REGISTRY[name].samples())
]


def agree(op: Operation, flat: list[np.ndarray], binding: dict[Symbol, int]) -> None:
    expected = evaluate_reference(op, flat)
    for got, want in zip(computed(op, flat, binding), expected, strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize(("name", "sample"), SAMPLES)
def test_elements_with_known_sizes(name: str, sample: Sample) -> None:
    nested, flat = operands(name, sample)
    with Graph().as_default():
        tensors = [[constant(v) for v in n] if isinstance(n, list) else constant(n) for n in nested]
        op = create(name, tensors, sample.attrs)
        agree(op, flat, {})


@pytest.mark.parametrize("fed", [False, True], ids=["constant", "fed"])
@pytest.mark.parametrize(("name", "sample"), SAMPLES)
def test_elements_with_symbolic_sizes(name: str, sample: Sample, fed: bool) -> None:
    nested, flat = operands(name, sample)
    binding: dict[Symbol, int] = {}
    arrays: dict[Tensor, np.ndarray] = {}

    def tensor(array: np.ndarray) -> Tensor:
        if name in ("Range", "LinSpace") and array.dtype.kind == "f":
            return constant(array)
        if array.dtype.kind in "iu" and array.ndim <= 2:
            if not fed:
                return constant(array)
            found = placeholder(dtypes.as_dtype(array.dtype), array.shape)
        else:
            found = placeholder(dtypes.as_dtype(array.dtype), [None] * array.ndim)
        arrays[found] = array
        for size, number in zip(found.sizes, array.shape, strict=True):
            if isinstance(size, Dim):
                binding[size.as_symbol] = number
        return found

    with Graph().as_default():
        tensors = [[tensor(v) for v in n] if isinstance(n, list) else tensor(n) for n in nested]
        declared = create(name, tensors, sample.attrs)
    env = Recording(binding, arrays)
    op, refused = None, ""
    try:
        op = copy_operation(Graph(), declared, declared.inputs, env)
    except ShapeError as e:
        refused = str(e)
    if op is None:  # it leans on an axis, a permutation, strides
        assert fed, refused
        assert "must be known" in refused
        return
    if any(t.sizes is None for t in op.outputs):
        assert name == "GatherNd"  # its rank is that of how many indices: compiled anew
        return
    if not env.holds():
        # A size that turns out to be 1, a -1 among several entries: compiled anew.
        assert name == "BroadcastTo" or (name == "Reshape" and -1 in flat[1])
        return
    agree(op, flat, binding)


# --- slices as NumPy has them ---


@st.composite
def slices(draw: Any) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    shape = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=3)))
    key: list[Any] = []
    for size in shape[: draw(st.integers(0, len(shape)))]:
        kind = draw(st.sampled_from(["slice", "slice", "int", "new"]))
        if kind == "new":
            key.append(None)
        if kind == "int" and size:
            key.append(draw(st.integers(-size, size - 1)))
        else:
            limit = st.none() | st.integers(-7, 7)
            step = draw(st.none() | st.sampled_from([1, 2, 3, -1, -2]))
            key.append(slice(draw(limit), draw(limit), step))
    if draw(st.booleans()):
        key.insert(draw(st.integers(0, len(key))), Ellipsis)
        # entries after the ellipsis speak of the last dimensions
        if any(isinstance(k, int) for k in key[key.index(Ellipsis) :]):
            key = [k for k in key if not isinstance(k, int)]
    return shape, tuple(key)


@given(slices())
def test_indexing_is_numpys(case: tuple[tuple[int, ...], tuple[Any, ...]]) -> None:
    shape, key = case
    array = np.arange(float(np.prod(shape))).reshape(shape)
    with Graph().as_default():
        known, unknown = constant(array), placeholder(dtypes.float64, [None] * len(shape))
        a, b = known[key], unknown[key]
    want = array[key]
    assert a.shape.as_list() == list(want.shape)
    for t, binding in ((a, {}), (b, symbols(unknown, shape))):
        arrays = [array, *(i.op.attrs["value"] for i in t.op.inputs[1:])]
        np.testing.assert_array_equal(evaluate_reference(t.op, arrays)[0], want)
        np.testing.assert_array_equal(computed(t.op, arrays, binding)[0], want)


def symbols(tensor: Tensor, shape: tuple[int, ...]) -> dict[Symbol, int]:
    return {s.as_symbol: n for s, n in zip(tensor.sizes, shape, strict=True)}


@given(st.lists(st.integers(1, 4), min_size=0, max_size=4), st.data())
def test_reshape_keeps_the_order(shape: list[int], data: Any) -> None:
    count = int(np.prod(shape))
    target: list[int] = []
    while count > 1:
        factors = [d for d in range(2, count + 1) if count % d == 0]
        target.append(data.draw(st.sampled_from(factors)))
        count //= target[-1]
    target = data.draw(st.permutations(target + [1] * data.draw(st.integers(0, 2))))
    array = np.arange(int(np.prod(shape))).astype(np.float64).reshape(shape)
    with Graph().as_default():
        op = create("Reshape", [constant(array), constant(np.array(target, np.int64))])
    np.testing.assert_array_equal(
        computed(op, [array, np.array(target)], {})[0], array.reshape(target)
    )


# --- index arithmetic and failures ---


def expressions(e: ir.Expr) -> Iterator[ir.Expr]:
    yield e
    for child in e.operands:
        yield from expressions(child)


@pytest.mark.parametrize(
    ("source", "target"),
    [([None, 28, 28, 1], [-1, 784]), ([None, None, 8], [-1, 8]), ([None, 6], [-1, 1, 6, 1])],
)
def test_merging_dims_needs_no_division(source: list[Any], target: list[int]) -> None:
    with Graph().as_default():
        op = create("Reshape", [placeholder(dtypes.float32, source), target])
        back = create("Reshape", [op.outputs[0], create("Shape", [op.inputs[0]]).outputs[0]])
        arrays = [np.zeros([2 if s is None else s for s in source]), np.array(target)]
        ctx = Context(op, arrays, symbols_of_all(op))
    assert back.outputs[0].sizes == op.inputs[0].sizes
    e = op.definition.element(ctx, tuple(Bound(0) for _ in op.outputs[0].sizes))
    found = {x.fn for x in expressions(e) if isinstance(x, ir.Apply)}
    needed = {"idiv", "irem"} if len(target) == 2 else set()
    assert found & {"idiv", "irem"} <= needed


def symbols_of_all(op: Operation) -> dict[Symbol, int]:
    return {s.as_symbol: 2 for s in op.inputs[0].sizes if isinstance(s, Dim)}


def test_indices_out_of_range_fail_the_run() -> None:
    params, indices = np.arange(6.0).reshape(3, 2), np.array([[0, 7]])
    with Graph().as_default():
        ids = placeholder(dtypes.int64, [None, 2])
        op = create("GatherV2", [constant(params), ids, 0])
        nd = create("GatherNd", [constant(params), ids])
    binding = {ids.sizes[0].as_symbol: 1}
    with pytest.raises(Failed, match=r"indices\[1\] = 7 is not in \[0, 3\)"):
        computed(op, [params, indices, np.array(0)], binding)
    with pytest.raises(Failed, match=r"indices\[0\] = 7 does not index into param shape \[3,2\]"):
        computed(nd, [params, indices], binding)


def test_one_index_out_of_range_fails_the_run() -> None:
    with Graph().as_default():
        x = placeholder(dtypes.float64, [None, 2])
        t = x[3]
    arrays = [np.zeros((2, 2)), *(i.op.attrs["value"] for i in t.op.inputs[1:])]
    with pytest.raises(Failed, match="slice index 3 of dimension 0 out of bounds"):
        computed(t.op, arrays, symbols_of_all(t.op))


def test_fed_sizes_that_do_not_fit_are_refused_in_tensorflows_words() -> None:
    with Graph().as_default():
        x = placeholder(dtypes.float32, [None, None])
        op = create("Reshape", [x, constant([4, 2])])
        fed = placeholder(dtypes.float32, [2, 3])
    env = Recording({}, {})
    ctx = InferContext(op.definition, op.name, [fed, op.inputs[1]], op.attrs, env)
    words = "Input to reshape is a tensor with 6 values, but the requested shape has 8"
    with pytest.raises(ShapeError, match=words):
        op.definition.infer(ctx)
