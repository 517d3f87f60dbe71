"""Writing a function as LLVM text, line by line."""

from __future__ import annotations


class FunctionText:
    """The lines of a function; values and labels have numbers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0
        self.labels = 0

    def emit(self, text: str) -> str:
        """A line that gives a value; the value's name."""
        self.count += 1
        name = f"%t{self.count}"
        self.lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        """A line that gives nothing."""
        self.lines.append(f"  {text}")

    def label(self, kind: str) -> str:
        """A new label."""
        self.labels += 1
        return f"{kind}{self.labels}"

    def start(self, label: str) -> None:
        """Begin a block."""
        self.lines.append(f"{label}:")

    def unless(self, good: str, kind: str, code: int) -> None:
        """Leave the run with a code if a condition does not hold."""
        bad, on = self.label(kind), self.label("on")
        self.do(f"br i1 {good}, label %{on}, label %{bad}")
        self.start(bad)
        self.do(f"ret i32 {code}")
        self.start(on)

    def at(self, base: str, index: int, type_: str = "i64") -> str:
        """Load entry ``index`` of an 8-byte table."""
        place = self.emit(f"getelementptr i64, ptr {base}, i64 {index}")
        return self.emit(f"load {type_}, ptr {place}")

    def function(self, head: str) -> str:
        """The collected lines as a function."""
        text = "\n".join([f"define {head} {{", "entry:", *self.lines, "}", ""])
        self.lines = []
        return text
