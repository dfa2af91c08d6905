#include "tokenizer/encoder.h"

#include <stdexcept>

namespace iberis {
namespace {

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    const size_t length = utf8_length(text[i]);
    if ((first >= 0x80 && first < 0xC2) || first > 0xF4 || length > text.size() - i) return false;
    for (size_t k = 1; k < length; ++k) {
      if ((static_cast<unsigned char>(text[i + k]) & 0xC0) != 0x80) return false;
    }
    i += length;
  }
  return true;
}

}  // namespace

void check(const Vocabulary& vocabulary) {
  const size_t size = vocabulary.pieces.size();
  if (size == 0 || size > (1U << 30)) throw std::invalid_argument("a vocabulary holds 1 to 2^30 pieces.");
  if (vocabulary.scores.size() != size) {
    throw std::invalid_argument("a vocabulary of " + std::to_string(size) + " pieces has " +
                                std::to_string(vocabulary.scores.size()) + " scores: give one for each.");
  }
  for (size_t id = 0; id < size; ++id) {
    if (!is_utf8(vocabulary.pieces[id])) throw std::invalid_argument("piece " + std::to_string(id) + " is not UTF-8.");
  }
}

}  // namespace iberis
