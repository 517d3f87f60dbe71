"""The JIT: targets, compiling, loading, symbols."""

import ctypes
import dataclasses
import subprocess
import sys
import threading

import numpy as np
import pytest

from graphc.runtime import jit, native

F32, F64, I64, U8, BOOL = (np.dtype(name) for name in ("f4", "f8", "i8", "u1", "?"))
AT = native.context_offsets()

def vector(size: int) -> np.ndarray:
    return np.arange(1, size + 1, dtype=F32)


def misaligned(size: int) -> np.ndarray:
    return np.zeros(4 * size + 1, U8)[1:].view(F32)


SIMPLE = """
@table = internal constant [2 x double] [double 1.5, double 2.5]
declare double @llvm.fabs.f64(double)
declare double @cos(double)
declare i64 @given(i64)
define double @f(i64 %i) {
  %local = alloca double
  %at = getelementptr double, ptr @table, i64 %i
  %value = load double, ptr %at
  store double %value, ptr %local
  %again = load double, ptr %local
  %cos = call double @cos(double %again)
  ret double %cos
}
define i64 @g(i64 %x) {
  %y = call i64 @given(i64 %x)
  ret i64 %y
}
"""


class TestJit:
    @pytest.mark.parametrize(
        "name", ["host", "generic", "avx2", "avx512", "avx512vnni", "avx512bf16"]
    )
    def test_compile_load_and_call(self, name: str) -> None:
        target = jit.named_target(name)
        data = jit.compile_object(SIMPLE, target)
        if not target.is_host:
            pytest.skip(f"this machine does not run {name}")
        given = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda x: x + 1)
        address = ctypes.cast(given, ctypes.c_void_p).value
        assert address is not None
        loaded = jit.load_object(data, {"given": address}, exports=["f"])
        f = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int64)(loaded.address("f"))
        g = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(loaded.address("g"))
        assert f(1) == pytest.approx(np.cos(2.5), rel=1e-15)
        assert g(41) == 42

    def test_symbols_that_nobody_defines(self) -> None:
        data = jit.compile_object(SIMPLE, jit.named_target("generic"))
        with pytest.raises(jit.JitError, match="cannot load 'g': it needs given, which nothing"):
            jit.load_object(data, exports=["g"])
        loaded = jit.load_object(data, {"given": 1})
        with pytest.raises(jit.JitError, match="cannot load 'h': the object does not define it"):
            loaded.address("h")

    def test_text_and_objects_that_llvm_refuses(self) -> None:
        target = jit.named_target("generic")
        with pytest.raises(jit.JitError, match="expected"):
            jit.compile_object("define nonsense", target)
        with pytest.raises(jit.JitError, match="use of undefined value '%x'"):
            jit.compile_object("define i64 @f() {\n  ret i64 %x\n}", target)
        with pytest.raises(jit.JitError, match="cannot load the object"):
            jit.load_object(b"not an object")

    def test_the_garbage_collector_may_find_what_llvm_has_refused(self) -> None:
        # Frames of the errors are in a cycle. LLVM parses the text, and then finds fault with it.
        code = """if True:
            import gc
            from graphc.runtime import jit
            text = "define void @f() {\\n %x = add i32 %y, 1\\n %y = add i32 1, 1\\n ret void\\n}"
            for _ in range(20):
                try:
                    jit.compile_object(text, jit.named_target("generic"))
                except jit.JitError as error:
                    error.itself = error
                gc.collect()
        """
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_an_object_that_was_never_begun_is_given_back(self) -> None:
        # As a handler of signals that raises leaves one; what ``__del__`` raises fails the test.
        jit.LoadedObject.__new__(jit.LoadedObject)

    def test_other_architectures(self) -> None:
        here = jit.named_target("generic")
        arch = "x86_64" if here.triple.startswith("aarch64") else "aarch64"
        there = dataclasses.replace(here, triple=f"{arch}-unknown-linux-gnu", cpu="", is_host=False)
        assert jit.compile_object(SIMPLE, there)[:4] == b"\x7fELF"
        assembly = 'define void @f() {\n  call void asm sideeffect "nop", ""()\n  ret void\n}'
        with pytest.raises(jit.JitError, match="inline assembly"):
            jit.compile_object(assembly, there)

    def test_local_variables_become_registers(self) -> None:
        text = jit.emit_assembly(SIMPLE, jit.named_target("generic"))
        assert "f:" in text
        assert "rsp)" not in text
        assert "[sp" not in text

    def test_compiling_in_threads(self) -> None:
        target = jit.named_target("generic")
        expected = jit.compile_object(SIMPLE, target)
        objects: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: objects.append(jit.compile_object(SIMPLE, target)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert objects == [expected] * 4

    def test_the_variable_overrides_the_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("GRAPHC_TARGET", raising=False)
        assert jit.host_target().name == "host"
        assert jit.host_target().is_host
        monkeypatch.setenv("GRAPHC_TARGET", "generic")
        assert jit.host_target() == jit.named_target("generic")
        monkeypatch.setenv("GRAPHC_TARGET", "abacus")
        with pytest.raises(ValueError, match="unknown CPU target 'abacus': expected one of host"):
            jit.host_target()

    def test_a_target_that_would_crash_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        has = jit._V4 - {"avx512bw", "avx512f"}
        monkeypatch.setattr(jit, "_host_features", lambda: frozenset(has))
        monkeypatch.setenv("GRAPHC_TARGET", "avx512")
        jit.named_target.cache_clear()
        try:
            with pytest.raises(ValueError, match="lacks avx512bw, avx512f; it can run host, "):
                jit.host_target()
        finally:
            jit.named_target.cache_clear()

    def test_facts_of_the_named_targets(self) -> None:
        avx2, avx512 = jit.named_target("avx2"), jit.named_target("avx512")
        assert (avx2.lanes(4), avx2.lanes(8), avx2.has_fma, avx2.has_f16c) == (8, 4, True, True)
        assert (avx512.lanes(1), avx512.has_avx512, avx512.has_vnni) == (64, True, False)
        vnni, bf16 = jit.named_target("avx512vnni"), jit.named_target("avx512bf16")
        assert (vnni.has_vnni, vnni.has_bf16) == (True, False)
        assert (bf16.has_vnni, bf16.has_bf16) == (True, True)
        assert jit.named_target("generic").lanes(4) == 4
        texts = {jit.named_target(n).description for n in ("generic", "avx2", "avx512")}
        assert len(texts) == 3
