#include "order/best_fit.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "errors.h"

namespace iberis {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

// Rows that are not full, by their room in tokens: stacks, and a bit for each room that has one.
class OpenRows {
 public:
  explicit OpenRows(uint64_t largest_room)
      : top_(largest_room + 1, kNone), words_(largest_room / 64 + 1, 0), groups_(words_.size() / 64 + 1, 0) {}

  void push(uint64_t room, uint32_t row) {
    if (below_.size() <= row) below_.resize(row + 1);
    below_[row] = top_[room];
    top_[room] = row;
    words_[room / 64] |= uint64_t{1} << room % 64;
    groups_[room / 4096] |= uint64_t{1} << room / 64 % 64;
  }

  uint32_t pop(uint64_t room) {
    const uint32_t row = top_[room];
    top_[room] = below_[row];
    if (top_[room] == kNone && (words_[room / 64] &= ~(uint64_t{1} << room % 64)) == 0) {
      groups_[room / 4096] &= ~(uint64_t{1} << room / 64 % 64);
    }
    return row;
  }

  // The smallest room of `least` tokens or more that a row has, or 0 (least > 0).
  uint64_t smallest_room(uint64_t least) const {
    if (least >= top_.size()) return 0;
    if (const uint64_t bits = words_[least / 64] & from(least)) return least / 64 * 64 + lowest(bits);
    const uint64_t word = least / 64 + 1;
    uint64_t group = word / 64;
    if (group >= groups_.size()) return 0;
    uint64_t bits = groups_[group] & from(word);
    while (bits == 0 && ++group < groups_.size()) bits = groups_[group];
    if (bits == 0) return 0;
    const uint64_t found = group * 64 + lowest(bits);
    return found * 64 + lowest(words_[found]);
  }

 private:
  static uint64_t from(uint64_t bit) { return ~uint64_t{0} << bit % 64; }
  static uint64_t lowest(uint64_t bits) { return static_cast<uint64_t>(__builtin_ctzll(bits)); }

  std::vector<uint32_t> top_;     // row on the stack of each room
  std::vector<uint32_t> below_;   // the row under each row
  std::vector<uint64_t> words_;   // bit r: room r has rows
  std::vector<uint64_t> groups_;  // bit w: words_[w] is not 0
};

int64_t document_tokens(const IndexReader& index, uint64_t document) {
  const auto first = static_cast<uint64_t>(index.document_index()[document]);
  const auto end = static_cast<uint64_t>(index.document_index()[document + 1]);
  int64_t tokens = 0;
  for (uint64_t i = first; i < end; ++i) tokens += index.lengths()[i];
  return tokens;
}

// Documents that hold tokens, by falling length (cut to a row's), equal lengths in the order of the file.
std::vector<uint32_t> longest_first(const std::vector<uint32_t>& lengths, uint64_t longest) {
  std::vector<uint64_t> place(longest + 2, 0);  // of the next document of each length
  for (const uint32_t length : lengths) ++place[length];
  uint64_t before = 0;
  for (uint64_t length = longest; length > 0; --length) before += std::exchange(place[length], before);
  std::vector<uint32_t> order(before);
  for (uint32_t d = 0; d < lengths.size(); ++d) {
    if (lengths[d] != 0) order[place[lengths[d]]++] = d;
  }
  return order;
}

// The row of each document of `order`, and the number of rows.
std::pair<std::vector<uint32_t>, uint32_t> rows_of(const std::vector<uint32_t>& order,
                                                   const std::vector<uint32_t>& lengths, uint64_t row_tokens) {
  std::vector<uint32_t> row_of(order.size());
  uint32_t rows = 0;
  OpenRows open(row_tokens);
  for (uint64_t i = 0; i < order.size(); ++i) {
    const uint64_t length = lengths[order[i]];
    uint64_t room = open.smallest_room(length);
    row_of[i] = room == 0 ? rows++ : open.pop(room);
    room = (room == 0 ? row_tokens : room) - length;
    if (room > 0) open.push(room, row_of[i]);
  }
  return {row_of, rows};
}

}  // namespace

PackedRows best_fit(const IndexReader& index, int64_t row_tokens) {
  if (row_tokens < 1 || row_tokens > std::numeric_limits<int32_t>::max()) {
    throw std::invalid_argument("rows of " + std::to_string(row_tokens) + " tokens: give 1 to 2,147,483,647.");
  }
  index.verify();
  const auto documents = static_cast<uint64_t>(index.documents());
  if (documents >= kNone) {
    throw InputError("more than 4,294,967,294 documents cannot be packed: use several token files.");
  }
  if (index.tokens() == 0) throw InputError("there are no tokens to pack: add text.");
  PackedRows packed;
  std::vector<uint32_t> lengths(documents);
  for (uint64_t d = 0; d < documents; ++d) {
    const int64_t tokens = document_tokens(index, d);
    lengths[d] = static_cast<uint32_t>(std::min(tokens, row_tokens));
    packed.cropped += tokens - lengths[d];
  }
  const auto size = static_cast<uint64_t>(row_tokens);
  const std::vector<uint32_t> order = longest_first(lengths, size);
  const auto [row_of, rows] = rows_of(order, lengths, size);
  packed.starts.assign(uint64_t{rows} + 1, 0);
  for (const uint32_t row : row_of) ++packed.starts[row + 1];
  for (uint64_t row = 0; row < rows; ++row) packed.starts[row + 1] += packed.starts[row];
  packed.documents.resize(order.size());
  std::vector<int64_t> next(packed.starts.begin(), packed.starts.end() - 1);
  for (uint64_t i = 0; i < order.size(); ++i) packed.documents[static_cast<uint64_t>(next[row_of[i]]++)] = order[i];
  packed.padded = int64_t{rows} * row_tokens - (index.tokens() - packed.cropped);
  return packed;
}

}  // namespace iberis
