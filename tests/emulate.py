"""AVX-512 where there is none: kernels scheduled for it, run by AVX2.

LLVM takes vectors of 512 bits and their masks apart for a CPU that has shorter registers; what it
cannot, the five instructions that the code generator names, are functions here. Slow, and no proof
that LLVM's AVX-512 instructions are right, but of everything above them: schedules, tiles, edges,
masks, packed panels.
"""

from __future__ import annotations

import re
import sys

import pytest

from graphc.runtime import jit

FEATURES = jit._V4 | {"avx512vnni", "avx512bf16"}
_INTRINSIC = re.compile(r"@(llvm\.x86\.avx512[\w.]*)")


def install() -> None:
    """From now on this process takes itself for one on a CPU with AVX-512, VNNI and bfloat16.

    Raises:
      UsageError: the CPU has no AVX2.
    """
    if not jit.named_target("avx2").is_host:
        raise pytest.UsageError("AVX-512 is emulated by AVX2, which this machine's CPU lacks")
    if jit.named_target("avx512bf16").is_host:
        return
    found = jit._host_features() | FEATURES
    compiled, assembly = jit.compile_object, jit.emit_assembly

    def compile_object(ir: str, target: jit.CpuTarget) -> bytes:
        if target.has_avx512:
            return compiled(emulated(ir), jit.named_target("avx2"))
        return compiled(ir, target)

    def emit_assembly(ir: str, target: jit.CpuTarget, *, comments: bool = True) -> str:
        # This machine's own CPU, which LLVM knows, has not what its target now says.
        real = jit.named_target("avx512bf16") if target.name == "host" else target
        return assembly(ir, real, comments=comments)

    jit._host_features = lambda: found
    jit.named_target.cache_clear()
    for new, old in ((compile_object, compiled), (emit_assembly, assembly)):
        for module in list(sys.modules.values()):
            if getattr(module, old.__name__, None) is old:
                setattr(module, old.__name__, new)


def emulated(ir: str) -> str:
    """LLVM text with functions in place of the intrinsics of AVX-512."""
    names = sorted(set(_INTRINSIC.findall(ir)))
    if not names:
        return ir
    text = _INTRINSIC.sub(lambda found: "@emulated." + found[1][len("llvm.x86.") :], ir)
    # What has no bfloat16 would hand it over as float, and nothing computes with it.
    text = text.replace(" x bfloat>", " x i16>")
    for name in names:
        ir_name = "emulated." + name[len("llvm.x86.") :]
        text = re.sub(rf"^declare [^\n]*@{re.escape(ir_name)}\([^\n]*\n?", "", text, flags=re.M)
        text += "\n" + _definition(name, ir_name)
    for fma in sorted(set(re.findall(r"<\d+ x float> @llvm\.fma\.v\d+f32(?=\()", text))):
        if f"declare {fma}(" not in text:
            text += f"declare {fma}({', '.join(3 * [fma.partition(' @')[0]])})\n"
    return text


def _definition(name: str, as_name: str) -> str:
    bits = int(name.rpartition(".")[2])
    if "scalef" in name:
        return _scalef(as_name, bits, double=".pd." in name)
    lanes = bits // 32
    if "vpdpbusd" in name:
        return _dot(as_name, lanes)
    if "dpbf16ps" in name:
        return _pairs(as_name, lanes)
    assert "pmaddw" in name, name
    return _madd(as_name, lanes)


def _function(name: str, result: str, parameters: str, lines: list[str]) -> str:
    body = "".join(f"  {line}\n" for line in lines)
    return f"define internal {result} @{name}({parameters}) alwaysinline {{\n{body}}}\n"


def _scalef(name: str, bits: int, *, double: bool) -> str:
    """x * 2**n for an integer n, rounded once: in float64, for float64 in three steps."""
    n = bits // (64 if double else 32)
    element, limit, steps = ("double", "2100.0", 3) if double else ("float", "400.0", 1)
    ty, wide, whole = f"<{n} x {element}>", f"<{n} x double>", f"<{n} x i64>"
    low, high = f"splat ({element} -{limit})", f"splat ({element} {limit})"
    lines = [
        f"%below = fcmp olt {ty} %n, {low}",
        f"%a = select <{n} x i1> %below, {ty} {low}, {ty} %n",
        f"%above = fcmp ogt {ty} %a, {high}",
        f"%b = select <{n} x i1> %above, {ty} {high}, {ty} %a",
        f"%nan = fcmp uno {ty} %n, %n",
        f"%c = select <{n} x i1> %nan, {ty} zeroinitializer, {ty} %b",
        f"%rest0 = fptosi {ty} %c to {whole}",
        f"%m0 = {'freeze' if double else 'fpext'} {ty} %x{'' if double else f' to {wide}'}",
    ]
    for k in range(steps):
        part = f"%rest{k}"
        if k + 1 < steps:
            # A third of it, then half of what is left.
            part = f"%part{k}"
            lines += [
                f"{part} = sdiv {whole} %rest{k}, splat (i64 {steps - k})",
                f"%rest{k + 1} = sub {whole} %rest{k}, {part}",
            ]
        lines += [
            f"%exponent{k} = add {whole} {part}, splat (i64 1023)",
            f"%bits{k} = shl {whole} %exponent{k}, splat (i64 52)",
            f"%power{k} = bitcast {whole} %bits{k} to {wide}",
            f"%m{k + 1} = fmul {wide} %m{k}, %power{k}",
        ]
    lines += [
        f"%r = {'freeze' if double else 'fptrunc'} {wide} %m{steps}{'' if double else f' to {ty}'}",
        f"%result = select <{n} x i1> %nan, {ty} %n, {ty} %r",
        f"ret {ty} %result",
    ]
    more = ", i32 %rounding" if bits == 512 else ""
    parameters = f"{ty} %x, {ty} %n, {ty} %source, i{max(8, n)} %mask{more}"
    return _function(name, ty, parameters, lines)


def _dot(name: str, lanes: int) -> str:
    """VPDPBUSD: four products of an unsigned and a signed byte, added to an int32."""
    total, products = f"<{lanes} x i32>", f"<{4 * lanes} x i32>"
    lines = [
        f"%ua = zext <{4 * lanes} x i8> %a to {products}",
        f"%sb = sext <{4 * lanes} x i8> %b to {products}",
        f"%p = mul {products} %ua, %sb",
    ]
    before = "%c"
    for k in range(4):
        picks = ", ".join(f"i32 {4 * lane + k}" for lane in range(lanes))
        lines += [
            f"%q{k} = shufflevector {products} %p, {products} poison, <{lanes} x i32> <{picks}>",
            f"%t{k} = add {total} {before}, %q{k}",
        ]
        before = f"%t{k}"
    lines.append(f"ret {total} {before}")
    bytes_ = f"<{4 * lanes} x i8>"
    return _function(name, total, f"{total} %c, {bytes_} %a, {bytes_} %b", lines)


def _madd(name: str, lanes: int) -> str:
    """PMADDWD: the sum of two products of int16 as an int32."""
    total, halves = f"<{lanes} x i32>", f"<{2 * lanes} x i16>"
    products = f"<{2 * lanes} x i32>"
    even, odd = (", ".join(f"i32 {2 * lane + k}" for lane in range(lanes)) for k in range(2))
    lines = [
        f"%sa = sext {halves} %a to {products}",
        f"%sb = sext {halves} %b to {products}",
        f"%p = mul {products} %sa, %sb",
        f"%q0 = shufflevector {products} %p, {products} poison, <{lanes} x i32> <{even}>",
        f"%q1 = shufflevector {products} %p, {products} poison, <{lanes} x i32> <{odd}>",
        f"%t = add {total} %q0, %q1",
        f"ret {total} %t",
    ]
    return _function(name, total, f"{halves} %a, {halves} %b", lines)


def _pairs(name: str, lanes: int) -> str:
    """VDPBF16PS: two products of bfloat16 added to a float32, the odd one first."""
    total, pairs, words = f"<{lanes} x float>", f"<{2 * lanes} x i16>", f"<{lanes} x i32>"
    lines = []
    for side in "ab":
        lines += [
            f"%w{side} = bitcast {pairs} %{side} to {words}",
            f"%l{side} = shl {words} %w{side}, splat (i32 16)",
            f"%h{side} = and {words} %w{side}, splat (i32 -65536)",
            f"%even{side} = bitcast {words} %l{side} to {total}",
            f"%odd{side} = bitcast {words} %h{side} to {total}",
        ]
    lines += [
        f"%t = call {total} @llvm.fma.v{lanes}f32({total} %odda, {total} %oddb, {total} %c)",
        f"%u = call {total} @llvm.fma.v{lanes}f32({total} %evena, {total} %evenb, {total} %t)",
        f"ret {total} %u",
    ]
    return _function(name, total, f"{total} %c, {pairs} %a, {pairs} %b", lines)
