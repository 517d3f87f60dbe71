"""``scalef``: x * 2**n in LLVM text, right for subnormal results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphc.codegen.llvm_text import Emitter, Val


def scalef(e: Emitter, x: Val, n: Val) -> Val:
    """x * 2**n, rounded once, for an integer n (in a float) up to twice the exponent's range."""
    if e.target.has_avx512:
        return _instruction(e, x, n)
    return _two_steps(e, x, n)


def _two_steps(e: Emitter, x: Val, n: Val) -> Val:
    """First by what is beyond the exponent's range, then by a power of two that is within.

    Only the second product can round: where the first is subnormal, the second is zero.
    """
    bias = 1023.0 if x.ty == "double" else 127.0
    n = _clamp(e, n, 2 - 2 * bias, 2 * bias)
    within = _clamp(e, n, 1 - bias, bias)
    beyond = e.binary("fsub", n, within)
    result = e.binary("fmul", x, _power(e, beyond, bias))
    return e.binary("fmul", result, _power(e, within, bias))


def _clamp(e: Emitter, n: Val, least: float, most: float) -> Val:
    low, high = e.real(least, n.ty), e.real(most, n.ty)
    n = e.choose(e.compare("fcmp olt", n, low), low, n)
    return e.choose(e.compare("fcmp ogt", n, high), high, n)


def _power(e: Emitter, n: Val, bias: float) -> Val:
    """2**n: an addition leaves the biased exponent in the low bits, a shift puts it in place."""
    digits, ty = (52, "i64") if n.ty == "double" else (23, "i32")
    low = e.binary("fadd", n, e.real(1.5 * 2.0**digits + bias, n.ty))
    bits = e.binary("shl", e.convert("bitcast", low, ty), e.number(digits, ty))
    return e.convert("bitcast", bits, n.ty)


def _instruction(e: Emitter, x: Val, n: Val) -> Val:
    """vscalefps or vscalefpd on as many lanes as fit a register, piece by piece."""
    if not x.n:
        return e.lane(_instruction(e, e.splat(x, 2), e.splat(n, 2)), 0)
    least, most = (2, 8) if x.ty == "double" else (4, 16)
    return join(e, [(_register(e, *some), count) for some, count in parts(e, (x, n), least, most)])


def parts(
    e: Emitter, operands: Sequence[Val], least: int, most: int
) -> Iterator[tuple[list[Val], int]]:
    """Vectors of one length in registers of ``least`` to ``most`` lanes, with the lanes used."""
    for start in range(0, operands[0].n, most):
        count = min(most, operands[0].n - start)
        width = max(least, 1 << (count - 1).bit_length())
        lanes = [start + i if i < count else -1 for i in range(width)]
        whole = lanes == list(range(operands[0].n))
        yield [v if whole else e.shuffle(v, None, lanes) for v in operands], count


def _register(e: Emitter, x: Val, n: Val) -> Val:
    bits = x.n * (64 if x.ty == "double" else 32)
    name = f"llvm.x86.avx512.mask.scalef.p{'d' if x.ty == 'double' else 's'}.{bits}"
    mask = e.number(-1, f"i{max(8, x.n)}")
    rounding = (e.number(4, "i32"),) if bits == 512 else ()
    return e.intrinsic(name, x.ty, x.n, x, n, x, mask, *rounding, plain=True)


def join(e: Emitter, pieces: list[tuple[Val, int]]) -> Val:
    """The vector that was taken apart."""
    result, have = pieces[0]
    if len(pieces) == 1:
        return result if have == result.n else e.shuffle(result, None, range(have))
    for piece, count in pieces[1:]:
        lanes = [i if i < count else -1 for i in range(have)]
        wide = e.shuffle(piece, None, lanes)
        padded = e.shuffle(result, None, range(have)) if result.n != have else result
        result = e.shuffle(padded, wide, [*range(have), *range(have, have + count)])
        have += count
    return result
