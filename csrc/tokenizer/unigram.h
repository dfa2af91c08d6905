// The most likely segmentation under a unigram model, with the very ids of SentencePiece's.
//
// Viterbi's algorithm over the bytes of the text, in SentencePiece's own single-precision sums: which of two equally good
// segmentations wins depends on their rounding. Where no piece reaches across, all paths meet; what lies before is
// settled and forgotten there, so memory does not grow with the text.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/double_array.h"
#include "tokenizer/encoder.h"

namespace iberis {

class UnigramEncoder : public Encoder {
 public:
  // std::invalid_argument for a vocabulary that makes no sense (tokenizer/encoder.h).
  explicit UnigramEncoder(const Vocabulary& vocabulary);

  void encode(std::string_view text, std::vector<int32_t>& ids) const override;

 private:
  static constexpr int32_t kUnknown = -1;

  struct Piece {
    int32_t id = kUnknown;
    float score = 0;
  };
  struct Best;

  static std::vector<Piece> pieces_of(const Vocabulary& vocabulary);
  void settle(std::string_view text, const std::vector<Best>& best, size_t end, std::vector<int32_t>& ids) const;

  DoubleArray<Piece> pieces_;
  std::array<int32_t, 256> byte_ids_;
  float unknown_score_;
};

}  // namespace iberis
