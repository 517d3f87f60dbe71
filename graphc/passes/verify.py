"""The rules of a compiled graph, checked: what every pass may rely on and has to keep.

A complaint shows the operations around the fault with the message below the line at fault::

    %x = Placeholder() {...} : f32[s0, 3]
    %y = Tanh(%x) : f32[s0, 4]
    ^ output 0 is f32[s0, 4], its inference says f32[s0, 3]
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import numpy as np

from graphc.dims import Dim, DimLike, Symbol, substitute, symbols_of
from graphc.dtypes import DType
from graphc.errors import GraphcError, VerifyError
from graphc.function import Function, format_operation, format_tensor, format_type
from graphc.graph import Operation, Tensor, TensorType
from graphc.op import REGISTRY, InferContext, ShapeEnv, SpecialOp, bind_args, check_dtype

AROUND = 4
ALLOWED_SPECIAL = ("Case", "Const", "Host", "Placeholder", "While")


class _Fault(Exception):
    """What is wrong; who catches it knows where."""


def verify_function(fn: Function, around: frozenset[Symbol] = frozenset()) -> Function:
    """The function itself, when it keeps the rules.

    * Operations have unique names, belong to the function's graph and come after their producers.
    * No operation has an effect but host steps; special ones are inputs, constants, control, hosts.
    * Operands have the dtypes that the op declares; attributes are complete.
    * Types are those that inference gives again, under the assumptions that the guards state.
    * Every symbol is bound by the size of an input, by an element of a tensor, by an operation with
      bodies, or (``around``) outside of the body that this is.
    * Bodies keep the rules themselves, and take what their owner has.
    * Inputs are placeholders and outputs tensors of the graph; an update has its variable's shape.

    Raises:
      VerifyError: naming the operation and what is wrong, with the lines around it.
    """
    verifier = _Verifier(fn, around)
    verifier.boundary()
    verifier.operations()
    verifier.outputs()
    verifier.guards()
    return fn


def bound_inside(fn: Function) -> set[Symbol]:
    """The sizes that the bodies in a function bind."""
    found: set[Symbol] = set()
    for op in fn.operations:
        for body in op.attrs.get("bodies", ()):
            found |= body.binders().keys() | bound_inside(body)
    return found


def _primitive(size: DimLike) -> DimLike:
    """The size without the factor that all its terms have."""
    if isinstance(size, int):
        return size
    factor = math.gcd(*(c for _, c in size.terms))
    return Dim(tuple((atoms, c // factor) for atoms, c in size.terms))


def _lengths(fn: Function) -> dict[Symbol, DimLike]:
    """For numbers that may be negative by themselves, and are sizes: the same that may not."""
    sizes = (size for op in fn.operations for t in op.outputs for size in t.sizes or ())
    found = {s.as_symbol for s in sizes if isinstance(s, Dim)}
    return {s: Dim.symbol(s.name) for s in found if s is not None and not s.positive}


class CheckingEnv(ShapeEnv):
    """Inference that may use what was assumed while compiling, and may assume nothing more.

    Sizes that only a run can tell are *wild*: they agree with everything.
    """

    def __init__(self, fn: Function) -> None:
        self._env = fn.env if isinstance(fn.env, ShapeEnv) else ShapeEnv()
        self._wild: set[Symbol] = set()
        self._fn = fn

    def canonical(self, size: DimLike) -> DimLike:
        """The size with every assumption applied."""
        return self._env.canonical(size)

    def agree(self, a: DimLike, b: DimLike) -> bool:
        """Whether two sizes are equal by what is known."""
        a, b = self.canonical(a), self.canonical(b)
        if a == b or self.is_wild(a) or self.is_wild(b):
            return True
        if _primitive(a - b) in self._known:
            return True
        apart = _primitive(self._of_lengths(a - b))
        return apart == 0 or apart in self._known_of_lengths

    def _of_lengths(self, size: DimLike) -> DimLike:
        """The size where what is the size of some tensor, and so not negative, is known as that."""
        return substitute(size, self._lengths)

    @functools.cached_property
    def _lengths(self) -> dict[Symbol, DimLike]:
        return _lengths(self._fn)

    @functools.cached_property
    def _known(self) -> set[DimLike]:
        guards = getattr(self._fn.env, "guards", self._fn.guards)
        pairs = [(self.canonical(g.left), self.canonical(g.right)) for g in guards]
        return {_primitive(d) for a, b in pairs for d in (a - b, b - a)}

    @functools.cached_property
    def _known_of_lengths(self) -> set[DimLike]:
        return {_primitive(self._of_lengths(d)) for d in self._known}

    def is_wild(self, size: DimLike) -> bool:
        """Whether only a run can tell the size."""
        return not self._wild.isdisjoint(symbols_of(size))

    def assume_equal(self, a: DimLike, b: DimLike) -> DimLike:
        """The common size; a fault where nothing says that there is one."""
        if not self.agree(a, b):
            raise _Fault(f"inference needs {a} == {b}, which no guard states")
        a, b = self.canonical(a), self.canonical(b)
        return b if isinstance(b, int) or self.is_wild(a) else a

    def broadcast_unknown(self, a: DimLike, b: DimLike) -> DimLike:
        """As when compiling: they must be equal."""
        return self.assume_equal(a, b)

    def value_symbols(self, tensor: Tensor, count: int) -> tuple[DimLike, ...]:
        """Wild sizes."""
        found = []
        for _ in range(count):
            symbol = Symbol(f"?{len(self._wild)}", positive=False)
            self._wild.add(symbol)
            found.append(Dim((((symbol,), 1),)))
        return tuple(found)


class _Verifier:
    def __init__(self, fn: Function, around: frozenset[Symbol]) -> None:
        self.fn = fn
        self.env = CheckingEnv(fn)
        self.order = fn.operations
        self.names = {op.name: op for op in self.order}
        outside = [i for i in fn.inputs if i.kind in ("feed", "variable")]
        self.bound = {s for i in outside for size in i.raw for s in symbols_of(size)}
        self.bound |= around | fn.binders().keys()
        self.placeholders: set[Operation] = set()

    # --- complaints -------------------------------------------------------------------------------

    def fail(self, message: str, op: Operation | None = None) -> VerifyError:
        """An error that shows the operations around the one at fault."""
        lines = [message if op is None else f"operation {op.name!r} ({op.type}): {message}"]
        at = next((k for k, o in enumerate(self.order) if o is op), len(self.order) - 1)
        for other in self.order[max(0, at - AROUND) : at + AROUND + 1]:
            lines.append(f"  {self.text(other)}")
            if other is op:
                lines.append(f"  ^ {message}")
        return VerifyError("\n".join(lines))

    def text(self, op: Operation) -> str:
        """The operation as a line, however broken it is."""
        try:
            return format_operation(op)
        except (AttributeError, TypeError, ValueError) as e:
            return f"%{op.name} = {op.type}(...)  (cannot be printed: {e})"

    # --- the boundary -----------------------------------------------------------------------------

    def boundary(self) -> None:
        """Inputs are placeholders of the graph, each of its own."""
        keys = set()
        for i in self.fn.inputs:
            op = i.tensor.op
            if op.type != "Placeholder" or self.names.get(op.name) is not op:
                raise self.fail(f"the input {i.key} is no placeholder of the graph", op)
            if op in self.placeholders or (i.kind, i.key) in keys:
                raise self.fail(f"the input {i.key} stands twice", op)
            self.placeholders.add(op)
            keys.add((i.kind, i.key))
            if i.kind in ("carry", "capture"):
                continue
            sizes = i.tensor.sizes
            if sizes is None or len(sizes) != len(i.raw):
                raise self.fail(f"the input {i.key} is bound from sizes {i.raw}", op)
            for size, raw in zip(sizes, i.raw, strict=True):
                if not self.env.agree(size, raw):
                    raise self.fail(f"the input {i.key} is bound from {raw}, it has {size}", op)
                if isinstance(raw, Dim) and raw.as_symbol is None:
                    raise self.fail(f"the input {i.key} has the size {raw}: no symbol", op)

    def outputs(self) -> None:
        """Outputs are tensors of the graph; updates have the shape of what they replace."""
        before = {i.key: i.tensor for i in self.fn.inputs if i.kind in ("carry", "variable")}
        loop = any(i.kind == "carry" for i in self.fn.inputs)
        keys = set()
        for o in self.fn.outputs:
            self.belongs(o.tensor, f"the {o.kind} {o.key}")
            if o.kind in ("update", "store"):
                if o.key in keys:
                    raise self.fail(f"the variable {o.key} gets two values", o.tensor.op)
                keys.add(o.key)
            if o.kind == "update":
                old = before.get(o.key)
                if old is None:
                    raise self.fail(f"the updated variable {o.key} is no input", o.tensor.op)
                if not loop:
                    self.same_type(o.tensor, old, f"the update of {o.key}")
                elif o.tensor.dtype.base_dtype is not old.dtype.base_dtype:
                    raise self.fail(f"loop variable {o.key} changes its dtype", o.tensor.op)

    def same_type(self, new: Tensor, old: Tensor, what: str) -> None:
        """A new value must fit the old one's storage."""
        a, b = new.sizes, old.sizes
        same = new.dtype.base_dtype is old.dtype.base_dtype and a is not None and b is not None
        if not same or len(a or ()) != len(b or ()) or not self.shapes_agree(a or (), b or ()):
            raise self.fail(
                f"{what} is {format_type(new.type)}, the variable {format_type(old.type)}", new.op
            )

    def shapes_agree(self, a: Iterable[DimLike], b: Iterable[DimLike]) -> bool:
        """Whether all sizes agree."""
        return all(self.env.agree(x, y) for x, y in zip(a, b, strict=True))

    def belongs(self, tensor: Tensor, what: str) -> None:
        """A tensor must be an output of an operation of this graph."""
        op = tensor.op
        here = self.names.get(op.name) is op
        if not here or tensor.index >= len(op.outputs) or op.outputs[tensor.index] is not tensor:
            raise self.fail(f"{what} is {format_tensor(tensor)}, which is not of this graph")

    # --- operations -------------------------------------------------------------------------------

    def operations(self) -> None:
        """Every operation, in order."""
        seen: set[Operation] = set()
        for op in self.order:
            if self.names[op.name] is not op or op.graph is not self.fn.graph:
                raise self.fail("its name or its graph is not its own", op)
            if op in seen:
                raise self.fail("it stands twice", op)
            for t in op.inputs:
                if t.op not in seen:
                    where = "no operation of this graph" if t.op not in self.order else "later"
                    raise self.fail(f"its operand {format_tensor(t)} is made by {where}", op)
            seen.add(op)
            try:
                self.operation(op)
            except (_Fault, GraphcError) as e:
                if isinstance(e, VerifyError):
                    raise
                raise self.fail(str(e), op) from None

    def operation(self, op: Operation) -> None:
        """One operation by itself."""
        definition = op.definition
        if REGISTRY.get(op.type) is not definition:
            raise _Fault("its op is not in the registry")
        if isinstance(definition, SpecialOp) and op.type not in ALLOWED_SPECIAL:
            raise _Fault("a compiled graph has no such op: it is state or control")
        if not definition.pure and op.type != "Host":
            raise _Fault("a compiled graph has no op with an effect but host steps")
        if op.type == "Placeholder" and op not in self.placeholders:
            raise _Fault("a placeholder that is no input")
        if op.attrs.keys() != definition.attrs.keys():
            odd = sorted(op.attrs.keys() ^ definition.attrs.keys())
            raise _Fault(f"its attributes {odd} are unknown or missing")
        if op.control_inputs:
            raise _Fault("a compiled graph has no control inputs")
        self.operands(op)
        self.types(op)
        for body in op.attrs.get("bodies", ()):
            verify_function(body, frozenset(self.bound))
            self.captures(op, body)

    def captures(self, op: Operation, body: Function) -> None:
        """What a body takes is what its owner has."""
        for i in body.inputs:
            number = int(i.key) if i.key.isdigit() else -1
            outer = op.inputs[number] if 0 <= number < len(op.inputs) else None
            if i.kind not in ("carry", "capture") or outer is None:
                raise _Fault(f"a body takes the {i.kind} {i.key!r}, which the operation has not")
            if outer.dtype.base_dtype is not i.tensor.dtype.base_dtype:
                raise _Fault(f"a body takes operand {i.key} as {format_type(i.tensor.type)}")

    def operands(self, op: Operation) -> None:
        """The number and the dtypes of operands."""
        definition = op.definition
        variadic = sum(a.variadic for a in definition.args)
        count = len(definition.args)
        if len(op.inputs) < count - variadic or (not variadic and len(op.inputs) != count):
            raise _Fault(f"it has {len(op.inputs)} operands, expected {count}")
        first: dict[str, DType] = {}
        for arg, tensors in bind_args(definition, op.inputs):
            for t in tensors:
                check_dtype(definition, arg, t.dtype)
                dtype = first.setdefault(arg.type_var or "", t.dtype)
                if arg.type_var and dtype is not t.dtype:
                    raise _Fault(f"the operands of {arg.type_var} are {dtype} and {t.dtype}")

    def types(self, op: Operation) -> None:
        """The recorded types are whole, bound, and what inference says."""
        for t in op.outputs:
            if (fault := self.type_fault(t)) is not None:
                raise _Fault(f"output {t.index} is {format_type(t.type)}: {fault}")
        ctx = InferContext(op.definition, op.name, op.inputs, op.attrs, self.env)
        inferred = list(op.definition.infer(ctx))
        if len(inferred) != len(op.outputs):
            raise _Fault(f"it has {len(op.outputs)} outputs, inference says {len(inferred)}")
        for t, found in zip(op.outputs, inferred, strict=True):
            if not self.agrees(t.type, found):
                raise _Fault(
                    f"output {t.index} is {format_type(t.type)}, inference says "
                    f"{format_type(found)}"
                )
        if op.type == "Const" and not isinstance(op.attrs["value"], np.ndarray):
            raise _Fault("its value is no array")

    def type_fault(self, tensor: Tensor) -> str | None:
        """What is wrong with the recorded type of an output by itself, if anything is."""
        if tensor.dtype.is_ref:
            return "a reference"
        if tensor.sizes is None:
            return "a compiled graph knows every rank"
        for size in tensor.sizes:
            if isinstance(size, int):
                if size < 0:
                    return "a negative size"
            elif unbound := symbols_of(size) - self.bound:
                return f"no input binds {', '.join(map(str, unbound))}"
        return None

    def agrees(self, recorded: TensorType, inferred: TensorType) -> bool:
        """Whether a recorded type is the inferred one, or knows more where inference does not."""
        if recorded.dtype is not inferred.dtype or recorded.sizes is None:
            return False
        if inferred.sizes is None:
            return True
        if len(recorded.sizes) != len(inferred.sizes):
            return False
        return self.shapes_agree(recorded.sizes, inferred.sizes)

    # --- guards -----------------------------------------------------------------------------------

    def guards(self) -> None:
        """Guards can be checked: their symbols are bound; and they can hold."""
        # What is assumed in a body stands with all that is assumed.
        bound = (self.bound | bound_inside(self.fn)) if self.fn.guards else self.bound
        learnt = getattr(self.fn.env, "learnt", {})
        for g in self.fn.guards:
            sides = [substitute(s, learnt) for s in (g.left, g.right)]
            unbound = {s for side in sides for s in symbols_of(side)} - bound
            if unbound:
                raise self.fail(f"guard {g}: no input binds {', '.join(map(str, unbound))}")
            if isinstance(g.left, int) and isinstance(g.right, int):
                raise self.fail(f"guard {g}: between numbers")
        for late in self.fn.late:
            self.belongs(late.tensor, f"the size {late.symbol}")
            if late.element < 0 or not late.tensor.dtype.base_dtype.is_integer:
                raise self.fail(
                    f"bind {format_tensor(late.tensor)}[{late.element}]: no integer element"
                )
