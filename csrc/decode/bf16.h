// Numbers in fp32 or bf16, as the kernels of decoding take them: worked on in fp32, rounded where they are kept.
#pragma once

#include <cstdint>
#include <cstring>

namespace iberis {

inline float from_bf16(uint16_t bf16) {
  const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
  float number;
  std::memcpy(&number, &bits, sizeof(number));
  return number;
}

// To the nearest, ties to even; a NaN stays one.
inline uint16_t to_bf16(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof(bits));
  if (number != number) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float widened(float number) { return number; }
inline float widened(uint16_t bf16) { return from_bf16(bf16); }
inline void narrow(float number, float* to) { *to = number; }
inline void narrow(float number, uint16_t* to) { *to = to_bf16(number); }

// As it would be after having been kept as a T.
template <typename T>
float rounded(float number) {
  T kept;
  narrow(number, &kept);
  return widened(kept);
}

// max(x, 0)^2, as a T each time.
template <typename T>
float relu_squared(float number) {
  const float kept = rounded<T>(number);
  return kept > 0 ? kept * kept : 0 * kept;  // a NaN stays one
}

// Rows of a matrix, one after the other or further apart.
template <typename T>
struct Rows {
  T* data;
  int64_t apart;  // from a row's start to the next one's

  T* operator[](int64_t row) const { return data + row * apart; }
};

}  // namespace iberis
