"""What a strided slice means: its masks resolved to one entry per dimension of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphc import dims
from graphc.dims import DimLike
from graphc.ops.movement_value import Sizes, negative

MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")


@dataclass(frozen=True)
class Entry:
    """One dimension of the input or (``source`` None) a new one of the output.

    Attributes:
      source: the dimension of the input.
      position: where begin, end and stride stand in their operands; None for a whole dimension.
      begin_masked, end_masked: the limit is not given.
      stride: the step.
      shrink: one index is taken; the output does not have the dimension.
    """

    source: int | None
    position: int | None
    begin_masked: bool = True
    end_masked: bool = True
    stride: int = 1
    shrink: bool = False


def entries(attrs: dict[str, Any], strides: Sequence[int], rank: int) -> list[Entry]:
    """The entries of a slice of a tensor of the given rank, in order.

    Raises:
      ValueError: more dimensions are indexed than there are; two ellipses; a stride of 0.
    """
    masks = {m: int(attrs[m]) for m in MASKS}
    count = len(strides)

    def has(mask: str, i: int) -> bool:
        return bool(masks[mask] >> i & 1)

    ellipses = [i for i in range(count) if has("ellipsis_mask", i)]
    if len(ellipses) > 1:
        raise ValueError("Multiple ellipses in slice spec not allowed")
    at = ellipses[0] if ellipses else count
    used = sum(not has("new_axis_mask", i) for i in range(count) if i != at)
    if used > rank:
        raise ValueError(f"Index out of range using input dim {rank}; input has only {rank} dims")
    found: list[Entry] = []
    source = 0
    for i in range(count + (not ellipses)):
        if i == at:
            found += [Entry(source + k, None) for k in range(rank - used)]
            source += rank - used
        elif has("new_axis_mask", i):
            found.append(Entry(None, i))
        else:
            shrink = has("shrink_axis_mask", i)
            if strides[i] == 0:
                raise ValueError(f"strides[{i}] must be non-zero")
            if shrink and strides[i] < 0:
                raise ValueError("only stride 1 allowed on non-range indexing.")
            found.append(
                Entry(source, i, has("begin_mask", i) and not shrink, has("end_mask", i),
                      strides[i], shrink)
            )  # fmt: skip
            source += 1
    return found


def slice_size(entry: Entry, size: DimLike, begin: DimLike, end: DimLike) -> DimLike:
    """How many elements of a dimension an entry that does not shrink takes."""
    if entry.position is None or (entry.begin_masked and entry.end_masked and entry.stride == 1):
        return size
    if entry.stride > 0:
        if entry.end_masked and not entry.begin_masked and isinstance(begin, int) and begin < 0:
            span: DimLike = dims.minimum(-begin, size)
        else:
            low = 0 if entry.begin_masked else dims.maximum(from_front(begin, size), 0)
            high = size if entry.end_masked else dims.minimum(from_front(end, size), size)
            span = dims.maximum(high - low, 0)
    else:
        last = size - 1
        high = last if entry.begin_masked else dims.minimum(from_front(begin, size), last)
        low = -1 if entry.end_masked else dims.maximum(from_front(end, size), -1)
        span = dims.maximum(high - low, 0)
    return dims.ceildiv(span, abs(entry.stride))


def from_front(index: DimLike, size: DimLike) -> DimLike:
    """The index counted from the front."""
    if isinstance(index, int):
        return index + size if index < 0 else index
    return index + negative(index) * size


def output_sizes(found: Sequence[Entry], sizes: Sizes, begin: Sizes, end: Sizes) -> Sizes:
    """The sizes of the sliced tensor."""
    out: list[DimLike] = []
    for e in found:
        if e.source is None:
            out.append(1)
        elif e.position is None:
            out.append(sizes[e.source])
        elif not e.shrink:
            out.append(slice_size(e, sizes[e.source], begin[e.position], end[e.position]))
    return tuple(out)
