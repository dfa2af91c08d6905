// x / sqrt(mean(x^2) + eps) of each row: sums in fp32, rounded at the end. A row's result depends on that row alone.
#pragma once

#include "decode/bf16.h"

namespace iberis {

// x: rows of `size` numbers; out [rows, size], in at most `threads` threads.
template <typename T>
void rms_norm(const Rows<const T>& x, int64_t rows, int64_t size, float eps, T* out, int threads);

}  // namespace iberis
