// Plain C++, for every CPU.
#include <cmath>

#include "decode/bf16_kernel.h"
#include "decode/bf16_linear.h"

namespace iberis {
namespace {

void add(const uint16_t* weights, const float* x, float* lanes) {
  for (int j = 0; j < kLanes; ++j) {
    lanes[j] = std::fma(from_bf16(weights[2 * j]), x[j], lanes[j]);
    lanes[j] = std::fma(from_bf16(weights[2 * j + 1]), x[kLanes + j], lanes[j]);
  }
}

void multiply(const Bf16Block& block, float* out) {
  const int64_t steps = block.whole_steps();
  for (int o = 0; o < block.outputs; ++o) {
    const uint16_t* weights = block.weights + o * block.inputs;
    const Bf16Tail tail(block, o);
    for (int r = 0; r < block.rows; ++r) {
      const float* x = block.x + r * block.row_floats();
      float lanes[kLanes] = {};
      for (int64_t step = 0; step < steps; ++step) add(weights + step * kStep, x + step * kStep, lanes);
      if (steps < block.steps()) add(tail.weights, x + steps * kStep, lanes);
      for (int apart = kLanes / 2; apart > 0; apart /= 2) {
        for (int j = 0; j < apart; ++j) lanes[j] += lanes[j + apart];
      }
      out[r * kBf16Outputs + o] = lanes[0];
    }
  }
}

}  // namespace

const Bf16Kernel kPortableBf16 = {"portable", multiply};

}  // namespace iberis
