// y = x W' with W in int8, for a few rows x at a time: what decoding on a CPU spends its time on.
//
// * Symmetric int8 in groups of 32 or 64 along the inputs, each with a scale in bf16. Outputs are interleaved by 16, so
//   that the weights are one stream, read once for up to 16 rows.
// * Rows are quantised to int16 in the same groups, 64 to 128 times finer than bf16: their error cannot be seen beside
//   that of the weights.
// * A row's result depends on that row alone: not on the rows beside it, the number of threads, or the kind of CPU.
#pragma once

#include <cstdint>
#include <vector>

#include "decode/int8_kernel.h"

namespace iberis {

// W [outputs, inputs], both filled up with zeros: to whole blocks and to whole groups. The memory is someone else's.
struct Int8Matrix {
  const int8_t* values;    // [blocks, groups, group / 2, kBlock, 2]
  const uint16_t* scales;  // [blocks, groups, kBlock], bf16
  int64_t outputs;
  int64_t inputs;
  int group;

  int64_t blocks() const { return (outputs + kBlock - 1) / kBlock; }
  int64_t groups() const { return (inputs + group - 1) / group; }
};

// Those that this CPU can run, the best one last.
const std::vector<const Int8Kernel*>& int8_kernels();

// x [rows, inputs] -> y [rows, outputs], in at most `threads` threads; squared: y is then max(y, 0)^2.
void int8_linear(const Int8Matrix& weight, const float* x, int64_t rows, float* y, int threads,
                 const Int8Kernel& kernel, bool squared = false);

}  // namespace iberis
