// Text -> ids: what SentencePiece's encode makes of a text, several times as fast.
//
// A model is its normal pieces (text and score, a space written as a space) and the ids of its 256 byte pieces; nothing
// is normalised, and a character without a piece is spelled in bytes. bpe.h and unigram.h hold the two kinds.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace iberis {

struct Vocabulary {
  std::vector<std::string> pieces;  // by id; empty: never found in text (specials, byte pieces)
  std::vector<float> scores;        // by id
  std::array<int32_t, 256> byte_ids;
};

class Encoder {
 public:
  virtual ~Encoder() = default;

  // Appends the ids of `text`, which must be UTF-8. Safe to call from several threads.
  virtual void encode(std::string_view text, std::vector<int32_t>& ids) const = 0;
};

// Bytes of the character that this byte begins.
inline size_t utf8_length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// std::invalid_argument unless every id has a score, and the pieces are UTF-8.
void check(const Vocabulary& vocabulary);

}  // namespace iberis
