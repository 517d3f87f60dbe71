"""What the LLVM printer knows of an expression before it prints it."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.codegen.llvm_memory import Storage
from graphc.loop.ir import Buffer, Expr, Load, Require, Var


@dataclass(eq=False, slots=True)
class Facts:
    """What is known of a node.

    Attributes:
      variables: the bits of the variables in it.
      loads: what it loads from and the kernel may store to.
      effect: it must not be evaluated where a condition forbids it.
      height: of the expression.
    """

    variables: int
    loads: frozenset[Buffer]
    effect: bool
    height: int


class Knowledge:
    """The facts of a kernel's expressions, by the identity of the nodes."""

    def __init__(self, storage: dict[Buffer, Storage]) -> None:
        self.facts: dict[int, Facts] = {}
        self._storage = storage
        self._bits: dict[Var, int] = {}

    def bit(self, var: Var) -> int:
        """The bit of a variable."""
        found = self._bits.get(var)
        if found is None:
            found = self._bits[var] = 1 << len(self._bits)
        return found

    def of(self, root: Expr) -> Facts:
        """The facts of a node."""
        known = self.facts
        found = known.get(id(root))
        if found is not None:
            return found
        stack = [root]
        while stack:
            node = stack[-1]
            missing = [c for c in node.operands if id(c) not in known]
            if missing:
                stack.extend(missing)
            else:
                known[id(stack.pop())] = self._derive(node)
        return known[id(root)]

    def _derive(self, node: Expr) -> Facts:
        if isinstance(node, Var):
            return Facts(self.bit(node), frozenset(), False, 0)
        variables, loads, height = 0, frozenset[Buffer](), 0
        effect = isinstance(node, (Load, Require))
        for child in node.operands:
            part = self.facts[id(child)]
            variables |= part.variables
            effect = effect or part.effect
            height = max(height, part.height + 1)
            if part.loads:
                loads = loads | part.loads if loads else part.loads
        if isinstance(node, Load):
            st = self._storage.get(node.buffer)
            if st is None or not st.constant:
                loads |= {node.buffer}
        return Facts(variables, loads, effect, height)
