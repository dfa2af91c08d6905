// A trie of byte strings as a double array (Aoe 1989): a step is one addition and one comparison.
//
// * Byte b leads from state s to base(s) + b, if the state there has s as its parent.
// * States with several children are laid one behind the other, those with one fill the gaps between them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

namespace iberis {

template <typename Value>
class DoubleArray {
 public:
  static constexpr int32_t kRoot = 0;
  static constexpr int32_t kNoState = -1;

  // keys[i] has values[i]; an empty key is left out, and of equal keys the last counts.
  DoubleArray(const std::vector<std::string>& keys, const std::vector<Value>& values) {
    std::vector<size_t> order(keys.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return keys[a] < keys[b]; });
    reserve(1024);
    states_[kRoot].parent = kNoParent;
    Gaps gaps;
    std::vector<Branch> branches = {{kRoot, 0, order.size(), 0}};
    while (!branches.empty()) {
      Branch branch = branches.back();
      branches.pop_back();
      for (; branch.first < branch.last && keys[order[branch.first]].size() == branch.depth; ++branch.first) {
        if (branch.depth > 0) states_[branch.state].value = values[order[branch.first]];
      }
      const std::vector<Child> children = children_of(branch, keys, order);
      if (children.empty()) continue;
      const int32_t base = place(children, gaps);
      states_[branch.state].base = base;
      for (size_t i = 0; i < children.size(); ++i) {
        const auto [byte, first] = children[i];
        const size_t last = i + 1 < children.size() ? children[i + 1].first : branch.last;
        states_[base + byte].parent = branch.state;
        branches.push_back({base + byte, first, last, branch.depth + 1});
      }
    }
  }

  // The state that `byte` leads to, or kNoState.
  int32_t step(int32_t state, char byte) const {
    const int32_t next = states_[state].base + static_cast<unsigned char>(byte);
    return states_[next].parent == state ? next : kNoState;
  }

  // Of the key that ends at `state`; Value{} where none does.
  const Value& value(int32_t state) const { return states_[state].value; }

 private:
  static constexpr int32_t kFree = -1;      // as a state's parent
  static constexpr int32_t kNoParent = -2;  // the root's

  struct State {
    int32_t base = 0;
    int32_t parent = kFree;
    Value value{};
  };
  // The keys order[first] .. order[last - 1] pass through `state` with their first `depth` bytes.
  struct Branch {
    int32_t state;
    size_t first;
    size_t last;
    size_t depth;
  };
  struct Child {
    unsigned char byte;
    size_t first;  // of its keys
  };
  // Where to look for free states. Below 256 one can be out of reach of every base.
  struct Gaps {
    int32_t first = 256;
    int32_t wide = 256;  // for states with several children
  };

  void reserve(size_t states) {
    if (states_.size() < states) states_.resize(std::max(states, 2 * states_.size()));
  }

  static std::vector<Child> children_of(const Branch& branch, const std::vector<std::string>& keys,
                                        const std::vector<size_t>& order) {
    std::vector<Child> children;
    for (size_t i = branch.first; i < branch.last; ++i) {
      const auto byte = static_cast<unsigned char>(keys[order[i]][branch.depth]);
      if (children.empty() || children.back().byte != byte) children.push_back({byte, i});
    }
    return children;
  }

  // A base from which all these children are free.
  int32_t place(const std::vector<Child>& children, Gaps& gaps) {
    while (states_[gaps.first].parent != kFree) reserve(++gaps.first + 1);
    const bool is_wide = children.size() > 1;
    int32_t base = (is_wide ? std::max(gaps.wide, gaps.first) : gaps.first) - children[0].byte;
    reserve(base + 257);
    const auto taken = [&](const Child& child) { return states_[base + child.byte].parent != kFree; };
    while (std::any_of(children.begin(), children.end(), taken)) reserve(++base + 257);
    if (is_wide) gaps.wide = base + children[0].byte;
    return base;
  }

  std::vector<State> states_;
};

}  // namespace iberis
