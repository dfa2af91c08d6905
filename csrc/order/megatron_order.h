// Megatron's sample index: where every sample begins when documents are read in a given order, as megatron-core's
// build_sample_idx has it.
//
// * The documents, in this order, are one stream of tokens. Sample i is the T + 1 tokens from token i * T on, so that
//   neighbours share a token; the last one that is whole ends the index.
// * Row i of the index, for i = 0 .. samples, is the place of token i * T: the number of its document in the order, and
//   its position in that document. Row `samples` is where one more would begin. Row 0 is (0, 0), whatever comes first.
// * Each thread takes an equal part of the documents: first it adds up their lengths (and keeps them, for looking them up
//   is what takes the time), and when all sums are known it writes the rows of the samples that begin in its part.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "span.h"

namespace iberis {

class MegatronOrder {
 public:
  // lengths [sequences]: tokens of each; order [documents]: which of them come one after the other, any number of times.
  // std::invalid_argument for a number in `order` that is no sequence, a negative length, sequence_length < 1, or too few
  // tokens for a sample.
  MegatronOrder(Span<const int32_t> lengths, Span<const int32_t> order, int64_t sequence_length);

  int64_t samples() const { return samples_; }
  // Whether every number of the index is below 2^31.
  bool fits_int32() const { return documents_ <= INT32_MAX; }
  // Row by row, [2 * (samples + 1)]; Number: int32_t where that fits, or int64_t.
  template <typename Number>
  void write(Span<Number> rows) const;

 private:
  uint64_t part_begin(uint64_t part) const { return documents_ * part / parts_; }
  void look_up(uint64_t part, Span<const int32_t> lengths, Span<const int32_t> order);
  template <typename Number>
  void write_part(uint64_t part, Span<Number> rows) const;

  int64_t length_;
  uint64_t parts_;
  int64_t samples_ = 0;
  uint64_t documents_;
  std::unique_ptr<int32_t[]> ordered_;  // [documents]: length of each document in the order
  std::vector<int64_t> starts_;  // [parts + 1]: first token of each part; -1 for a part with a document that is none
};

}  // namespace iberis
