// AVX-512 with VNNI: a weight is widened once for all rows of the tile, whose sums of a group stay in registers.
#ifdef __x86_64__

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12's own header, its bug 105593
#endif

#include <immintrin.h>

#include "decode/int8_kernel.h"

#define IBERIS_TARGET gnu::target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")

namespace iberis {
namespace {

// Two numbers of a row for all outputs.
[[IBERIS_TARGET]] inline __m512i both(const int16_t* pair) {
  int32_t bits;
  std::memcpy(&bits, pair, sizeof(bits));
  return _mm512_set1_epi32(bits);
}

template <int kRows, int kGroup>
struct Avx512 {
  // Sums of their own, for each multiplication waits for the one before it.
  static constexpr int kChains = kRows < 4 ? 4 / kRows : 1;

  [[IBERIS_TARGET]] static void multiply(const RowTile& rows, const WeightBlock& weights, float* out) {
    const int8_t* values = weights.values;
    const int16_t* x = rows.values;
    __m512 sums[kRows];
    for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
    for (int64_t g = 0; g < rows.groups; ++g) {
      __m512i dots[kChains][kRows] = {};
      for (int i = 0; i < kGroup; i += 2 * kChains, values += 2 * kChains * kBlock) {
#pragma GCC unroll 4
        for (int c = 0; c < kChains; ++c) {
          const int8_t* pair = values + 2 * c * kBlock;
          prefetch_ahead(pair);
          const __m512i w = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(pair)));
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) {
            dots[c][r] = _mm512_dpwssd_epi32(dots[c][r], w, both(x + r * kGroup + i + 2 * c));
          }
        }
      }
#pragma GCC unroll 4
      for (int c = 1; c < kChains; ++c) {
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) dots[0][r] = _mm512_add_epi32(dots[0][r], dots[c][r]);
      }
      const auto* packed = reinterpret_cast<const __m256i*>(weights.scales + g * kBlock);
      const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(packed)), 16);
      const __m512 scales = _mm512_castsi512_ps(wide);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const __m512 scale = _mm512_mul_ps(scales, _mm512_set1_ps(rows.scales[g * kRows + r]));
        sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[0][r]), scale, sums[r]);
      }
      x += kRows * kGroup;
    }
    for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(out + r * kBlock, sums[r]);
  }
};

void multiply(const RowTile& rows, const WeightBlock& weights, float* out) {
  constexpr auto kAll = std::make_index_sequence<kTile>();
  if (rows.group == 32) {
    multiply_by_table<Avx512, 32>(rows, weights, out, kAll);
  } else {
    multiply_by_table<Avx512, 64>(rows, weights, out, kAll);
  }
}

[[IBERIS_TARGET]] void quantize(const float* x, int64_t inputs, const RowTile& tile, int row) {
  quantize_row(x, inputs, tile, row);
}

}  // namespace

const Int8Kernel kAvx512Int8 = {"avx512_vnni", quantize, multiply};

}  // namespace iberis

#endif
