#include "tokenizer/bpe.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <unordered_map>
#include <utility>

namespace iberis {
namespace {

constexpr uint32_t kNever = 0xFFFFFFFF;  // the rank of no merge
constexpr uint32_t kNone = 0xFFFFFFFF;   // no symbol
// Up to here a search through all ranks is quicker than a heap.
constexpr size_t kShort = 96;
// Memory stays flat on a text of one letter: a unit is cut here, where a merge may then be missed.
constexpr size_t kLongest = 1 << 20;

uint32_t code_point(const char* text, size_t length) {
  const auto byte = [text](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[i])); };
  switch (length) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  }
}

// Rank of each id: equal scores have equal ranks.
std::vector<uint32_t> ranks_of(const std::vector<float>& scores) {
  std::vector<uint32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
  std::vector<uint32_t> ranks(scores.size());
  for (size_t i = 1; i < order.size(); ++i) {
    ranks[order[i]] = ranks[order[i - 1]] + (scores[order[i]] < scores[order[i - 1]] ? 1 : 0);
  }
  return ranks;
}

}  // namespace

// A unit of n symbols in the making: of neighbours i and i + 1 the rank of their merge and what it gives.
struct BpeEncoder::Unit {
  std::vector<uint32_t> symbols;
  std::vector<uint32_t> ranks;
  std::vector<uint32_t> merged;
};

BpeEncoder::BpeEncoder(const Vocabulary& vocabulary)
    : vocab_size_(static_cast<uint32_t>(vocabulary.pieces.size())),
      byte_ids_(vocabulary.byte_ids),
      symbols_(0x110000, kNone) {
  check(vocabulary);
  std::unordered_map<std::string_view, uint32_t> symbols;  // pieces, and the characters in them
  for (uint32_t id = 0; id < vocab_size_; ++id) {
    if (!vocabulary.pieces[id].empty()) symbols.emplace(vocabulary.pieces[id], id);
  }
  const std::vector<uint32_t> ranks = ranks_of(vocabulary.scores);
  std::vector<Pair> pairs;
  for (uint32_t id = 0; id < vocab_size_; ++id) {
    const std::string_view piece = vocabulary.pieces[id];
    uint32_t before = kNone;
    for (size_t i = 0; i < piece.size();) {
      const size_t length = utf8_length(piece[i]);
      const std::string_view character = piece.substr(i, length);
      const auto next = static_cast<uint32_t>(vocab_size_ + characters_.size());
      const auto [found, is_new] = symbols.emplace(character, next);
      if (is_new) characters_.emplace_back(character);
      const uint32_t symbol = found->second;
      symbols_[code_point(character.data(), length)] = symbol;
      if (before != kNone) pairs.push_back({before, symbol, kNever, kNone});
      before = symbol;
      i += length;
    }
  }
  for (uint32_t id = 0; id < vocab_size_; ++id) {
    const std::string_view piece = vocabulary.pieces[id];
    for (size_t i = piece.empty() ? 0 : utf8_length(piece[0]); i < piece.size(); i += utf8_length(piece[i])) {
      const auto left = symbols.find(piece.substr(0, i));
      const auto right = symbols.find(piece.substr(i));
      if (left != symbols.end() && right != symbols.end()) {
        pairs.push_back({left->second, right->second, ranks[id], symbols.at(piece)});
      }
    }
  }
  while (uint64_t{1} << (64 - shift_) < 2 * pairs.size()) --shift_;
  pairs_.assign(uint64_t{1} << (64 - shift_), {kNone, kNone, kNever, kNone});
  for (const Pair& pair : pairs) insert(pair);
}

// Where the search for a pair begins (Knuth's multiplicative hashing).
uint64_t BpeEncoder::slot_of(uint32_t left, uint32_t right) const {
  return (uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15ULL >> shift_;
}

void BpeEncoder::insert(const Pair& pair) {
  uint64_t slot = slot_of(pair.left, pair.right);
  while (pairs_[slot].left != kNone && (pairs_[slot].left != pair.left || pairs_[slot].right != pair.right)) {
    slot = (slot + 1) & (pairs_.size() - 1);
  }
  if (pairs_[slot].left == kNone || pair.rank != kNever) pairs_[slot] = pair;
}

const BpeEncoder::Pair* BpeEncoder::find(uint32_t left, uint32_t right) const {
  uint64_t slot = slot_of(left, right);
  for (;; slot = (slot + 1) & (pairs_.size() - 1)) {
    const Pair& pair = pairs_[slot];
    if (pair.left == left && pair.right == right) return &pair;
    if (pair.left == kNone) return nullptr;
  }
}

void BpeEncoder::encode(std::string_view text, std::vector<int32_t>& ids) const {
  Unit unit;
  for (size_t i = 0; i < text.size();) {
    const size_t length = std::min(utf8_length(text[i]), text.size() - i);
    const uint32_t symbol = symbols_[code_point(text.data() + i, length)];
    if (symbol == kNone) {
      finish(unit, ids);
      for (size_t k = i; k < i + length; ++k) ids.push_back(byte_ids_[static_cast<unsigned char>(text[k])]);
    } else {
      if (!unit.symbols.empty()) {
        const Pair* pair = find(unit.symbols.back(), symbol);
        if (pair != nullptr && unit.symbols.size() < kLongest) {
          unit.ranks.push_back(pair->rank);
          unit.merged.push_back(pair->merged);
        } else {
          finish(unit, ids);
        }
      }
      unit.symbols.push_back(symbol);
    }
    i += length;
  }
  finish(unit, ids);
}

// Merges the unit, appends its ids and empties it.
void BpeEncoder::finish(Unit& unit, std::vector<int32_t>& ids) const {
  if (unit.symbols.size() <= kShort) {
    merge(unit);
  } else {
    merge_long(unit);
  }
  for (const uint32_t symbol : unit.symbols) {
    if (symbol < vocab_size_) {
      ids.push_back(static_cast<int32_t>(symbol));
    } else {
      for (const char byte : characters_[symbol - vocab_size_])
        ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
    }
  }
  unit.symbols.clear();
  unit.ranks.clear();
  unit.merged.clear();
}

void BpeEncoder::merge(Unit& unit) const {
  size_t pairs = unit.ranks.size();
  uint32_t* symbols = unit.symbols.data();
  uint32_t* ranks = unit.ranks.data();
  uint32_t* merged = unit.merged.data();
  const auto look_up = [&](size_t i) {
    const Pair* pair = find(symbols[i], symbols[i + 1]);
    ranks[i] = pair != nullptr ? pair->rank : kNever;
    merged[i] = pair != nullptr ? pair->merged : kNone;
  };
  while (pairs > 0) {
    size_t best = 0;
    for (size_t i = 1; i < pairs; ++i) best = ranks[i] < ranks[best] ? i : best;
    if (ranks[best] == kNever) break;
    symbols[best] = merged[best];
    std::copy(symbols + best + 2, symbols + pairs + 1, symbols + best + 1);
    std::copy(ranks + best + 1, ranks + pairs, ranks + best);
    std::copy(merged + best + 1, merged + pairs, merged + best);
    --pairs;
    if (best > 0) look_up(best - 1);
    if (best < pairs) look_up(best);
  }
  unit.symbols.resize(unit.symbols.empty() ? 0 : pairs + 1);
}

// The same with a heap of candidates and linked symbols: a unit may be a megabyte of one letter.
void BpeEncoder::merge_long(Unit& unit) const {
  struct Candidate {
    uint32_t rank;
    uint32_t left;  // index of the left symbol
    uint32_t left_symbol;
    uint32_t right_symbol;
    uint32_t merged;
    bool operator<(const Candidate& other) const {
      return std::pair(rank, left) > std::pair(other.rank, other.left);  // the heap's top is its largest
    }
  };
  std::vector<uint32_t>& symbols = unit.symbols;
  const auto size = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> next(size);
  std::vector<uint32_t> previous(size);
  std::priority_queue<Candidate> candidates;
  for (uint32_t i = 0; i < size; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
    if (i + 1 < size && unit.ranks[i] != kNever) {
      candidates.push({unit.ranks[i], i, symbols[i], symbols[i + 1], unit.merged[i]});
    }
  }
  const auto look_up = [&](uint32_t left) {
    const uint32_t right = next[left];
    if (right == size) return;
    const Pair* pair = find(symbols[left], symbols[right]);
    if (pair == nullptr || pair->rank == kNever) return;
    candidates.push({pair->rank, left, symbols[left], symbols[right], pair->merged});
  };
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    const uint32_t right = symbols[best.left] == kNone ? size : next[best.left];
    // One of the two may have been merged with another since.
    if (right == size || symbols[best.left] != best.left_symbol || symbols[right] != best.right_symbol) continue;
    symbols[best.left] = best.merged;
    symbols[right] = kNone;
    next[best.left] = next[right];
    if (next[right] != size) previous[next[right]] = best.left;
    if (best.left != 0) look_up(previous[best.left]);
    look_up(best.left);
  }
  symbols.erase(std::remove(symbols.begin(), symbols.end(), kNone), symbols.end());
}

}  // namespace iberis
