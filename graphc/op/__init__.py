"""What an op is: one class per op holds everything that is true of it.

A subclass of :class:`Op` states the op's operands (``inputs``), attributes, type inference, its
gradient, how it is computed (an ``element`` definition, a template or a decomposition), its NumPy
reference and sample inputs.  :func:`register` refuses a class that leaves something out; tests,
documentation, files and import tables are generated from the registry.
"""

from __future__ import annotations

from graphc.op.context import (
    DECLARING,
    Element,
    InferContext,
    ShapeEnv,
    as_value,
    partial_value,
    value_sizes,
)
from graphc.op.definition import (
    REQUIRED,
    Arg,
    Attr,
    CompositeOp,
    ContractionForm,
    ContractionOp,
    ElementContext,
    ElementOp,
    Gradients,
    Op,
    Reduction,
    ReductionOp,
    Sample,
    ScanOp,
    SpecialOp,
    TemplateOp,
)
from graphc.op.registry import (
    REGISTRY,
    bind_args,
    check_dtype,
    evaluate_reference,
    get_op,
    register,
)

__all__ = [
    "DECLARING",
    "REGISTRY",
    "REQUIRED",
    "Arg",
    "Attr",
    "CompositeOp",
    "ContractionForm",
    "ContractionOp",
    "Element",
    "ElementContext",
    "ElementOp",
    "Gradients",
    "InferContext",
    "Op",
    "Reduction",
    "ReductionOp",
    "Sample",
    "ScanOp",
    "ShapeEnv",
    "SpecialOp",
    "TemplateOp",
    "as_value",
    "bind_args",
    "check_dtype",
    "evaluate_reference",
    "get_op",
    "partial_value",
    "register",
    "value_sizes",
]
