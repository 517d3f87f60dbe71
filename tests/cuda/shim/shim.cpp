// The fibers that stand for the threads of a block, and who goes on when. Shared memory is poisoned
// for every block.
#include "shim.hpp"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <ucontext.h>
#include <vector>

extern "C" {
extern char __start_shim_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_shim_shared[] __attribute__((weak, visibility("hidden")));
}

Dim threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

enum class State { ready, block, warp, done };

struct Fiber {
  ucontext_t start;
  jmp_buf point;
  State state = State::ready;
  bool begun = false;
  Dim index;
  int number = 0;
  int line = 0;
  unsigned mask = 0;
  int partner = -1;             // the lane whose value a shuffle takes; -1 for __syncwarp
  unsigned long long given = 0, taken = 0;
  void (*collective)(Fiber**) = nullptr;  // what a warp does together, when all lanes have come
  const void* in[3] = {};
  void* out = nullptr;
};

static std::vector<Fiber> fibers;
static std::vector<std::vector<char>> stacks;
static Fiber* current;
static jmp_buf scheduler;
static void (*body)(void**);
static void** arguments;
static std::string fault;
static ucontext_t unused;

// What the detector of races knows an access by (races.hpp).
static int thread_number, block_number;
static unsigned generation, warp_generation[32];
static void touch(const void* address, size_t size, bool writes);
static void begin_block();

static void enter() {
  body(arguments);
  current->state = State::done;
  _longjmp(scheduler, 1);
}

static void give_way(State state, int line) {
  current->state = state;
  current->line = line;
  if (_setjmp(current->point) == 0) _longjmp(scheduler, 1);
}

static void resume(Fiber& fiber) {
  current = &fiber;
  threadIdx = fiber.index;
  thread_number = fiber.number;
  if (_setjmp(scheduler) != 0) return;
  if (fiber.begun) _longjmp(fiber.point, 1);
  fiber.begun = true;
  setcontext(&fiber.start);
}

static std::string where(const Fiber& f) {
  return "thread " + std::to_string(f.number) +
         (f.state == State::done ? " has ended" : " waits in line " + std::to_string(f.line));
}

// Whether the lanes of a shuffle have all come to it; then they have each other's values.
static bool release_warp(Fiber& first) {
  const int warp = first.number / 32 * 32;
  for (int lane = 0; lane < 32; ++lane) {
    if (!(first.mask >> lane & 1u)) continue;
    if (warp + lane >= (int)fibers.size()) {
      fault = "a mask with lanes that are no threads, in line " + std::to_string(first.line);
      return false;
    }
    const Fiber& f = fibers[warp + lane];
    if (f.state != State::warp || f.line != first.line || f.mask != first.mask) return false;
  }
  const unsigned mask = first.mask;
  if (first.collective != nullptr) {
    Fiber* lanes[32];
    for (int lane = 0; lane < 32; ++lane) {
      lanes[lane] = &fibers[warp + lane];
      if (lanes[lane]->collective != first.collective) {
        fault = "the lanes of a warp do not do the same, in line " + std::to_string(first.line);
        return false;
      }
    }
    first.collective(lanes);
    for (Fiber* f : lanes) {
      f->collective = nullptr;
      f->state = State::ready;
    }
    return true;
  }
  if (!(mask >> (first.number - warp) & 1u)) {
    fault = where(first) + " and is not in its mask";
    return false;
  }
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1u)) continue;
    Fiber& f = fibers[warp + lane];
    if (f.partner >= 0) f.taken = fibers[warp + f.partner].given;
  }
  // A shuffle is no fence: only __syncwarp puts accesses to memory in order.
  if (first.partner < 0 && mask == 0xffffffffu) ++warp_generation[warp / 32];
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1u) fibers[warp + lane].state = State::ready;
  return true;
}

static bool release_block() {
  for (const Fiber& f : fibers)
    if (f.state != State::block || f.line != fibers[0].line) return false;
  for (Fiber& f : fibers) f.state = State::ready;
  ++generation;
  return true;
}

static void run_block(int threads, bool backwards) {
  const size_t size = 1 << 16;
  fibers.assign(threads, Fiber());
  if ((int)stacks.size() < threads) stacks.resize(threads, std::vector<char>(size));
  for (int i = 0; i < threads; ++i) {
    Fiber& f = fibers[i];
    f.number = i;
    f.index.x = i % blockDim.x;
    f.index.y = i / blockDim.x;
    f.index.z = 0;
    getcontext(&f.start);
    f.start.uc_stack.ss_sp = stacks[i].data();
    f.start.uc_stack.ss_size = size;
    f.start.uc_link = &unused;
    makecontext(&f.start, enter, 0);
  }
  while (fault.empty()) {
    for (int i = 0; i < threads; ++i) {
      Fiber& f = fibers[backwards ? threads - 1 - i : i];
      if (f.state == State::ready) resume(f);
    }
    bool released = false, ended = true;
    for (Fiber& f : fibers) {
      if (f.state == State::warp && release_warp(f)) released = true;
      ended = ended && f.state == State::done;
    }
    if (ended) return;
    if (!released && !release_block() && fault.empty()) {
      const Fiber* other = nullptr;
      const Fiber* first = nullptr;
      for (const Fiber& f : fibers)
        if (first == nullptr && f.state != State::done) first = &f;
      for (const Fiber& f : fibers)
        if (other == nullptr && (f.state != first->state || f.line != first->line)) other = &f;
      fault = "a divergent barrier: " + where(*first) +
              (other == nullptr ? ", others do not come" : ", " + where(*other));
    }
  }
}

const char* launch(void (*kernel)(void**), void** args, long long blocks, int x, int y,
                   bool together, bool backwards) {
  fault.clear();
  body = kernel;
  arguments = args;
  blockDim = Dim{(unsigned)x, (unsigned)y, 1};
  gridDim = Dim{(unsigned)blocks, 1, 1};
  for (long long b = 0; b < blocks && fault.empty(); ++b) {
    blockIdx = Dim{(unsigned)(backwards ? blocks - 1 - b : b), 0, 0};
    block_number = (int)blockIdx.x;
    begin_block();
    if (__start_shim_shared != nullptr)
      memset(__start_shim_shared, 0xff, __stop_shim_shared - __start_shim_shared);
    if (together) {
      run_block(x * y, backwards);
      continue;
    }
    for (int i = 0; i < x * y; ++i) {  // nobody waits for anybody
      const int number = thread_number = backwards ? x * y - 1 - i : i;
      threadIdx = Dim{(unsigned)(number % x), (unsigned)(number / x), 0};
      kernel(args);
    }
  }
  return fault.c_str();
}

unsigned long long exchange(unsigned mask, unsigned long long value, int lane_mask, int line) {
  current->given = value;
  current->mask = mask;
  current->partner = (current->number % 32) ^ lane_mask;
  give_way(State::warp, line);
  return current->taken;
}

void sync_warp(int line) {
  current->mask = 0xffffffffu;
  current->partner = -1;
  give_way(State::warp, line);
}

void sync_block(int line) { give_way(State::block, line); }

void misaligned(size_t bytes, int line) {
  fault = "a misaligned access of " + std::to_string(bytes) + " bytes in line " +
          std::to_string(line);
}

}  // namespace shim

#include "warp.hpp"
#include "races.hpp"
