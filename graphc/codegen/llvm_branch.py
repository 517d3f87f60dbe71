"""Branches in LLVM text: joining two sides, and failures reported off the hot path."""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.llvm_text import Emitter, Region, Val
from graphc.loop.ir import Require

COLD = "!prof !1"
Side = tuple[Region, Val]


class Branches:
    """Control flow between regions of an emitter."""

    def __init__(self, e: Emitter) -> None:
        self.e = e
        self.status = ""

    def place(self, cond: Val, *sides: Region, end: str) -> None:
        """Branch to the first side where ``cond`` holds, else to the second or to ``end``."""
        other = sides[1].first if len(sides) > 1 else end
        self.e.line(f"br i1 {cond.text}, label %{sides[0].first}, label %{other}")
        lines = self.e.region.lines
        for side in sides:
            lines.append(side.first + ":")
            lines.extend(side.lines)
            lines.append(f"  br label %{end}")
        self.e.start(end)

    def join(self, cond: Val, a: Side, b: Side) -> Val:
        """The value of the side that was taken."""
        n = max(a[1].n, b[1].n)
        (left, x), (right, y) = self._widened(a, n), self._widened(b, n)
        self.place(cond, left, right, end=self.e.label())
        ty = f"<{n} x {x.ty}>" if n else x.ty
        text = f"phi {ty} [ {x.text}, %{left.label} ], [ {y.text}, %{right.label} ]"
        return self.e.here(text, x.ty, n)

    def _widened(self, side: Side, n: int) -> Side:
        region, v = side
        if v.n == n:
            return side
        self.e.reopen(region)
        v = self.e.splat(v, n)
        self.e.close()
        return region, v

    def report(
        self,
        failed: Val,
        active: Val | None,
        node: Require,
        scope: int,
        details: Callable[[], list[Val]],
    ) -> None:
        """Where (a lane of) ``failed`` holds, note the site and its details unless one is noted.

        ``active`` says whether there are active lanes at all.
        """
        e = self.e
        flag = failed
        if failed.n:
            name = f"llvm.vector.reduce.or.v{failed.n}i1"
            flag = e.intrinsic(name, "i1", 0, failed, plain=True)
        if active is not None:
            flag = e.binary("and", flag, active)
        back, won = e.label(), e.label()
        region = e.open(e.label(), scope, loop=False)
        shown = [self._first_failed(failed, v) for v in details()]
        place = self.status
        pair = e.here(f"cmpxchg ptr {place}, i64 0, i64 {node.site + 1} monotonic monotonic", "", 0)
        first = e.here(f"extractvalue {{ i64, i1 }} {pair.text}, 1", "i1", 0)
        e.line(f"br i1 {first.text}, label %{won}, label %{back}")
        e.start(won)
        for i, v in enumerate(shown):
            slot = e.here(f"getelementptr i64, ptr {place}, i64 {i + 1}", "ptr", 0)
            e.line(f"store i64 {v.text}, ptr {slot.text}, align 8")
        e.line(f"br label %{back}")
        e.close()
        e.cold += [region.first + ":", *region.lines]
        e.line(f"br i1 {flag.text}, label %{region.first}, label %{back}, {COLD}")
        e.start(back)

    def _first_failed(self, failed: Val, v: Val) -> Val:
        """The lane of ``v`` that failed first."""
        e = self.e
        if not v.n:
            return v
        if not failed.n:
            return e.lane(v, 0)
        bits = e.convert_bits(failed)
        first = e.intrinsic("llvm.cttz", bits.ty, 0, bits, e.truth(True))
        return e.here(f"extractelement {v.full}, {first.full}", v.ty, 0)
