// Attention of single queries, one of each request of a step of decoding, to the rows of their keys and values.
//
// * A request's rows are cut into chunks of kChunk, each of which some thread reads from end to end, all heads at once;
//   then each head's parts are put together. So a long context is as good as many requests, and memory is read in order.
// * Sums and softmax are in fp32. A request's result depends on it alone: not on the requests beside it or on the
//   number of threads.
#pragma once

#include <cstdint>

#include "decode/bf16.h"

namespace iberis {

constexpr int64_t kChunk = 64;  // rows

template <typename T>
struct SingleQueries {
  const T* q;             // [requests, heads, size]
  const T* keys;          // [rows, kv_heads, size]
  const T* values;        // as keys
  const int64_t* starts;   // each request's first row
  const int64_t* lengths;  // each request's rows, 1 at least
  int64_t requests;
  int64_t heads;  // a multiple of kv_heads, consecutive ones sharing one
  int64_t kv_heads;
  int64_t size;
};

// A chunk's part for each head: largest score, sum of the weights below it, and the weighted values [size] at the start
// of a vector.
constexpr int64_t kPartHeader = 16;

// The parts [heads, kPartHeader + size] of a request's rows [first, last); scores: room for [heads, kChunk].
template <typename T>
using AttendChunk = void (*)(const SingleQueries<T>& of, int64_t request, int64_t first, int64_t last, float* scores,
                             float* parts);

template <typename T>
AttendChunk<T> portable_attend_chunk();
#ifdef __x86_64__
template <typename T>
AttendChunk<T> avx2_attend_chunk();
#endif

// out [requests, heads, size], in at most `threads` threads; fast: by the best instructions that this CPU has.
template <typename T>
void single_query_attention(const SingleQueries<T>& of, T* out, int threads, bool fast = true);

}  // namespace iberis
