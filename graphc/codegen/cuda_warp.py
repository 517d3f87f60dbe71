"""Copies into shared memory and products of tensor cores in CUDA C.

What needs assembly is a function of the prelude; a test's shim has functions of the same names.
"""

from __future__ import annotations

from graphc.codegen.cuda_expr import Expressions, bare
from graphc.loop.ir import AsyncCommit, AsyncCopy, AsyncWait, Scope, Stmt, WarpProduct

__all__ = ["WARP_PRELUDE", "print_warp"]

_KINDS = {"f16": "gc_f16", "bf16": "gc_bf16", "i8": "gc_i8", "u8": "gc_u8"}


def print_warp(exprs: Expressions, stmt: Stmt, lane: str) -> None:
    """A copy that is not waited for, a wait, or a product of a warp by its thread ``lane``."""
    if isinstance(stmt, AsyncCommit):
        exprs.out.add("gc_copy_commit();")
        return
    if isinstance(stmt, AsyncWait):
        exprs.out.add(f"gc_copy_wait({stmt.pending});")
        return
    if isinstance(stmt, AsyncCopy):
        to, place, cond = exprs.texts(stmt.index, stmt.value.index, stmt.cond)
        target, source = (exprs.names[b] for b in (stmt.buffer, stmt.value.buffer))
        size = stmt.count * stmt.buffer.dtype.size
        exprs.out.add(
            f"gc_copy_async({target} + {to}, {source} + {place}, {size}, {bare(cond)});"
        )
        return
    assert isinstance(stmt, WarpProduct)
    left, right = exprs.texts(stmt.left.index, stmt.right.index)
    held = stmt.left.buffer.scope is Scope.LOCAL
    steps = (*stmt.right_steps,) if held else (*stmt.left_steps, *stmt.right_steps)
    numbers = ", ".join(map(str, (*stmt.shape, *steps)))
    kind = _KINDS.get(stmt.left.dtype.code)
    function = "gc_product_tf32<" if kind is None else f"gc_product<{kind}, "
    if held:
        function = f"gc_product_held<{kind}, "
    exprs.out.add(
        f"{function}{numbers}>({exprs.names[stmt.total]}, "
        f"{exprs.names[stmt.left.buffer]} + {left}, {exprs.names[stmt.right.buffer]} + {right}, "
        f"{lane});"
    )


WARP_PRELUDE = r"""
#ifdef __CUDA_ARCH__
// Copies into shared memory, zeros where not `inside`; nothing is read then.
#if __CUDA_ARCH__ < 800
#define gc_copy_async(to, from, size, inside) gc_copy<size>(to, from, inside)
#define gc_copy_commit()
#define gc_copy_wait(pending)
template <int N> static __device__ __forceinline__ void gc_copy(
    void* to, const void* from, bool inside) {
  struct alignas(N) Piece { unsigned int word[N / 4]; };
  *static_cast<Piece*>(to) = inside ? *static_cast<const Piece*>(from) : Piece();
}
#else
#define gc_copy_async(to, from, size, inside) gc_copy<size>(to, from, inside)
#define gc_copy_commit() asm volatile("cp.async.commit_group;" ::: "memory")
#define gc_copy_wait(pending) asm volatile("cp.async.wait_group %0;" :: "n"(pending) : "memory")
template <int N> static __device__ __forceinline__ void gc_copy(
    void* to, const void* from, bool inside) {
  const unsigned int place = (unsigned int)__cvta_generic_to_shared(to);
  const unsigned int size = inside ? N : 0;
  if (N == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(place), "l"(from), "r"(size) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :: "r"(place), "l"(from), "n"(N), "r"(size) : "memory");
}
// Four matrices of 8 rows of 16 bytes, whose rows the lanes name in turn.
static __device__ __forceinline__ void gc_matrices(unsigned int* out, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"((unsigned int)__cvta_generic_to_shared(row)) : "memory");
}
static __device__ __forceinline__ void gc_matrices_turned(unsigned int* out, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"((unsigned int)__cvta_generic_to_shared(row)) : "memory");
}
#define GC_MMA(name, type, constraint, instruction)                                           \
  static __device__ __forceinline__ void name(                                                \
      type* total, const unsigned int* left, const unsigned int* right) {                     \
    asm volatile("mma.sync.aligned." instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, "      \
                 "{%8, %9}, {%0, %1, %2, %3};"                                                \
                 : constraint(total[0]), constraint(total[1]), constraint(total[2]),          \
                   constraint(total[3])                                                       \
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]),     \
                   "r"(right[1]));                                                            \
  }
GC_MMA(gc_mma_f16, float, "+f", "m16n8k16.row.col.f32.f16.f16.f32")
GC_MMA(gc_mma_bf16, float, "+f", "m16n8k16.row.col.f32.bf16.bf16.f32")
GC_MMA(gc_mma_tf32, float, "+f", "m16n8k8.row.col.f32.tf32.tf32.f32")
GC_MMA(gc_mma_i8, int, "+r", "m16n8k32.row.col.s32.s8.s8.s32")
GC_MMA(gc_mma_u8, int, "+r", "m16n8k32.row.col.s32.u8.s8.s32")
#endif
#endif

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define GC_FACTORS(kind, element, sum)                                                        \
  struct gc_##kind {                                                                          \
    typedef element T;                                                                        \
    typedef sum S;                                                                            \
    static __device__ __forceinline__ void mma(                                               \
        S* total, const unsigned int* left, const unsigned int* right) {                      \
      gc_mma_##kind(total, left, right);                                                      \
    }                                                                                         \
  };
GC_FACTORS(f16, unsigned short, float)
GC_FACTORS(bf16, unsigned short, float)
GC_FACTORS(i8, signed char, int)
GC_FACTORS(u8, unsigned char, int)

// Some terms of a product: those of `left`, which registers hold, and from `right` on.
template <class F, int M, int N, int RK, int RN, class B>
static __device__ __forceinline__ void gc_terms(
    typename F::S* total, const unsigned int (*left)[4], const B* right, int lane) {
  const int wide = 16 / sizeof(B);
#pragma unroll
  for (int j = 0; j < N / 16; ++j) {
    unsigned int b[4];
    if (RK == 1)
      gc_matrices(b, right + (j * 16 + lane / 16 * 8 + lane % 8) * RN + lane / 8 % 2 * wide);
    else
      gc_matrices_turned(b, right + lane % 16 * RK + j * 16 + lane / 16 * 8);
#pragma unroll
    for (int i = 0; i < M / 16; ++i) {
      F::mma(total + (i * (N / 8) + 2 * j) * 4, left[i], b);
      F::mma(total + (i * (N / 8) + 2 * j + 1) * 4, left[i], b + 2);
    }
  }
}

// A warp adds a product of M x K by K x N elements of shared memory to its sums. L* and R* are the
// steps of rows and columns.
template <class F, int M, int N, int K, int LM, int LK, int RK, int RN, class A, class B>
static __device__ __forceinline__ void gc_product(
    typename F::S* total, const A* left, const B* right, int lane) {
  const int wide = 16 / sizeof(A);
  __syncwarp();  // products are of whole warps, and a branch before may have parted them
#pragma unroll 4  // of long sums, what comes later would take registers now
  for (int k = 0; k < K; k += 2 * wide) {
    unsigned int a[M / 16][4];
#pragma unroll
    for (int i = 0; i < M / 16; ++i) {
      if (LK == 1)
        gc_matrices(a[i], left + (i * 16 + lane % 16) * LM + k + lane / 16 * wide);
      else
        gc_matrices_turned(
            a[i], left + (k + lane / 16 * 8 + lane % 8) * LK + i * 16 + lane / 8 % 2 * 8);
    }
    gc_terms<F, M, N, RK, RN>(total, a, right + k * RK, lane);
  }
}

// The same by elements that threads hold as they hold the sums of a product.
template <class F, int M, int N, int K, int RK, int RN, class B>
static __device__ __forceinline__ void gc_product_held(
    typename F::S* total, const unsigned short* left, const B* right, int lane) {
  __syncwarp();
#pragma unroll
  for (int k = 0; k < K; k += 16) {
    unsigned int a[M / 16][4];
#pragma unroll
    for (int i = 0; i < M / 16; ++i) {
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const unsigned short* pair = left + (i * (K / 8) + k / 8) * 4 + part * 2;
        a[i][part] = __byte_perm(pair[0], pair[1], 0x5410);
      }
    }
    gc_terms<F, M, N, RK, RN>(total, a, right + k * RK, lane);
  }
}

// A float with 10 bits behind the point, the nearest.
static __device__ __forceinline__ unsigned int gc_tf32(float x) {
  const unsigned int bits = gc_bits<unsigned int>(x);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}

template <int M, int N, int K, int LM, int LK, int RK, int RN>
static __device__ __forceinline__ void gc_product_tf32(
    float* total, const float* left, const float* right, int lane) {
  const int row = lane / 4, column = lane % 4;
  __syncwarp();
#pragma unroll
  for (int k = 0; k < K; k += 8) {
    unsigned int a[M / 16][4];
#pragma unroll
    for (int i = 0; i < M / 16; ++i) {
#pragma unroll
      for (int part = 0; part < 4; ++part)
        a[i][part] = gc_tf32(left[(i * 16 + row + part % 2 * 8) * LM +
                                  (k + column + part / 2 * 4) * LK]);
    }
#pragma unroll
    for (int j = 0; j < N / 8; ++j) {
      unsigned int b[2];
#pragma unroll
      for (int part = 0; part < 2; ++part)
        b[part] = gc_tf32(right[(k + column + part * 4) * RK + (j * 8 + row) * RN]);
#pragma unroll
      for (int i = 0; i < M / 16; ++i) gc_mma_tf32(total + (i * (N / 8) + j) * 4, a[i], b);
    }
  }
}
#endif
"""
