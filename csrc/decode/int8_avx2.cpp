// AVX2: four rows at a time, the block's outputs in two halves, so that the sums of a group stay in the 16 registers.
#ifdef __x86_64__

#include <immintrin.h>

#include "decode/int8_kernel.h"

#define IBERIS_TARGET gnu::target("avx2,fma")

namespace iberis {
namespace {

constexpr int kRowsAtATime = 4;

[[IBERIS_TARGET]] inline __m256i widened(const int8_t* values) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
}

[[IBERIS_TARGET]] inline __m256 widened(const uint16_t* bf16) {
  const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bf16));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(packed), 16));
}

// Two numbers of a row for all outputs.
[[IBERIS_TARGET]] inline __m256i both(const int16_t* pair) {
  int32_t bits;
  std::memcpy(&bits, pair, sizeof(bits));
  return _mm256_set1_epi32(bits);
}

template <int kRows, int kGroup>
struct Avx2 {
  // One group: values [group / 2, kBlock, 2], scales [kBlock]; x [rows, group], its scales [rows]; adds to out.
  [[IBERIS_TARGET]] static void add_group(const int8_t* values, const uint16_t* weight_scales, const int16_t* x,
                                          const float* scales, float* out) {
    __m256i dots[kRows][2];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) dots[r][0] = dots[r][1] = _mm256_setzero_si256();
    for (int i = 0; i < kGroup; i += 2, values += 2 * kBlock) {
      prefetch_ahead(values);
      const __m256i low = widened(values);
      const __m256i high = widened(values + kBlock);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const __m256i two = both(x + r * kGroup + i);
        dots[r][0] = _mm256_add_epi32(dots[r][0], _mm256_madd_epi16(low, two));
        dots[r][1] = _mm256_add_epi32(dots[r][1], _mm256_madd_epi16(high, two));
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        float* sums = out + r * kBlock + half * kBlock / 2;
        const __m256 scale = _mm256_mul_ps(widened(weight_scales + half * kBlock / 2), _mm256_set1_ps(scales[r]));
        const __m256 sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[r][half]), scale, _mm256_loadu_ps(sums));
        _mm256_storeu_ps(sums, sum);
      }
    }
  }
};

template <int kGroup>
void multiply(const RowTile& rows, const WeightBlock& weights, float* out) {
  using AddGroup = void (*)(const int8_t*, const uint16_t*, const int16_t*, const float*, float*);
  static constexpr AddGroup kAddGroup[] = {&Avx2<1, kGroup>::add_group, &Avx2<2, kGroup>::add_group,
                                           &Avx2<3, kGroup>::add_group, &Avx2<4, kGroup>::add_group};
  std::fill_n(out, rows.rows * kBlock, 0.0F);
  for (int64_t g = 0; g < rows.groups; ++g) {
    for (int r = 0; r < rows.rows; r += kRowsAtATime) {
      const int64_t place = g * rows.rows + r;
      kAddGroup[std::min(rows.rows - r, kRowsAtATime) - 1](
          weights.values + g * kGroup * kBlock, weights.scales + g * kBlock, rows.values + place * kGroup,
          rows.scales + place, out + r * kBlock);
    }
  }
}

void multiply_any(const RowTile& rows, const WeightBlock& weights, float* out) {
  (rows.group == 32 ? multiply<32> : multiply<64>)(rows, weights, out);
}

[[IBERIS_TARGET]] void quantize(const float* x, int64_t inputs, const RowTile& tile, int row) {
  quantize_row(x, inputs, tile, row);
}

}  // namespace

const Int8Kernel kAvx2Int8 = {"avx2", quantize, multiply_any};

}  // namespace iberis

#endif
