"""Bodies from plain JSON values: who owns them, what comes in, what goes out, who sees what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from graphc import dtypes
from graphc.formats.encode import MAX_DEPTH
from graphc.formats.safetensors import shown
from graphc.graph import Operation, Region, Tensor
from graphc.op import Op
from graphc.ops.control_build import captures
from graphc.shapes import TensorShape

if TYPE_CHECKING:
    from graphc.formats.decode import GraphDecoder

_REGION_KEYS = {"name", "parent", "params", "results"}


class RegionDecoder:
    """Rebuilds the regions of a file.

    A region is complete when its owner is met: what lies in it stands before its owner, and
    nothing may be added afterwards.

    Attributes:
      decoder: of the operations.
      regions: by number; their owners are set as they are met.
      entries: what the file says of each of them.
    """

    def __init__(self, decoder: GraphDecoder, entries: Any) -> None:
        self.decoder = decoder
        self.regions: list[Region] = []
        self.entries: dict[Region, dict[str, Any]] = {}
        depths: list[int] = []
        for entry in decoder.typed(entries, list, "the regions"):
            if not isinstance(entry, dict) or not entry.keys() <= _REGION_KEYS:
                raise decoder.fail(f"a region is malformed: {shown(entry)}")
            name = decoder.typed(entry.get("name", ""), str, "a region's name")
            # Only those before this one: so there are no cycles.
            parent = self._numbered(entry.get("parent"), f"the parent of region {shown(name)}")
            depth = 1 if parent is None else depths[entry["parent"]] + 1
            if depth > MAX_DEPTH:
                raise decoder.fail(f"regions are nested more than {MAX_DEPTH} deep")
            depths.append(depth)
            self.regions.append(Region(decoder.graph, name, parent))
            self.entries[self.regions[-1]] = entry

    def _numbered(self, number: Any, what: str) -> Region | None:
        """The region of that number, one of those there are so far; None for None."""
        if number is None:
            return None
        if type(number) is not int or not 0 <= number < len(self.regions):
            raise self.decoder.fail(f"{what} is {shown(number)}, which is no region")
        return self.regions[number]

    # --- operations in regions --------------------------------------------------------------------

    def home(self, entry: dict[str, Any], name: str, definition: Op) -> Region | None:
        """The region that an operation lies in; None for the top level."""
        region = self._numbered(entry.get("region"), f"the region of {name!r}")
        if region is not None and region.owner is not None:
            raise self.decoder.fail(f"{name!r} comes after the owner of the region that it is in")
        if definition.name == "Parameter" and region is None:
            raise self.decoder.fail(f"{name!r} is a parameter of no region")
        if definition.name == "VariableV2" and region is not None:
            raise self.decoder.fail(f"the variable {name!r} is in a region")
        return region

    def check_visible(self, used: Iterable[Operation], here: Region | None, what: str) -> None:
        """What is used must be at the top level, or in one of the regions around."""
        for op in used:
            if op.region is not None and not op.region.encloses(here):
                raise self.decoder.fail(f"{what} uses {op.name!r} outside of its region")

    def listed(self, value: Any, what: str) -> tuple[Region, ...]:
        """The regions of an attribute."""
        found = [self._numbered(n, what) for n in self.decoder.typed(value, list, what)]
        regions = tuple(r for r in found if r is not None)
        if len(set(regions)) < len(value):
            raise self.decoder.fail(f"{what} names {shown(value)}: a region twice, or none")
        return regions

    # --- owners -----------------------------------------------------------------------------------

    def check_owner(
        self, definition: Op, name: str, inputs: Sequence[Tensor], attrs: dict[str, Any],
        here: Region | None,
    ) -> None:  # fmt: skip
        """An operation with bodies, before its types are inferred from them.

        Raises:
          FileFormatError: bodies of others, or that do not go with it or with each other.
        """
        bodies: tuple[Region, ...] = attrs["bodies"]
        for body in bodies:
            if body.owner is not None:
                raise self.decoder.fail(f"a body of {name!r} is one of {body.owner.name!r} already")
            if body.parent is not here:
                raise self.decoder.fail(f"a body of {name!r} is not in the region that it is in")
            self._complete(body)
        if attrs["symbols"]:
            raise self.decoder.fail(f"{name!r} has symbols, which only a compilation gives")
        # A list: gradients of a loaded graph add to it.
        attrs["saved"] = list(attrs["saved"])
        if definition.name == "While":
            first, saves = self._check_loop(name, bodies, inputs), bodies[1:]
        else:
            first, saves = self._check_choice(name, bodies, inputs), bodies
        captured = inputs[first:]
        if len(set(captured)) < len(captured) or set(captured) != set(captures(bodies)):
            raise self.decoder.fail(f"the operands of {name!r} are not what its bodies use")
        saved = attrs["saved"]
        right = all(t.op.region in saves and t.dtype.base_dtype is not dtypes.string for t in saved)
        if not right or len(set(saved)) < len(saved):
            raise self.decoder.fail(f"what {name!r} saves is not in its bodies")

    def _complete(self, region: Region) -> None:
        """Fill in the parameters and the results."""
        entry = self.entries[region]
        what = f"region {shown(region.name)}"
        names = (self.decoder.names(entry, key) for key in ("params", "results"))
        region.params, region.results = ([self.decoder.tensor(n) for n in refs] for refs in names)
        declared = {op for op in region.operations if op.type == "Parameter"}
        if {t.op for t in region.params} != declared or len(declared) != len(region.params):
            raise self.decoder.fail(f"the parameters of {what} are not those that are in it")
        self.check_visible([t.op for t in region.results], region, f"a result of {what}")

    def _check_loop(self, name: str, bodies: Sequence[Region], inputs: Sequence[Tensor]) -> int:
        """Check the condition and the body of a loop; the number of its variables."""
        if len(bodies) != 2:
            raise self.decoder.fail(f"the loop {name!r} has {len(bodies)} bodies, expected 2")
        test, step = bodies
        if len(test.results) != 1 or not _is_scalar(test.results[0], dtypes.bool_):
            raise self.decoder.fail(f"the condition of the loop {name!r} gives no bool scalar")
        count = len(step.params)
        columns = (test.params, step.results, inputs[:count])
        if any(len(column) != count for column in columns):
            raise self.decoder.fail(f"{name!r} and its bodies differ in the loop variables")
        for param, *others in zip(step.params, *columns, strict=True):
            if not all(_fits(param, t) for t in others):
                raise self.decoder.fail(f"{name!r} and its bodies differ in a loop variable's type")
        return count

    def _check_choice(self, name: str, bodies: Sequence[Region], inputs: Sequence[Tensor]) -> int:
        """Check the branches of a choice; how many operands come before what they use."""
        selector = inputs[0]
        is_bool = selector.dtype.base_dtype is dtypes.bool_
        if not bodies or (is_bool and len(bodies) != 2):
            raise self.decoder.fail(f"the choice {name!r} has {len(bodies)} branches")
        if not _is_scalar(selector, selector.dtype.base_dtype):
            raise self.decoder.fail(f"what {name!r} chooses by is no scalar")
        given = [[t.dtype.base_dtype for t in b.results] for b in bodies]
        if any(b.params for b in bodies) or any(types != given[0] for types in given):
            raise self.decoder.fail(f"the branches of {name!r} differ in what they give or take")
        return 1

    def finish(self) -> None:
        """Every region must have found its owner."""
        for region in self.regions:
            if region.owner is None:
                raise self.decoder.fail(f"region {shown(region.name)} has no owner")


def _is_scalar(tensor: Tensor, dtype: dtypes.DType) -> bool:
    return tensor.dtype.base_dtype is dtype and tensor.sizes in (None, ())


def _fits(param: Tensor, value: Tensor) -> bool:
    """Whether the value may be one of the loop variable's."""
    same = param.dtype.base_dtype is value.dtype.base_dtype
    return same and TensorShape(param.sizes).is_compatible_with(TensorShape(value.sizes))
