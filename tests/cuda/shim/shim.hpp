// CUDA C on a CPU, for tests: what kernels see of it. Every thread of a block is a fiber; barriers and
// shuffles are where fibers give way to each other. The rest is compiled once (shim.cpp).
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(n)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static __attribute__((section("shim_shared")))

#pragma GCC visibility push(hidden)

struct Dim { unsigned x = 1, y = 1, z = 1; };
extern Dim threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

// Runs a kernel; no message means that all went well. `together`: threads may wait for each other.
const char* launch(void (*kernel)(void**), void** args, long long blocks, int x, int y,
                   bool together, bool backwards);
void sync_block(int line);
void sync_warp(int line);
// What another lane has given.
unsigned long long exchange(unsigned mask, unsigned long long value, int lane_mask, int line);
void misaligned(size_t bytes, int line);

// What warps do together (warp.hpp).
void matrices(unsigned* out, const void* row, bool turned, int line);
void mma_f16(float* total, const unsigned* left, const unsigned* right, int line);
void mma_bf16(float* total, const unsigned* left, const unsigned* right, int line);
void mma_tf32(float* total, const unsigned* left, const unsigned* right, int line);
void mma_i8(int* total, const unsigned* left, const unsigned* right, int line);
void mma_u8(int* total, const unsigned* left, const unsigned* right, int line);
void copy_async(void* to, const void* from, int size, bool inside, int line);
void copy_commit();
void copy_wait(size_t pending);
unsigned byte_perm(unsigned low, unsigned high, unsigned selector);

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
  kernel(*reinterpret_cast<A*>(args[I])...);
}
template <class... A> static void call(void (*kernel)(A...), void** args) {
  call(kernel, args, std::index_sequence_for<A...>());
}

template <class T> static T shuffled(unsigned mask, T value, int lane_mask, int line) {
  unsigned long long given = 0;
  memcpy(&given, &value, sizeof value);
  const unsigned long long taken = exchange(mask, given, lane_mask, line);
  T result;
  memcpy(&result, &taken, sizeof result);
  return result;
}

// A pointer to elements that are read or written at once.
template <class T, class From> static T* aligned(From* address, int line) {
  if ((uintptr_t)address % alignof(T) != 0) {
    misaligned(alignof(T), line);
    alignas(64) static char nowhere[64];
    return (T*)nowhere;
  }
  return (T*)address;
}

}  // namespace shim

#pragma GCC visibility pop

#define __syncthreads() shim::sync_block(__LINE__)
#define __syncwarp() shim::sync_warp(__LINE__)
#define __shfl_xor_sync(mask, value, lane_mask) shim::shuffled(mask, value, lane_mask, __LINE__)
#define __byte_perm(low, high, selector) shim::byte_perm(low, high, selector)

#define GC_ALIGNED(address, ...) shim::aligned<__VA_ARGS__>(address, __LINE__)
#define gc_matrices(out, row) shim::matrices(out, row, false, __LINE__)
#define gc_matrices_turned(out, row) shim::matrices(out, row, true, __LINE__)
#define gc_mma_f16(total, left, right) shim::mma_f16(total, left, right, __LINE__)
#define gc_mma_bf16(total, left, right) shim::mma_bf16(total, left, right, __LINE__)
#define gc_mma_tf32(total, left, right) shim::mma_tf32(total, left, right, __LINE__)
#define gc_mma_i8(total, left, right) shim::mma_i8(total, left, right, __LINE__)
#define gc_mma_u8(total, left, right) shim::mma_u8(total, left, right, __LINE__)
#define gc_copy_async(to, from, size, inside) shim::copy_async(to, from, size, inside, __LINE__)
#define gc_copy_commit() shim::copy_commit()
#define gc_copy_wait(pending) shim::copy_wait(pending)

static inline unsigned long long atomicCAS(unsigned long long* place, unsigned long long old,
                                           unsigned long long value) {
  const unsigned long long found = *place;
  if (found == old) *place = value;
  return found;
}

// What a kernel is called by.
#define SHIM_ENTRY(kernel, together)                                                            \
  extern "C" const char* shim_##kernel(void** args, long long blocks, int x, int y, int back) { \
    return shim::launch([](void** a) { shim::call(kernel, a); }, args, blocks, x, y, together,  \
                        back);                                                                  \
  }
