// Arithmetic on 8 or 16 numbers at a time, IBERIS_LANES, to be compiled for a kind of CPU: IBERIS_TARGET is its attribute,
// nothing for any CPU. Included inside an unnamed namespace. The vectors are the compiler's own, which any CPU can run.

using Lanes = float __attribute__((vector_size(4 * IBERIS_LANES)));
using LaneBits = uint32_t __attribute__((vector_size(4 * IBERIS_LANES)));
using LaneHalves = uint16_t __attribute__((vector_size(2 * IBERIS_LANES)));

constexpr int64_t kWide = IBERIS_LANES;

[[IBERIS_TARGET, gnu::always_inline]] inline void load(const float* from, Lanes& to) {
  std::memcpy(&to, from, sizeof(to));
}

[[IBERIS_TARGET, gnu::always_inline]] inline void load(const uint16_t* from, Lanes& to) {
  LaneHalves halves;
  std::memcpy(&halves, from, sizeof(halves));
  const LaneBits bits = __builtin_convertvector(halves, LaneBits) << 16;
  std::memcpy(&to, &bits, sizeof(to));
}

[[IBERIS_TARGET, gnu::always_inline, gnu::unused]] inline void store(const Lanes& numbers, float* to) {
  std::memcpy(to, &numbers, sizeof(numbers));
}

// Rounded to the nearest, ties to even; a NaN that arithmetic has made stays one.
[[IBERIS_TARGET, gnu::always_inline, gnu::unused]] inline void store(const Lanes& numbers, uint16_t* to) {
  LaneBits bits;
  std::memcpy(&bits, &numbers, sizeof(bits));
  const LaneHalves halves = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, LaneHalves);
  std::memcpy(to, &halves, sizeof(halves));
}

[[IBERIS_TARGET, gnu::always_inline, gnu::unused]] inline float total_of(const Lanes& numbers) {
  constexpr int kFours = IBERIS_LANES / 4;
  using Four = float __attribute__((vector_size(16)));
  Four fours[kFours];
  std::memcpy(&fours, &numbers, sizeof(fours));
  for (int half = kFours / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) fours[i] += fours[i + half];
  }
  return (fours[0][0] + fours[0][2]) + (fours[0][1] + fours[0][3]);
}

// x becomes e^x for x <= 0, to 2 units in the last place (1.21 at most over every third float); 0 below -87. NaN stays NaN.
[[IBERIS_TARGET, gnu::always_inline]] inline void exponentiate(Lanes& x) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: a small number added to it is rounded to an integer
  constexpr float kLog2E = 1.44269504F;
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  const Lanes zero = {};
  const Lanes least = zero - 87.0F;
  const Lanes bounded = x < least ? least : x;
  const Lanes shifted = bounded * kLog2E + kRound;
  const Lanes whole = shifted - kRound;
  const Lanes rest = (bounded - whole * kLn2High) - whole * kLn2Low;
  Lanes sum = zero + 1.0F / 5040;  // the series of e^rest, |rest| <= ln 2 / 2
  for (const float next : {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F}) sum = sum * rest + next;
  LaneBits bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits + 127) << 23;  // kRound's own bits are shifted out
  Lanes power;
  std::memcpy(&power, &bits, sizeof(power));
  x = x < least ? zero : sum * power;
}

// x becomes x / (1 + e^-x).
[[IBERIS_TARGET, gnu::always_inline, gnu::unused]] inline void silu(Lanes& x) {
  LaneBits bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits |= 0x80000000;
  Lanes power;  // e^-|x|, which cannot overflow
  std::memcpy(&power, &bits, sizeof(power));
  exponentiate(power);
  x = (x < 0 ? x * power : x) / (1.0F + power);
}
