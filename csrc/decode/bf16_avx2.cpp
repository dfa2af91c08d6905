// AVX2: a step of an output's weights is two vectors, so the registers hold the sums of one output and four rows.
#ifdef __x86_64__

#include <immintrin.h>

#include "decode/bf16_kernel.h"

#define IBERIS_TARGET gnu::target("avx2,fma")

namespace iberis {
namespace {

[[IBERIS_TARGET]] inline float sum_of_lanes(__m256 low, __m256 high) {
  const __m256 eight = _mm256_add_ps(low, high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

template <int kRows>
struct Avx2Sums {
  __m256 lanes[kRows][2];

  [[IBERIS_TARGET, gnu::always_inline]] inline void add(const uint16_t* weights, const float* x, int64_t row_floats) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + half * kLanes));
      const __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
      const __m256 second = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
      const float* numbers = x + half * kLanes / 2;
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r, numbers += row_floats) {
        lanes[r][half] = _mm256_fmadd_ps(first, _mm256_loadu_ps(numbers), lanes[r][half]);
        lanes[r][half] = _mm256_fmadd_ps(second, _mm256_loadu_ps(numbers + kLanes), lanes[r][half]);
      }
    }
  }
};

template <int kRows, int kOutputs>
struct Avx2 {
  [[IBERIS_TARGET]] static void multiply(const Bf16Block& block, float* out) {
    const int64_t steps = block.whole_steps();
    for (int o = 0; o < kOutputs; ++o) {
      Avx2Sums<kRows> sums;
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) sums.lanes[r][0] = sums.lanes[r][1] = _mm256_setzero_ps();
      const uint16_t* weights = block.weights + o * block.inputs;
      for (int64_t step = 0; step < steps; ++step, weights += kStep) {
        prefetch_next_block(weights, block.inputs);
        sums.add(weights, block.x + step * kStep, block.row_floats());
      }
      if (steps < block.steps()) {
        const Bf16Tail tail(block, o);
        sums.add(tail.weights, block.x + steps * kStep, block.row_floats());
      }
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) out[r * kBf16Outputs + o] = sum_of_lanes(sums.lanes[r][0], sums.lanes[r][1]);
    }
  }
};

}  // namespace

const Bf16Kernel kAvx2Bf16 = {"avx2", multiply_bf16_block<Avx2>};

}  // namespace iberis

#endif
