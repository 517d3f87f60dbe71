// Accesses that no barrier puts in order. With SHIM_RACES the compiler calls the functions below for
// every access of a kernel (-fsanitize=thread, linked without its library); of each byte of shared
// and of global memory the last write and the last readers are remembered, and by how many barriers
// had passed. What threads of two blocks do in one launch is never in order.
#pragma once

#ifndef SHIM_RACES

namespace shim {
static void touch(const void*, size_t, bool) {}
static void begin_block() { forget_copies(); }
}  // namespace shim

#else

namespace shim {

struct Access {
  int block, thread;
  unsigned generation, warp_generation;
};
struct Cell {
  Access write, read, other;  // `other`: the last reader that is not the thread of `read`
};
struct Range {
  uintptr_t begin, end;
  Cell* cells;
};
static Range ranges[64];
static int range_count = 0;
static bool watching = false;
static char race[160];

static bool unordered(const Access& a) {
  if (a.block < 0 || (a.block == block_number && a.thread == thread_number)) return false;
  if (a.block != block_number) return true;
  if (a.generation != generation) return false;
  const int warp = thread_number / 32;
  return a.thread / 32 != warp || a.warp_generation == warp_generation[warp];
}

static void report(const Access& a, const char* did, bool writes, int range, long at) {
  if (race[0] == 0)
    snprintf(race, sizeof race,
             "a race: thread %d of block %d %s byte %ld of %s %d, which thread %d of block %d %s",
             thread_number, block_number, writes ? "writes" : "reads", at,
             range == 0 ? "shared memory" : "argument", range, a.thread, a.block, did);
}

static void record(uintptr_t first, size_t size, bool writes) {
  if (!watching) return;
  int r = 0;
  while (r < range_count && (first < ranges[r].begin || first >= ranges[r].end)) ++r;
  if (r == range_count) return;
  Access now;
  now.block = block_number;
  now.thread = thread_number;
  now.generation = generation;
  now.warp_generation = warp_generation[thread_number / 32];
  for (uintptr_t p = first; p < first + size && p < ranges[r].end; ++p) {
    Cell& cell = ranges[r].cells[p - ranges[r].begin];
    const long at = (long)(p - ranges[r].begin);
    if (unordered(cell.write)) report(cell.write, "has written", writes, r, at);
    if (writes) {
      if (unordered(cell.read)) report(cell.read, "has read", writes, r, at);
      if (unordered(cell.other)) report(cell.other, "has read", writes, r, at);
      cell.write = now;
    } else {
      if (cell.read.thread != thread_number || cell.read.block != block_number)
        cell.other = cell.read;
      cell.read = now;
    }
  }
}

static void touch(const void* address, size_t size, bool writes) {
  record((uintptr_t)address, size, writes);
}

static void watch(int number, const char* begin, size_t size) {
  if (number >= 64) abort();
  free(ranges[number].cells);
  Cell* cells = (Cell*)malloc(sizeof(Cell) * (size + 1));
  memset(cells, 0xff, sizeof(Cell) * (size + 1));  // block -1: nobody
  ranges[number].begin = (uintptr_t)begin;
  ranges[number].end = (uintptr_t)begin + size;
  ranges[number].cells = cells;
  if (number >= range_count) range_count = number + 1;
}

static void begin_block() {
  forget_copies();
  generation = 0;
  memset(warp_generation, 0, sizeof warp_generation);
  if (__start_shim_shared != nullptr)
    watch(0, __start_shim_shared, __stop_shim_shared - __start_shim_shared);
  watching = true;
}

}  // namespace shim

// Memory that the next launch has as its arguments 1, 2, ...; 0 forgets all.
extern "C" void shim_watch(int number, const char* begin, long long size) {
  if (number == 0) shim::watch(0, nullptr, 0), shim::range_count = 1, shim::race[0] = 0;
  else shim::watch(number, begin, size);
}
extern "C" const char* shim_race() {
  shim::watching = false;
  return shim::race;
}

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define SHIM_ACCESS(n)                                                                  \
  void __tsan_read##n(void* p) { shim::record((uintptr_t)p, n, false); }     \
  void __tsan_write##n(void* p) { shim::record((uintptr_t)p, n, true); }     \
  void __tsan_unaligned_read##n(void* p) { shim::record((uintptr_t)p, n, false); } \
  void __tsan_unaligned_write##n(void* p) { shim::record((uintptr_t)p, n, true); }
SHIM_ACCESS(1)
SHIM_ACCESS(2)
SHIM_ACCESS(4)
SHIM_ACCESS(8)
SHIM_ACCESS(16)
void __tsan_read_range(void* p, size_t n) { shim::record((uintptr_t)p, n, false); }
void __tsan_write_range(void* p, size_t n) { shim::record((uintptr_t)p, n, true); }
}

#endif
