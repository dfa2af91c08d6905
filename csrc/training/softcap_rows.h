// The pass over rows, to be compiled for a kind of CPU. Included inside an unnamed namespace, behind lanes.h.

constexpr int64_t kVectorsInFp32 = 64;  // so many are added up in fp32, and their sums in fp64

// x becomes likelihood s (1 - s) of the raw logits x; s and likelihood as softcap.h has them.
[[IBERIS_TARGET, gnu::always_inline]] inline void softcap_each(float scale, float range, Lanes& x, Lanes& s,
                                                               Lanes& likelihood) {
  const Lanes zero = {};
  x *= scale;
  Lanes power = x < 0 ? x : -x;
  exponentiate(power);  // e^-|x|, which cannot overflow
  const Lanes inverse = 1.0F / (1.0F + power);
  s = (x > 0 ? power : zero + 1.0F) * inverse;
  likelihood = s * -range;
  exponentiate(likelihood);
  x = likelihood * (power * inverse) * inverse;
}

template <typename T>
[[IBERIS_TARGET]] float softcap_row(const SoftcapRows<T>& of, T* row) {
  const float scale = 2.0F / of.softcap;
  const int64_t tokens = of.width - of.padding;
  Lanes x;
  Lanes s;
  Lanes likelihood;
  double total = 0;
  int64_t i = 0;
  while (i + kWide <= tokens) {
    Lanes sum = {};
    for (const int64_t end = std::min(tokens, i + kVectorsInFp32 * kWide); i + kWide <= end; i += kWide) {
      load(row + i, x);
      softcap_each(scale, of.range, x, s, likelihood);
      sum += likelihood;
      if (of.gradient) store(x, row + i);
    }
    total += total_of(sum);
  }
  if (i < tokens) {
    T rest[kWide] = {};
    std::copy(row + i, row + tokens, rest);
    load(rest, x);
    softcap_each(scale, of.range, x, s, likelihood);
    for (int64_t j = 0; j < tokens - i; ++j) total += likelihood[j];
    store(x, rest);
    if (of.gradient) std::copy(rest, rest + (tokens - i), row + i);
  }
  if (of.gradient) std::fill(row + tokens, row + of.width, T{});
  return static_cast<float>(total);
}

template <typename T>
[[IBERIS_TARGET]] void softcap_rows(const SoftcapRows<T>& of, int64_t begin, int64_t end, float* totals,
                                    float* at_target) {
  for (int64_t r = begin; r < end; ++r) {
    T* row = of.logits + r * of.width;
    const int64_t target = of.targets[r];
    at_target[r] = 0;
    if (target >= 0 && target < of.width) {
      Lanes x = {};
      Lanes s;
      Lanes likelihood;
      x += widened(row[target]);
      softcap_each(2.0F / of.softcap, of.range, x, s, likelihood);
      at_target[r] = s[0];
    }
    totals[r] = softcap_row(of, row);
  }
}
