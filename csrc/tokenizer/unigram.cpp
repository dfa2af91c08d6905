#include "tokenizer/unigram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace iberis {
namespace {

constexpr float kUnknownPenalty = 10.0F;    // SentencePiece's: a character without a piece is worse than any piece
constexpr float kLargestScore = 100000.0F;  // SentencePiece's: beyond it sums begin again at 0, to keep their precision
constexpr uint32_t kUnreached = 0xFFFFFFFF;
// Memory stays flat on a text of one letter: after so many bytes the best path so far is settled.
constexpr size_t kLongest = 1 << 22;

}  // namespace

// The best path that ends at a byte: its score, its last piece and where that begins.
struct UnigramEncoder::Best {
  float score = 0;
  int32_t id = kUnknown;
  uint32_t start = kUnreached;
};

UnigramEncoder::UnigramEncoder(const Vocabulary& vocabulary)
    : pieces_(vocabulary.pieces, pieces_of(vocabulary)), byte_ids_(vocabulary.byte_ids) {
  float least = std::numeric_limits<float>::max();
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    if (!vocabulary.pieces[id].empty()) least = std::min(least, vocabulary.scores[id]);
  }
  unknown_score_ = least - kUnknownPenalty;
}

std::vector<UnigramEncoder::Piece> UnigramEncoder::pieces_of(const Vocabulary& vocabulary) {
  check(vocabulary);
  std::vector<Piece> pieces;
  pieces.reserve(vocabulary.scores.size());
  for (const float score : vocabulary.scores) pieces.push_back({static_cast<int32_t>(pieces.size()), score});
  return pieces;
}

void UnigramEncoder::encode(std::string_view text, std::vector<int32_t>& ids) const {
  std::vector<Best> best(64);  // best[i] ends at text[origin + i]; those up to `frontier` may be reached
  size_t origin = 0;
  size_t frontier = 0;
  for (size_t start = 0; start < text.size();) {
    size_t from = start - origin;
    if ((from == frontier || from >= kLongest) && from > 0) {  // all paths meet here
      settle(text.substr(origin), best, from, ids);
      const float score = best[from].score;
      std::fill(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(frontier) + 1, Best{});
      best[0].score = score;
      origin = start;
      from = frontier = 0;
    }
    float score = best[from].score;
    if (std::abs(score) > kLargestScore) {
      for (size_t i = from; i <= frontier; ++i) {
        if (i == from || best[i].start != kUnreached) best[i].score -= score;
      }
      score = 0;
    }
    const auto offer = [&](size_t end, float candidate, int32_t id) {
      if (end >= best.size()) best.resize(2 * end);
      frontier = std::max(frontier, end);
      Best& path = best[end];
      if (path.start == kUnreached || candidate > path.score) path = {candidate, id, static_cast<uint32_t>(from)};
    };
    const size_t length = std::min(utf8_length(text[start]), text.size() - start);
    bool is_piece = false;  // the character
    int32_t state = pieces_.kRoot;
    for (size_t i = start; i < text.size();) {
      state = pieces_.step(state, text[i]);
      if (state == pieces_.kNoState) break;
      ++i;
      const Piece& piece = pieces_.value(state);
      if (piece.id == kUnknown) continue;
      offer(i - origin, piece.score + score, piece.id);
      is_piece = is_piece || i - start == length;
    }
    if (!is_piece) offer(from + length, unknown_score_ + score, kUnknown);
    start += length;
  }
  settle(text.substr(origin), best, frontier, ids);
}

// Appends the ids of the best path that ends at `end`.
void UnigramEncoder::settle(std::string_view text, const std::vector<Best>& best, size_t end,
                            std::vector<int32_t>& ids) const {
  const size_t before = ids.size();
  while (end > 0) {
    const auto [score, id, start] = best[end];
    if (id == kUnknown) {
      for (size_t i = end; i > start; --i) ids.push_back(byte_ids_[static_cast<unsigned char>(text[i - 1])]);
    } else {
      ids.push_back(id);
    }
    end = start;
  }
  std::reverse(ids.begin() + static_cast<std::ptrdiff_t>(before), ids.end());
}

}  // namespace iberis
