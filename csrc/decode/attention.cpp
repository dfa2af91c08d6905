#include "decode/attention.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "decode/pool.h"

namespace iberis {
namespace {

constexpr size_t kLine = 64;                 // bytes of the cache
constexpr int64_t kLeastNumbers = 1 << 13;  // that are put together: worth a thread's while

template <typename T>
AttendChunk<T> best_attend_chunk() {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2_attend_chunk<T>();
#endif
  return portable_attend_chunk<T>();
}

// The parts of a head, `apart` from one chunk to the next -> out [size].
template <typename T>
void join(const float* parts, int64_t count, int64_t apart, int64_t size, T* out) {
  thread_local std::vector<float> sums;
  sums.assign(static_cast<size_t>(size), 0.0F);
  float largest = parts[0];
  for (int64_t c = 1; c < count; ++c) largest = std::fmax(largest, parts[c * apart]);
  float weights = 0.0F;
  for (int64_t c = 0; c < count; ++c, parts += apart) {
    const float scale = std::exp(parts[0] - largest);
    weights += scale * parts[1];
    for (int64_t d = 0; d < size; ++d) sums[d] += scale * parts[kPartHeader + d];
  }
  const float inverse = 1.0F / weights;
  for (int64_t d = 0; d < size; ++d) narrow(sums[d] * inverse, out + d);
}

}  // namespace

template <typename T>
void single_query_attention(const SingleQueries<T>& of, T* out, int threads, bool fast) {
  static const AttendChunk<T> best = best_attend_chunk<T>();
  const AttendChunk<T> attend = fast ? best : portable_attend_chunk<T>();
  std::vector<int64_t> owners;  // of the chunks
  std::vector<int64_t> firsts;  // each request's first chunk
  for (int64_t r = 0; r < of.requests; ++r) {
    firsts.push_back(static_cast<int64_t>(owners.size()));
    owners.insert(owners.end(), static_cast<size_t>((of.lengths[r] + kChunk - 1) / kChunk), r);
  }
  firsts.push_back(static_cast<int64_t>(owners.size()));
  const int64_t part = kPartHeader + of.size;
  const int64_t chunk_parts = of.heads * part;
  thread_local std::vector<float> room;  // stays for this thread's next call
  room.resize(owners.size() * static_cast<size_t>(chunk_parts) + kPartHeader);
  void* place = room.data();
  size_t left = room.size() * sizeof(float);
  auto* parts = static_cast<float*>(std::align(kLine, sizeof(float), place, left));  // [chunks, heads, part]
  Pool::shared().run(static_cast<int64_t>(owners.size()), 1, threads, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> scores;
    scores.resize(static_cast<size_t>(of.heads * kChunk));
    for (int64_t c = begin; c < end; ++c) {
      const int64_t first = (c - firsts[owners[c]]) * kChunk;
      const int64_t last = std::min(first + kChunk, of.lengths[owners[c]]);
      attend(of, owners[c], first, last, scores.data(), parts + c * chunk_parts);
    }
  });
  const int64_t least = std::max<int64_t>(1, kLeastNumbers / part);
  Pool::shared().run(of.requests * of.heads, least, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = firsts[i / of.heads];
      const int64_t count = firsts[i / of.heads + 1] - first;
      join(parts + first * chunk_parts + i % of.heads * part, count, chunk_parts, of.size, out + i * of.size);
    }
  });
}

template void single_query_attention(const SingleQueries<float>&, float*, int, bool);
template void single_query_attention(const SingleQueries<uint16_t>&, uint16_t*, int, bool);

}  // namespace iberis
