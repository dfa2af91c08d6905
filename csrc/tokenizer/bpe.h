// Byte-pair encoding with the very ids of SentencePiece's BPE model.
//
// A text starts as its characters; of all neighbours that together are a piece, those with the best score are merged, the
// leftmost first, until there are none. No merge reaches across two characters that stand side by side in no piece, so a
// text falls into short units there (words, mostly; Japanese clauses), and each is merged alone.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/encoder.h"

namespace iberis {

class BpeEncoder : public Encoder {
 public:
  // std::invalid_argument for a vocabulary that makes no sense (tokenizer/encoder.h).
  explicit BpeEncoder(const Vocabulary& vocabulary);

  void encode(std::string_view text, std::vector<int32_t>& ids) const override;

 private:
  // Two symbols that may stand side by side in a unit. `left` and `right` are pieces or characters.
  struct Pair {
    uint32_t left;
    uint32_t right;
    uint32_t rank;    // the best score has rank 0; kNever: together they are no piece
    uint32_t merged;  // the piece
  };
  struct Unit;

  uint64_t slot_of(uint32_t left, uint32_t right) const;
  const Pair* find(uint32_t left, uint32_t right) const;
  void insert(const Pair& pair);
  void merge(Unit& unit) const;
  void merge_long(Unit& unit) const;
  void finish(Unit& unit, std::vector<int32_t>& ids) const;

  uint32_t vocab_size_;
  std::array<int32_t, 256> byte_ids_;
  std::vector<uint32_t> symbols_;        // by code point; kNone: in no piece
  std::vector<std::string> characters_;  // symbol vocab_size_ + i: a character of pieces that is no piece itself
  std::vector<Pair> pairs_;              // hash table with open addressing, at most half full
  unsigned shift_ = 60;                  // 64 - log2 of its slots
};

}  // namespace iberis
