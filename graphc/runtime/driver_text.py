"""Writing a function as LLVM text, line by line."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Body:
    """The lines of one function, and what its last block knows.

    Attributes:
      exits: the blocks that leave the function, by the code that they return.
      places: names of addresses in the block, by their text.
      loaded: what the entries of tables are, of each table by entry and type.
      arguments: what the table of arguments holds.
    """

    lines: list[str] = field(default_factory=list)
    exits: dict[int, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    loaded: dict[str, dict[tuple[int, str], str]] = field(default_factory=dict)
    arguments: dict[int, str] = field(default_factory=dict)


class FunctionText:
    """The lines of a function; values and labels have numbers.

    What a block has loaded from a table, it does not load again before ``changed`` is told of the
    table: functions of thousands of calls are as long as their loads and stores.
    """

    def __init__(self) -> None:
        self.body = Body()
        self.count = 0
        self.labels = 0

    def emit(self, text: str) -> str:
        """A line that gives a value; the value's name."""
        self.count += 1
        name = f"%t{self.count}"
        self.body.lines.append(f"  {name} = {text}")
        return name

    def do(self, text: str) -> None:
        """A line that gives nothing."""
        self.body.lines.append(f"  {text}")

    def label(self, kind: str) -> str:
        """A new label."""
        self.labels += 1
        return f"{kind}{self.labels}"

    def start(self, label: str) -> None:
        """Begin a block."""
        body = self.body
        body.lines.append(f"{label}:")
        body.places, body.loaded, body.arguments = {}, {}, {}

    def unless(self, good: str, kind: str, code: int) -> None:
        """Leave the run with a code if a condition does not hold."""
        bad = self.body.exits.get(code)
        if bad is None:
            bad = self.body.exits[code] = self.label(kind)
        on = self.label("on")
        self.do(f"br i1 {good}, label %{on}, label %{bad}")
        # Reached from here alone: all that was known is known.
        self.body.lines.append(f"{on}:")
        self.body.places = {}

    def leave_with(self, code: str) -> None:
        """Leave the run with what a function has returned, unless that is zero."""
        left, on = self.label("left"), self.label("on")
        good = self.emit(f"icmp eq i32 {code}, 0")
        self.do(f"br i1 {good}, label %{on}, label %{left}")
        self.start(left)
        self.do(f"ret i32 {code}")
        self.start(on)

    def address(self, base: str, offset: str) -> str:
        """So many bytes behind an address."""
        return self.emit(f"getelementptr i8, ptr {base}, i64 {offset}")

    def place(self, base: str, index: int) -> str:
        """The address of entry ``index`` of an 8-byte table."""
        text = f"getelementptr i64, ptr {base}, i64 {index}"
        found = self.body.places.get(text)
        if found is None:
            found = self.body.places[text] = self.emit(text)
        return found

    def at(self, base: str, index: int, type_: str = "i64") -> str:
        """Load entry ``index`` of an 8-byte table."""
        known = self.body.loaded.setdefault(base, {})
        found = known.get((index, type_))
        if found is None:
            found = known[index, type_] = self.emit(f"load {type_}, ptr {self.place(base, index)}")
        return found

    def put(self, base: str, index: int, value: str) -> None:
        """Store entry ``index`` of an 8-byte table; ``value`` has its type before it."""
        self.do(f"store {value}, ptr {self.place(base, index)}")
        self.changed(base)

    def changed(self, *bases: str) -> None:
        """Say that tables are no longer as they were loaded."""
        for base in bases:
            self.body.loaded.pop(base, None)

    def arguments(self, values: list[str]) -> None:
        """Fill the table ``%args``, which nothing but this writes."""
        held = self.body.arguments
        for k, value in enumerate(values):
            if held.get(k) != value:
                self.do(f"store {value}, ptr {self.place('%args', k)}")
                held[k] = value

    def function(self, head: str) -> str:
        """The collected lines as a function."""
        body, self.body = self.body, Body()
        for code, label in body.exits.items():
            body.lines += [f"{label}:", f"  ret i32 {code}"]
        return "\n".join([f"define {head} {{", "entry:", *body.lines, "}", ""])
