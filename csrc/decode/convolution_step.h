// SLC2's mixing of one token of each of several sequences: gate, short causal convolution, second gate.
//
// * In bf16 every operation's result is rounded, as those of torch are: a token alone is what it is in a prompt.
// * A token's result depends on it and its own sequence's inputs alone.
#pragma once

#include "decode/bf16.h"

namespace iberis {

template <typename T>
struct ConvolutionStep {
  Rows<const T> x;      // [tokens, heads * size]
  Rows<const T> alpha;  // [tokens, heads]
  Rows<const T> a;      // [tokens, size]
  Rows<const T> b;      // [tokens, heads * size]
  const T* taps;        // [kernel, heads * size], the last one is the current token's
  T* inputs;            // [kernel - 1, slots, heads * size], the oldest first
  const int64_t* of;    // [tokens], each one's slot
  int64_t tokens;
  int64_t slots;
  int64_t heads;
  int64_t size;
  int64_t kernel;
};

// out [tokens, heads * size]; the slots' inputs move on by one.
template <typename T>
void convolution_step(const ConvolutionStep<T>& step, T* out, int threads);

}  // namespace iberis
