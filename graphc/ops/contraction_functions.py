"""The public matrix products, and what ``@`` declares."""

from __future__ import annotations

from typing import Any

from graphc.build import convert_to_tensor, create, single
from graphc.dtypes import DType, as_dtype, int32
from graphc.errors import DTypeError, GraphError
from graphc.graph import Tensor, name_scope
from graphc.ops.elementwise_operators import set_matmul
from graphc.ops.shaping import expand_dims, squeeze


def matmul(
    a: Any,
    b: Any,
    transpose_a: bool = False,
    transpose_b: bool = False,
    adjoint_a: bool = False,
    adjoint_b: bool = False,
    a_is_sparse: bool = False,
    b_is_sparse: bool = False,
    name: str | None = None,
    output_type: Any = None,
) -> Tensor:
    """The product of matrices: of two matrices, or of all in the last two dimensions.

    Args:
      a, b: tensors of one dtype; leading dimensions are broadcast.
      transpose_a, transpose_b, adjoint_a, adjoint_b: whether an operand is transposed first.
      a_is_sparse, b_is_sparse: accepted; the product is that of dense matrices.
      name: a name for the operation.
      output_type: int32 for the product of int8 or uint8 with int8 matrices, whose sums int32
        holds exactly (as later versions of TensorFlow have it); else the operands' dtype.
    Raises:
      ValueError: an operand both transposed and adjoint, or sizes that do not go together.
      TypeError: two dtypes, or dtypes whose product is not of ``output_type``.
    """
    with name_scope(name, "MatMul", [a, b]) as scope:
        if transpose_a and adjoint_a:
            raise GraphError("Only one of transpose_a and adjoint_a can be True.")
        if transpose_b and adjoint_b:
            raise GraphError("Only one of transpose_b and adjoint_b can be True.")
        a, b = convert_to_tensor(a, name="a"), convert_to_tensor(b, name="b")
        first, second = transpose_a or adjoint_a, transpose_b or adjoint_b
        if output_type is not None and as_dtype(output_type) is not a.dtype.base_dtype:
            return _integer(a, b, first, second, as_dtype(output_type), scope)
        batched = any(t.sizes is None or len(t.sizes) > 2 for t in (a, b))
        if batched and not (a_is_sparse or b_is_sparse):
            attrs = {"adj_x": first, "adj_y": second}
            return single(create("BatchMatMulV2", [a, b], attrs, scope))
        attrs = {"transpose_a": first, "transpose_b": second}
        return single(create("MatMul", [a, b], attrs, scope))


def _integer(
    a: Tensor, b: Tensor, adj_x: bool, adj_y: bool, output_type: DType, scope: str
) -> Tensor:
    if output_type is not int32:
        raise DTypeError(
            f"The product of {a.dtype.base_dtype.name} and {b.dtype.base_dtype.name} cannot be "
            f"{output_type.name}: output_type is int32 for int8 or uint8 by int8, else the dtype "
            "of the operands"
        )
    return single(create("MatMulInteger", [a, b], {"adj_x": adj_x, "adj_y": adj_y}, scope))


def matvec(
    a: Any,
    b: Any,
    transpose_a: bool = False,
    adjoint_a: bool = False,
    a_is_sparse: bool = False,
    b_is_sparse: bool = False,
    name: str | None = None,
) -> Tensor:
    """The product of a matrix and a vector: of all in the last dimensions.

    Args:
      a: a tensor ``[..., m, n]``.
      b: a tensor ``[..., n]`` of the same dtype; leading dimensions are broadcast.
      transpose_a, adjoint_a, a_is_sparse, b_is_sparse, name: as for :func:`matmul`.
    """
    with name_scope(name, "MatVec", [a, b]):
        column = expand_dims(b, -1)
        flags = (transpose_a, False, adjoint_a, False, a_is_sparse, b_is_sparse)
        return squeeze(matmul(a, column, *flags), -1)


set_matmul(lambda a, b, name: matmul(a, b, name=name))
