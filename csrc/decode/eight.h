// Arithmetic on eight numbers at a time, to be compiled for a kind of CPU: IBERIS_TARGET is its attribute, nothing for any
// CPU. Included inside an unnamed namespace. The vectors are the compiler's own, which any CPU can run.

using Eight = float __attribute__((vector_size(32)));
using Four = float __attribute__((vector_size(16)));
using EightBits = uint32_t __attribute__((vector_size(32)));
using EightHalves = uint16_t __attribute__((vector_size(16)));

constexpr int64_t kEight = 8;

[[IBERIS_TARGET, gnu::always_inline]] inline void load(const float* from, Eight& to) {
  std::memcpy(&to, from, sizeof(to));
}

[[IBERIS_TARGET, gnu::always_inline]] inline void load(const uint16_t* from, Eight& to) {
  EightHalves halves;
  std::memcpy(&halves, from, sizeof(halves));
  const EightBits bits = __builtin_convertvector(halves, EightBits) << 16;
  std::memcpy(&to, &bits, sizeof(to));
}

[[IBERIS_TARGET, gnu::always_inline]] inline float total_of(const Eight& numbers) {
  Four halves[2];
  std::memcpy(&halves, &numbers, sizeof(halves));
  const Four four = halves[0] + halves[1];
  return (four[0] + four[2]) + (four[1] + four[3]);
}

// x becomes e^x for x <= 0, to 2 units in the last place (1.21 at most over every third float); 0 below -87. NaN stays NaN.
[[IBERIS_TARGET, gnu::always_inline]] inline void exponentiate(Eight& x) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: a small number added to it is rounded to an integer
  constexpr float kLog2E = 1.44269504F;
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  const Eight zero = {};
  const Eight least = zero - 87.0F;
  const Eight bounded = x < least ? least : x;
  const Eight shifted = bounded * kLog2E + kRound;
  const Eight whole = shifted - kRound;
  const Eight rest = (bounded - whole * kLn2High) - whole * kLn2Low;
  Eight sum = zero + 1.0F / 5040;  // the series of e^rest, |rest| <= ln 2 / 2
  for (const float next : {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F}) sum = sum * rest + next;
  EightBits bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits + 127) << 23;  // kRound's own bits are shifted out
  Eight power;
  std::memcpy(&power, &bits, sizeof(power));
  x = x < least ? zero : sum * power;
}

// x becomes x / (1 + e^-x).
[[IBERIS_TARGET, gnu::always_inline, gnu::unused]] inline void silu(Eight& x) {
  EightBits bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits |= 0x80000000;
  Eight power;  // e^-|x|, which cannot overflow
  std::memcpy(&power, &bits, sizeof(power));
  exponentiate(power);
  x = (x < 0 ? x * power : x) / (1.0F + power);
}
