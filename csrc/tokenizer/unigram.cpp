#include "tokenizer/unigram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace iberis {
namespace {

constexpr float kUnknownPenalty = 10.0F;    // SentencePiece's: a character without a piece is worse than any piece
constexpr float kLargestScore = 100000.0F;  // SentencePiece's: beyond it sums begin again at 0, to keep their precision
constexpr int32_t kUnknown = -1;
constexpr int32_t kFree = -1;  // as a state's parent
constexpr int32_t kRoot = -2;  // as state 0's
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

UnigramEncoder::UnigramEncoder(const Vocabulary& vocabulary) : byte_ids_(vocabulary.byte_ids) {
  check(vocabulary);
  float least = std::numeric_limits<float>::max();
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    if (!vocabulary.pieces[id].empty()) least = std::min(least, vocabulary.scores[id]);
  }
  unknown_score_ = least - kUnknownPenalty;
  build(vocabulary);
}

void UnigramEncoder::build(const Vocabulary& vocabulary) {
  const std::vector<std::string>& pieces = vocabulary.pieces;
  std::vector<int32_t> order(pieces.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return pieces[a] < pieces[b]; });
  struct Task {  // the pieces order[first] .. order[last - 1] pass through `state` with their first `depth` bytes
    int32_t state;
    size_t first;
    size_t last;
    size_t depth;
  };
  const auto has_room = [&](size_t states) {
    if (states_.size() < states) states_.resize(std::max(states, 2 * states_.size()), {0, kFree, kUnknown, 0});
  };
  has_room(1024);
  states_[0].parent = kRoot;
  std::vector<Task> tasks = {{0, 0, order.size(), 0}};
  int32_t first_free = 256;  // below, a slot can be out of reach of every base
  int32_t wide = 256;        // those with several children are laid one behind the other, the rest fills the gaps
  while (!tasks.empty()) {
    Task task = tasks.back();
    tasks.pop_back();
    for (; task.first < task.last && pieces[order[task.first]].size() == task.depth; ++task.first) {
      const int32_t id = order[task.first];
      if (task.depth == 0) continue;  // the pieces that are never found
      states_[task.state].id = id;
      states_[task.state].score = vocabulary.scores[id];
    }
    std::vector<std::pair<unsigned char, size_t>> children;  // byte, first piece
    for (size_t i = task.first; i < task.last; ++i) {
      const auto byte = static_cast<unsigned char>(pieces[order[i]][task.depth]);
      if (children.empty() || children.back().first != byte) children.emplace_back(byte, i);
    }
    if (children.empty()) continue;
    while (states_[first_free].parent != kFree) has_room(++first_free + 1);
    const bool is_wide = children.size() > 1;
    int32_t base = (is_wide ? std::max(wide, first_free) : first_free) - children[0].first;
    const auto taken = [&](const std::pair<unsigned char, size_t>& child) {
      return states_[base + child.first].parent != kFree;
    };
    for (has_room(base + 257); std::any_of(children.begin(), children.end(), taken); has_room(base + 257)) ++base;
    states_[task.state].base = base;
    if (is_wide) wide = base + children[0].first;
    for (size_t i = 0; i < children.size(); ++i) {
      const auto [byte, first] = children[i];
      states_[base + byte].parent = task.state;
      tasks.push_back({base + byte, first, i + 1 < children.size() ? children[i + 1].second : task.last, task.depth + 1});
    }
  }
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
    int32_t state = 0;
    for (size_t i = start; i < text.size();) {
      const int32_t next = states_[state].base + static_cast<unsigned char>(text[i]);
      if (states_[next].parent != state) break;
      state = next;
      ++i;
      if (states_[state].id == kUnknown) continue;
      offer(i - origin, states_[state].score + score, states_[state].id);
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
