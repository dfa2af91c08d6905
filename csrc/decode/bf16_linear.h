// y = x W' with W in bf16 as it is, for a few rows x at a time: decoding on a CPU with weights that are not quantised.
//
// * W is read once for up to 16 rows; sums are in fp32, rounded to bf16 at the end.
// * A row's result depends on that row alone: not on the rows beside it, the number of threads, or the kind of CPU.
#pragma once

#include <cstdint>
#include <vector>

#include "decode/bf16.h"
#include "decode/bf16_kernel.h"

namespace iberis {

// Those that this CPU can run, the best one last.
const std::vector<const Bf16Kernel*>& bf16_kernels();

// weight [outputs, inputs], x [rows, inputs] -> y [rows, outputs], all bf16, in at most `threads` threads; squared: y is
// then max(y, 0)^2.
void bf16_linear(const uint16_t* weight, int64_t outputs, int64_t inputs, const uint16_t* x, int64_t rows, uint16_t* y,
                 int threads, const Bf16Kernel& kernel, bool squared = false);

}  // namespace iberis
