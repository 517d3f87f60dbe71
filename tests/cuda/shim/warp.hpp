// What warps do together, and copies that threads do not wait for: as PTX describes them, lane by
// lane. Sums of a product are exact to float64 before they are rounded once.
#pragma once

namespace shim {

static void together(void (*collective)(Fiber**), int line) {
  current->collective = collective;
  current->mask = 0xffffffffu;
  give_way(State::warp, line);
}

// --- ldmatrix: four matrices of 8 rows of 16 bytes, whose rows the lanes name in turn --------------

template <bool turned> static void load_matrices(Fiber** lanes) {
  unsigned short rows[4][8][8];
  for (int lane = 0; lane < 32; ++lane) {
    if ((uintptr_t)lanes[lane]->in[0] % 16 != 0) {
      fault = "a misaligned row of a matrix in line " + std::to_string(lanes[lane]->line);
      return;
    }
    thread_number = lanes[lane]->number;
    touch(lanes[lane]->in[0], 16, false);
    memcpy(rows[lane / 8][lane % 8], lanes[lane]->in[0], 16);
  }
  for (int lane = 0; lane < 32; ++lane) {
    unsigned* out = (unsigned*)lanes[lane]->out;
    for (int k = 0; k < 4; ++k) {
      const int row = lane / 4, column = lane % 4 * 2;
      const unsigned short first = turned ? rows[k][column][row] : rows[k][row][column];
      const unsigned short second = turned ? rows[k][column + 1][row] : rows[k][row][column + 1];
      out[k] = first | (unsigned)second << 16;
    }
  }
}

void matrices(unsigned* out, const void* row, bool turned, int line) {
  current->in[0] = row;
  current->out = out;
  together(turned ? load_matrices<true> : load_matrices<false>, line);
}

// --- mma: 16 x 8 elements, the sums of products of 32 bytes of each row and column ------------------

static double half(unsigned short x) {
  const int exponent = x >> 10 & 31, rest = x & 1023;
  const double size = exponent == 31 ? (rest ? NAN : INFINITY)
                      : exponent == 0 ? ldexp(rest, -24) : ldexp(rest + 1024, exponent - 25);
  return x & 0x8000 ? -size : size;
}
static double brain(unsigned short x) {
  const unsigned bits = (unsigned)x << 16;
  float y;
  memcpy(&y, &bits, 4);
  return y;
}

struct F16 {
  typedef float Sum;
  static const int each = 2;  // elements of a register
  static double at(unsigned word, int k, bool) { return half((unsigned short)(word >> 16 * k)); }
};
struct BF16 {
  typedef float Sum;
  static const int each = 2;
  static double at(unsigned word, int k, bool) { return brain((unsigned short)(word >> 16 * k)); }
};
struct TF32 {
  typedef float Sum;
  static const int each = 1;
  static double at(unsigned word, int, bool) {  // what is beyond 10 bits is not looked at
    word &= 0xffffe000u;
    float y;
    memcpy(&y, &word, 4);
    return y;
  }
};
struct S8 {
  typedef int Sum;
  static const int each = 4;
  static double at(unsigned word, int k, bool) { return (signed char)(word >> 8 * k); }
};
struct U8 {
  typedef int Sum;
  static const int each = 4;
  static double at(unsigned word, int k, bool left) {
    return left ? (double)(unsigned char)(word >> 8 * k) : (double)(signed char)(word >> 8 * k);
  }
};

template <class T> static void multiply(Fiber** lanes) {
  const int each = T::each, depth = 8 * each;
  double a[16][32], b[32][8];
  for (int lane = 0; lane < 32; ++lane) {
    const unsigned* left = (const unsigned*)lanes[lane]->in[0];
    const unsigned* right = (const unsigned*)lanes[lane]->in[1];
    const int group = lane / 4, place = lane % 4 * each;
    for (int k = 0; k < each; ++k) {
      for (int part = 0; part < 4; ++part)
        a[group + part % 2 * 8][place + k + part / 2 * 4 * each] = T::at(left[part], k, true);
      for (int part = 0; part < 2; ++part)
        b[place + k + part * 4 * each][group] = T::at(right[part], k, false);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    typename T::Sum* total = (typename T::Sum*)lanes[lane]->out;
    for (int e = 0; e < 4; ++e) {
      const int row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
      double sum = 0;
      for (int k = 0; k < depth; ++k) sum += a[row][k] * b[k][column];
      if (sizeof(T) && T::each == 4)
        total[e] = (typename T::Sum)((unsigned)(long long)total[e] + (unsigned)(long long)sum);
      else
        total[e] = (typename T::Sum)(total[e] + sum);
    }
  }
}

template <class T>
static void mma(typename T::Sum* total, const unsigned* left, const unsigned* right, int line) {
  current->in[0] = left;
  current->in[1] = right;
  current->out = total;
  together(multiply<T>, line);
}

void mma_f16(float* total, const unsigned* left, const unsigned* right, int line) {
  mma<F16>(total, left, right, line);
}
void mma_bf16(float* total, const unsigned* left, const unsigned* right, int line) {
  mma<BF16>(total, left, right, line);
}
void mma_tf32(float* total, const unsigned* left, const unsigned* right, int line) {
  mma<TF32>(total, left, right, line);
}
void mma_i8(int* total, const unsigned* left, const unsigned* right, int line) {
  mma<S8>(total, left, right, line);
}
void mma_u8(int* total, const unsigned* left, const unsigned* right, int line) {
  mma<U8>(total, left, right, line);
}

// --- cp.async: nothing is there before it is waited for ---------------------------------------------

struct Copy {
  char* to;
  const char* from;
  int size;
  bool inside;
};
struct Copies {
  std::vector<Copy> open;
  std::vector<std::vector<Copy>> groups;
};
static std::vector<Copies> copies;  // by thread

static void forget_copies() {
  if (!copies.empty()) copies.assign(1024, Copies());
}

void copy_async(void* to, const void* from, int size, bool inside, int line) {
  if ((uintptr_t)to % size != 0 || (inside && (uintptr_t)from % size != 0)) {
    fault = "a misaligned copy of " + std::to_string(size) + " bytes in line " +
            std::to_string(line);
    return;
  }
  touch(to, size, true);
  memset(to, 0xff, size);
  if (copies.empty()) copies.resize(1024);
  copies[thread_number].open.push_back({(char*)to, (const char*)from, size, inside});
}
void copy_commit() {
  if (copies.empty()) copies.resize(1024);
  Copies& own = copies[thread_number];
  own.groups.push_back(own.open);
  own.open.clear();
}
void copy_wait(size_t pending) {
  if (copies.empty()) return;
  Copies& own = copies[thread_number];
  while (own.groups.size() > pending) {
    for (const Copy& c : own.groups.front()) {
      touch(c.to, c.size, true);
      if (c.inside) {
        touch(c.from, c.size, false);
        memcpy(c.to, c.from, c.size);
      } else {
        memset(c.to, 0, c.size);
      }
    }
    own.groups.erase(own.groups.begin());
  }
}

unsigned byte_perm(unsigned low, unsigned high, unsigned selector) {
  const unsigned long long both = (unsigned long long)high << 32 | low;
  unsigned result = 0;
  for (int k = 0; k < 4; ++k)
    result |= (unsigned)(both >> 8 * (selector >> 4 * k & 7) & 255) << 8 * k;
  return result;
}

}  // namespace shim
