// y = x W' with W in bf16 as it is, for a few rows x at a time: decoding on a CPU with weights that are not quantised.
//
// * W is read once for up to 16 rows; sums are in fp32, rounded to bf16 at the end.
// * A row's result depends on that row alone: not on the rows beside it, the number of threads, or the kind of CPU.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "decode/bf16_kernel.h"

namespace iberis {

inline float from_bf16(uint16_t bf16) {
  const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
  float number;
  std::memcpy(&number, &bits, sizeof(number));
  return number;
}

// To the nearest, ties to even; a NaN stays one.
inline uint16_t to_bf16(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof(bits));
  if (number != number) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Those that this CPU can run, the best one last.
const std::vector<const Bf16Kernel*>& bf16_kernels();

// weight [outputs, inputs], x [rows, inputs] -> y [rows, outputs], all bf16, in at most `threads` threads.
void bf16_linear(const uint16_t* weight, int64_t outputs, int64_t inputs, const uint16_t* x, int64_t rows, uint16_t* y,
                 int threads, const Bf16Kernel& kernel);

}  // namespace iberis
