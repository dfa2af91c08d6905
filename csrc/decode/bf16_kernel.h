// The arithmetic of bf16_linear on a block of outputs, in a version for each kind of CPU.
//
// * A product of two bf16 is exact in fp32. Sixteen lanes add up an output: of each 32 inputs, lane j adds inputs
//   2 j and then 2 j + 1, by fma; the lanes are added at the end in halves.
// * So all versions give the same bits, whatever the number of rows that are worked on together.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace iberis {

constexpr int kStep = 32;  // inputs that are worked on together
constexpr int kLanes = 16;
constexpr int kBf16Outputs = 4;  // outputs whose sums are in registers
constexpr int kBf16RowsAtATime = 4;

// kBf16Outputs rows of W, or fewer, one after the other; and rows x that go with them.
struct Bf16Block {
  const uint16_t* weights;  // [outputs, inputs]
  const float* x;           // [rows, steps, 2, kLanes]: of each 32 inputs the even ones, then the odd ones
  int64_t inputs;
  int outputs;
  int rows;

  int64_t whole_steps() const { return inputs / kStep; }
  int64_t steps() const { return (inputs + kStep - 1) / kStep; }
  int64_t row_floats() const { return steps() * kStep; }
};

struct Bf16Kernel {
  const char* name;
  // out [rows, kBf16Outputs].
  void (*multiply)(const Bf16Block& block, float* out);
};

extern const Bf16Kernel kPortableBf16;
#ifdef __x86_64__
extern const Bf16Kernel kAvx2Bf16;
extern const Bf16Kernel kAvx512Bf16;
#endif

// What is left of an output's weights behind its whole steps, filled up with zeros.
struct Bf16Tail {
  uint16_t weights[kStep] = {};

  Bf16Tail(const Bf16Block& block, int output) {
    const int64_t whole = block.whole_steps() * kStep;
    const auto left = static_cast<size_t>(block.inputs - whole);
    std::memcpy(weights, block.weights + output * block.inputs + whole, left * sizeof(uint16_t));
  }
};

// The same place in the next block of outputs, into the second cache: several streams at once, with ends of pages in
// them, are too much for the hardware's own prefetching.
[[gnu::always_inline]] inline void prefetch_next_block(const uint16_t* weights, int64_t inputs) {
  constexpr int kReading = 0;
  constexpr int kSecondCache = 2;
  __builtin_prefetch(weights + kBf16Outputs * inputs, kReading, kSecondCache);
}

using Bf16Multiply = void (*)(const Bf16Block&, float*);

// All rows of the block, a few at a time, by Version<rows, outputs>::multiply.
template <template <int, int> class Version>
void multiply_bf16_block(const Bf16Block& block, float* out) {
  static constexpr Bf16Multiply kWhole[] = {&Version<1, kBf16Outputs>::multiply, &Version<2, kBf16Outputs>::multiply,
                                            &Version<3, kBf16Outputs>::multiply, &Version<4, kBf16Outputs>::multiply};
  static constexpr Bf16Multiply kSingle[] = {&Version<1, 1>::multiply, &Version<2, 1>::multiply,
                                             &Version<3, 1>::multiply, &Version<4, 1>::multiply};
  for (int r = 0; r < block.rows; r += kBf16RowsAtATime) {
    Bf16Block part = block;
    part.rows = std::min(block.rows - r, kBf16RowsAtATime);
    part.x += r * block.row_floats();
    float* to = out + r * kBf16Outputs;
    if (block.outputs == kBf16Outputs) {
      kWhole[part.rows - 1](part, to);
      continue;
    }
    for (int o = 0; o < block.outputs; ++o, part.weights += block.inputs) kSingle[part.rows - 1](part, to + o);
  }
}

}  // namespace iberis
