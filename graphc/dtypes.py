"""Element types: :class:`DType` and the named instances ``float32``, ``int64``, ...

The names, ``repr`` and attributes are those of ``tf.DType`` of TensorFlow 1.15.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from graphc.errors import DTypeError

finfo: Any = ml_dtypes.finfo
"""The limits of floats: NumPy's function, which knows bfloat16 as well."""


class DType:
    """The type of a tensor's elements.

    Attributes:
      name: ``"float32"``; a reference type (the type of a Variable's handle) ends in ``_ref``.
      code: a short name for printed IR: ``"f32"``.
      size: bytes per element; 0 for strings.
    """

    __slots__ = ("_np", "_ref", "base_dtype", "code", "is_ref", "kind", "name", "size")

    def __init__(
        self, name: str, code: str, kind: str, np_type: Any, *, base: DType | None = None
    ) -> None:
        self.name = name
        self.code = code
        self.kind = kind
        self._np: np.dtype[Any] = np.dtype(np_type)
        self.size = 0 if kind == "string" else self._np.itemsize
        self.is_ref = base is not None
        self.base_dtype: DType = base or self
        self._ref: DType | None = None

    @property
    def as_numpy_dtype(self) -> Any:
        """The NumPy scalar type (``numpy.float32``), as in TensorFlow."""
        return self._np.type

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype object."""
        return self._np

    @property
    def as_ref(self) -> DType:
        """The reference type of this type: what a Variable's handle has."""
        if self.is_ref:
            return self
        if self._ref is None:
            self._ref = DType(self.name + "_ref", self.code, self.kind, self._np, base=self)
        return self._ref

    @property
    def is_floating(self) -> bool:
        """True for the floating point types."""
        return self.kind == "float"

    @property
    def accumulator(self) -> DType:
        """What sums of this type are kept in: float32 for floats of 16 bits, else itself."""
        return float32 if self.base_dtype in SHORT_FLOATS else self.base_dtype

    @property
    def is_integer(self) -> bool:
        """True for signed and unsigned integers; bool is not an integer."""
        return self.kind in ("int", "uint")

    @property
    def is_unsigned(self) -> bool:
        """True for the unsigned integers."""
        return self.kind == "uint"

    @property
    def is_bool(self) -> bool:
        """True for bool."""
        return self.kind == "bool"

    @property
    def is_complex(self) -> bool:
        """True for complex types; there are none yet."""
        return False

    @property
    def is_numpy_compatible(self) -> bool:
        """True: every type has a NumPy type (strings are NumPy objects)."""
        return True

    @property
    def min(self) -> Any:
        """The least finite value."""
        return self._limits()[0]

    @property
    def max(self) -> Any:
        """The greatest finite value."""
        return self._limits()[1]

    @property
    def limits(self) -> tuple[Any, Any]:
        """``(min, max)``."""
        return self._limits()

    def _limits(self) -> tuple[Any, Any]:
        if self.is_floating:
            info = finfo(self._np)
            return info.min, info.max
        if self.is_integer:
            iinfo = np.iinfo(self._np)
            return iinfo.min, iinfo.max
        if self.is_bool:
            return False, True
        raise DTypeError(f"Cannot find minimum value of {self!r}.")

    def is_compatible_with(self, other: Any) -> bool:
        """Whether a tensor of type ``other`` may be used where this type is declared."""
        return self.base_dtype is as_dtype(other).base_dtype

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DType):
            return self.name == other.name
        try:
            return self.name == as_dtype(other).name
        except TypeError:
            return NotImplemented

    def __ne__(self, other: object) -> bool:
        result = self.__eq__(other)
        return result if result is NotImplemented else not result

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"tf.{self.name}"

    def __str__(self) -> str:
        return f"<dtype: {self.name!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return as_dtype, (self.name,)


float16 = half = DType("float16", "f16", "float", np.float16)
bfloat16 = DType("bfloat16", "bf16", "float", ml_dtypes.bfloat16)
float32 = DType("float32", "f32", "float", np.float32)
float64 = double = DType("float64", "f64", "float", np.float64)
int8 = DType("int8", "i8", "int", np.int8)
int16 = DType("int16", "i16", "int", np.int16)
int32 = DType("int32", "i32", "int", np.int32)
int64 = DType("int64", "i64", "int", np.int64)
uint8 = DType("uint8", "u8", "uint", np.uint8)
uint16 = DType("uint16", "u16", "uint", np.uint16)
uint32 = DType("uint32", "u32", "uint", np.uint32)
uint64 = DType("uint64", "u64", "uint", np.uint64)
bool_ = DType("bool", "b1", "bool", np.bool_)
string = DType("string", "str", "string", object)

SHORT_FLOATS = (float16, bfloat16)
"""Floats of 16 bits: stored so, computed in float32."""
FLOATS = (float16, bfloat16, float32, float64)
SIGNED = (int8, int16, int32, int64)
UNSIGNED = (uint8, uint16, uint32, uint64)
INTEGERS = SIGNED + UNSIGNED
NUMERIC = FLOATS + INTEGERS
ALL = (*NUMERIC, bool_)

_BY_NAME: dict[str, DType] = {t.name: t for t in (*ALL, string)}
_BY_NAME.update({t.code: t for t in ALL})
_BY_NAME.update(
    {"float": float32, "double": float64, "half": float16, "int": int32, "str": string}
)
_BY_PYTHON: dict[Any, DType] = {float: float32, int: int32, bool: bool_, str: string, bytes: string}
_BY_NUMPY: dict[np.dtype[Any], DType] = {t.numpy: t for t in ALL}
_BY_NUMPY[np.dtype(object)] = string


def as_dtype(value: Any) -> DType:
    """The DType named by ``value``: a DType, a name (``"float"``), a NumPy or Python type.

    Raises:
      DTypeError: (a TypeError) when ``value`` names no type that graphc has.
    """
    if isinstance(value, DType):
        return value
    if isinstance(value, str):
        found = _BY_NAME.get(value.removesuffix("_ref"))
        if found is not None:
            return found.as_ref if value.endswith("_ref") else found
    elif isinstance(value, type) and value in _BY_PYTHON:
        return _BY_PYTHON[value]
    try:
        np_type = np.dtype(value)
    except TypeError:
        raise DTypeError(f"Cannot convert value {value!r} to a DType.") from None
    if np_type.kind in "US":
        return string
    found = _BY_NUMPY.get(np_type.newbyteorder("="))
    if found is None:
        raise DTypeError(f"Cannot convert value {value!r} to a DType.")
    return found


def is_float(np_type: np.dtype[Any]) -> bool:
    """Whether a NumPy dtype is one of floats; bfloat16's kind is that of records."""
    return np_type.kind == "f" or np_type == bfloat16.numpy


def converted(value: Any, dtype: DType) -> np.ndarray:
    """An array of a dtype: the value itself where it is one already, else rounded once."""
    array = np.asarray(value)
    if array.dtype == dtype.numpy or dtype is string:
        return np.asarray(array, dtype.numpy)
    return rounded(array, dtype.numpy)


def rounded(array: Any, np_type: np.dtype[Any]) -> np.ndarray:
    """``astype``, rounded once: to bfloat16 ml_dtypes goes through float32, which rounds twice."""
    array = np.asarray(array)
    wide = array.dtype.kind in "iuf" and array.dtype.itemsize >= 4 and array.dtype != np.float32
    if np_type != bfloat16.numpy or not wide:
        return np.asarray(array.astype(np_type))
    if array.dtype.itemsize == 8 and array.dtype.kind in "iu":
        # What float64 cannot hold below is one sticky bit, far below the last of bfloat16.
        low = array & array.dtype.type(0x7FF)
        large = np.abs(array.astype(np.float64)) >= 2.0**53
        sticky = (array - low) | ((low != 0).astype(array.dtype) << array.dtype.type(11))
        array = np.where(large, sticky, array)
    exact = array.astype(np.float64)
    with np.errstate(over="ignore"):
        near = np.asarray(exact.astype(np.float32))
    bits = near.reshape(-1).view(np.int32).reshape(near.shape)
    beyond = np.abs(near.astype(np.float64)) > np.abs(exact)
    odd = (bits - beyond) | 1
    inexact = (near != exact) & ~np.isnan(exact)
    to_odd = np.asarray(np.where(inexact, odd, bits), np.int32)
    return np.asarray(to_odd.reshape(-1).view(np.float32).reshape(near.shape).astype(np_type))
