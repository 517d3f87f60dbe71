"""Convolutions and pooling under TensorFlow 1.15's signatures."""

from __future__ import annotations

from typing import Any

from graphc.build import convert_to_tensor, create, single
from graphc.errors import DTypeError, GraphError
from graphc.graph import Tensor, name_scope
from graphc.ops.base import call
from graphc.ops.reduction_functions import renamed_argument

ONES = (1, 1, 1, 1)


def channel_axis(data_format: str) -> int:
    """Where the channels are."""
    return 1 if data_format.startswith("NC") else 3


def four(value: Any, data_format: str, what: str) -> list[int]:
    """A value for each of the four dimensions, given as one, two or four numbers."""
    values = [1] if value is None else list(value) if hasattr(value, "__len__") else [value]
    if len(values) == 4:
        return [int(v) for v in values]
    if len(values) not in (1, 2):
        raise GraphError(f"{what} should be of length 1, 2 or 4 but was {len(values)}")
    height, width = (int(v) for v in (values * 2)[:2])
    if channel_axis(data_format) == 1:
        return [1, 1, height, width]
    return [1, height, width, 1]


def padding_attrs(padding: Any) -> dict[str, Any]:
    """``padding`` and ``explicit_paddings`` for a name or a list of (before, after)."""
    if isinstance(padding, str):
        if padding == "EXPLICIT":
            raise GraphError(
                '"EXPLICIT" is not a valid value for the padding parameter. To use explicit '
                "padding, the padding parameter must be a list."
            )
        return {"padding": padding, "explicit_paddings": ()}
    if not isinstance(padding, (list, tuple)):
        raise DTypeError(f"Expected string for argument 'padding' not {padding!r}.")
    rows = [list(row) if isinstance(row, (list, tuple)) else [row] for row in padding]
    for i, row in enumerate(rows):
        if len(row) != 2:
            raise GraphError(
                f"When padding is a list, each element of padding must be a list/tuple of size 2. "
                f"Element with index {i} of padding has size {len(row)}"
            )
    if len(rows) != 4:
        raise GraphError(
            f"When padding is a list, it must be of size 4. Got padding of size: {len(rows)}"
        )
    explicit = tuple(int(p) for row in rows for p in row)
    return {"padding": "EXPLICIT", "explicit_paddings": explicit}


def _conv_attrs(
    strides: Any, padding: Any, data_format: str | None, dilations: Any, cudnn: bool = True
) -> dict[str, Any]:
    layout = data_format or "NHWC"
    return {
        "strides": four(strides, layout, "strides"),
        "use_cudnn_on_gpu": cudnn,
        **padding_attrs(padding),
        "data_format": layout,
        "dilations": four(dilations, layout, "dilations"),
    }


def conv2d(
    input: Any,
    filter: Any = None,
    strides: Any = None,
    padding: Any = None,
    use_cudnn_on_gpu: bool = True,
    data_format: str | None = "NHWC",
    dilations: Any = ONES,
    name: str | None = None,
    filters: Any = None,
) -> Tensor:
    """A convolution (cross-correlation) of images with filters.

    Args:
      input: images, ``[batch, height, width, channels]`` (or as ``data_format`` says).
      filter, filters: ``[height, width, in_channels, out_channels]``.
      strides: how far the window moves: one number, two, or one for each dimension.
      padding: ``"SAME"``, ``"VALID"``, or (before, after) for each dimension.
      use_cudnn_on_gpu: accepted.
      data_format: ``"NHWC"`` or ``"NCHW"``.
      dilations: how far apart the taps of the window are, given like ``strides``.
      name: a name for the operation.
    Raises:
      ValueError: sizes that do not go together, unknown paddings or formats.
    """
    filter = renamed_argument("filters", filters, "filter", filter)
    attrs = _conv_attrs(strides, padding, data_format, dilations, use_cudnn_on_gpu)
    return single(create("Conv2D", [input, filter], attrs, name))


def conv2d_backprop_input(
    input_sizes: Any,
    filter: Any = None,
    out_backprop: Any = None,
    strides: Any = None,
    padding: Any = None,
    use_cudnn_on_gpu: bool = True,
    data_format: str | None = "NHWC",
    dilations: Any = ONES,
    name: str | None = None,
    filters: Any = None,
) -> Tensor:
    """The gradient of :func:`conv2d` with respect to its input, which has ``input_sizes``."""
    filter = renamed_argument("filters", filters, "filter", filter)
    attrs = _conv_attrs(strides, padding, data_format, dilations, use_cudnn_on_gpu)
    operands = [_sizes(input_sizes, "input_sizes"), filter, out_backprop]
    return single(create("Conv2DBackpropInput", operands, attrs, name))


def conv2d_backprop_filter(
    input: Any,
    filter_sizes: Any,
    out_backprop: Any,
    strides: Any = None,
    padding: Any = None,
    use_cudnn_on_gpu: bool = True,
    data_format: str | None = "NHWC",
    dilations: Any = ONES,
    name: str | None = None,
) -> Tensor:
    """The gradient of :func:`conv2d` with respect to its filter, which has ``filter_sizes``."""
    attrs = _conv_attrs(strides, padding, data_format, dilations, use_cudnn_on_gpu)
    operands = [input, _sizes(filter_sizes, "filter_sizes"), out_backprop]
    return single(create("Conv2DBackpropFilter", operands, attrs, name))


def _sizes(value: Any, name: str) -> Tensor:
    tensor = convert_to_tensor(value, name=name, preferred_dtype="int32")
    return tensor if tensor.dtype.name == "int32" else call("Cast", tensor, DstT="int32")


def conv2d_transpose(
    value: Any = None,
    filter: Any = None,
    output_shape: Any = None,
    strides: Any = None,
    padding: Any = "SAME",
    data_format: str | None = "NHWC",
    name: str | None = None,
    input: Any = None,
    filters: Any = None,
    dilations: Any = None,
) -> Tensor:
    """The transposed convolution: the gradient of :func:`conv2d` by its input, of ``value``.

    Args:
      value, input: images with the filter's output channels.
      filter, filters: ``[height, width, out_channels, in_channels]``.
      output_shape: the four sizes of the result.
      strides, padding, data_format, dilations: those of the convolution.
      name: a name for the operation.
    """
    value = renamed_argument("input", input, "value", value)
    filter = renamed_argument("filters", filters, "filter", filter)
    with name_scope(name, "conv2d_transpose", [value, filter, output_shape]) as scope:
        attrs = _conv_attrs(strides, padding, data_format, dilations)
        operands = [_sizes(output_shape, "output_shape"), filter, value]
        return single(create("Conv2DBackpropInput", operands, attrs, scope))


def atrous_conv2d(
    value: Any, filters: Any, rate: int, padding: Any, name: str | None = None
) -> Tensor:
    """A convolution with taps ``rate`` apart."""
    return conv2d(value, filters, 1, padding, dilations=rate, name=name or "convolution")


def depthwise_conv2d(
    input: Any,
    filter: Any,
    strides: Any,
    padding: Any,
    rate: Any = None,
    name: str | None = None,
    data_format: str | None = None,
    dilations: Any = None,
) -> Tensor:
    """A convolution of each channel with filters of its own.

    Args:
      input: images.
      filter: ``[height, width, channels, multiplier]``; the result has ``channels * multiplier``
        channels.
      strides, padding, data_format: as in :func:`conv2d`.
      rate, dilations: how far apart the taps are, in height and width.
      name: a name for the operation.
    """
    rate = renamed_argument("dilations", dilations, "rate", rate)
    with name_scope(name, "depthwise", [input, filter]) as scope:
        filter = convert_to_tensor(filter, name="filter_in")
        sizes = filter.sizes
        if sizes is None or len(sizes) != 4 or not all(isinstance(s, int) for s in sizes):
            raise GraphError(f"depthwise_conv2d needs a filter of known shape: {filter}")
        h, w, channels, multiplier = sizes
        grouped = call("Reshape", filter, [h, w, 1, channels * multiplier])
        attrs = _conv_attrs(strides, padding, data_format, rate)
        return single(create("Conv2D", [input, grouped], attrs, scope))


def _pool(
    op_name: str, scope_name: str, value: Any, ksize: Any, strides: Any, padding: Any,
    data_format: str | None, name: str | None,
) -> Tensor:  # fmt: skip
    with name_scope(name, scope_name, [value]) as scope:
        layout = data_format or "NHWC"
        if not isinstance(padding, str):
            raise DTypeError(f"Expected string for argument 'padding' not {padding!r}.")
        window = four(ksize, layout, "ksize")
        if any(k == 0 for k in window):
            raise GraphError("ksize cannot be zero.")
        attrs = {
            "ksize": window,
            "strides": four(strides, layout, "strides"),
            "padding": padding,
            "data_format": layout,
        }
        return single(create(op_name, [value], attrs, scope))


def max_pool(
    value: Any,
    ksize: Any,
    strides: Any,
    padding: str,
    data_format: str | None = "NHWC",
    name: str | None = None,
    input: Any = None,
) -> Tensor:
    """The largest element of each window.

    Args:
      value, input: images.
      ksize, strides: of the window: one number, two, or one for each dimension.
      padding: ``"SAME"`` or ``"VALID"``; padding is never the largest.
      data_format: ``"NHWC"`` or ``"NCHW"``.
      name: a name for the operation.
    """
    value = renamed_argument("input", input, "value", value)
    return _pool("MaxPool", "MaxPool", value, ksize, strides, padding, data_format, name)


def avg_pool(
    value: Any,
    ksize: Any,
    strides: Any,
    padding: str,
    data_format: str | None = "NHWC",
    name: str | None = None,
    input: Any = None,
) -> Tensor:
    """The mean of each window, padding not counted; see :func:`max_pool`."""
    value = renamed_argument("input", input, "value", value)
    return _pool("AvgPool", "AvgPool", value, ksize, strides, padding, data_format, name)


def max_pool2d(
    input: Any,
    ksize: Any,
    strides: Any,
    padding: str,
    data_format: str | None = "NHWC",
    name: str | None = None,
) -> Tensor:
    """The largest element of each window; see :func:`max_pool`."""
    return _pool("MaxPool", "MaxPool2d", input, ksize, strides, padding, data_format, name)


def avg_pool2d(
    input: Any,
    ksize: Any,
    strides: Any,
    padding: str,
    data_format: str | None = "NHWC",
    name: str | None = None,
) -> Tensor:
    """The mean of each window, padding not counted; see :func:`max_pool`."""
    return _pool("AvgPool", "AvgPool2D", input, ksize, strides, padding, data_format, name)


