// AVX-512: a step of an output's weights is one vector, whose even and odd numbers are widened by a shift and a mask.
#ifdef __x86_64__

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own header, its bug 105593
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include "decode/bf16_kernel.h"

#define IBERIS_TARGET gnu::target("avx512f,avx512bw,avx512vl,avx512dq")

namespace iberis {
namespace {

// The lanes are added in halves: 8, 4, 2, 1 apart.
[[IBERIS_TARGET]] inline float sum_of_lanes(__m512 lanes) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

template <int kRows, int kOutputs>
struct Avx512 {
  [[IBERIS_TARGET, gnu::always_inline]] static inline void add(const uint16_t* weights, const __m512 (&even)[kRows],
                                                               const __m512 (&odd)[kRows], __m512 (&sums)[kRows]) {
    const __m512i both = _mm512_loadu_si512(weights);
    const __m512 first = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    const __m512 second = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) sums[r] = _mm512_fmadd_ps(first, even[r], sums[r]);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) sums[r] = _mm512_fmadd_ps(second, odd[r], sums[r]);
  }

  [[IBERIS_TARGET, gnu::always_inline]] static inline void load(const Bf16Block& block, int64_t step,
                                                                __m512 (&even)[kRows], __m512 (&odd)[kRows]) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const float* x = block.x + r * block.row_floats() + step * kStep;
      even[r] = _mm512_loadu_ps(x);
      odd[r] = _mm512_loadu_ps(x + kLanes);
    }
  }

  [[IBERIS_TARGET]] static void multiply(const Bf16Block& block, float* out) {
    __m512 sums[kOutputs][kRows];
    __m512 even[kRows];
    __m512 odd[kRows];
#pragma GCC unroll 4
    for (int o = 0; o < kOutputs; ++o) {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) sums[o][r] = _mm512_setzero_ps();
    }
    const int64_t steps = block.whole_steps();
    for (int64_t step = 0; step < steps; ++step) {
      load(block, step, even, odd);
#pragma GCC unroll 4
      for (int o = 0; o < kOutputs; ++o) {
        const uint16_t* weights = block.weights + o * block.inputs + step * kStep;
        prefetch_next_block(weights, block.inputs);
        add(weights, even, odd, sums[o]);
      }
    }
    if (steps < block.steps()) {
      load(block, steps, even, odd);
#pragma GCC unroll 4
      for (int o = 0; o < kOutputs; ++o) add(Bf16Tail(block, o).weights, even, odd, sums[o]);
    }
#pragma GCC unroll 4
    for (int o = 0; o < kOutputs; ++o) {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) out[r * kBf16Outputs + o] = sum_of_lanes(sums[o][r]);
    }
  }
};

}  // namespace

const Bf16Kernel kAvx512Bf16 = {"avx512", multiply_bf16_block<Avx512>};

}  // namespace iberis

#endif
