// One chunk's attention, to be compiled for a kind of CPU: IBERIS_TARGET is its attribute, nothing for any CPU.
// Included inside an unnamed namespace,
// behind eight.h.

template <typename T>
[[IBERIS_TARGET, gnu::always_inline]] inline float dot(const float* q, const T* key, int64_t size) {
  Eight even = {};
  Eight odd = {};
  int64_t i = 0;
  for (; i + 2 * kEight <= size; i += 2 * kEight) {
    Eight a;
    Eight b;
    load(q + i, a);
    load(key + i, b);
    even += a * b;
    load(q + i + kEight, a);
    load(key + i + kEight, b);
    odd += a * b;
  }
  const Eight sum = even + odd;
  float total = total_of(sum);
  for (; i < size; ++i) total += q[i] * widened(key[i]);
  return total;
}

template <typename T>
[[IBERIS_TARGET, gnu::always_inline]] inline void add_weighted(float weight, const T* value, int64_t size, float* to) {
  int64_t i = 0;
  for (; i + kEight <= size; i += kEight) {
    Eight sum;
    Eight numbers;
    load(to + i, sum);
    load(value + i, numbers);
    sum += weight * numbers;
    std::memcpy(to + i, &sum, sizeof(sum));
  }
  for (; i < size; ++i) to[i] += weight * widened(value[i]);
}

// Scores [kChunk] -> weights below the largest, in place; the largest and the weights' sum go to part.
[[IBERIS_TARGET]] inline void weigh(float* scores, float* part) {
  Eight most;
  Eight x;
  load(scores, most);
  for (int64_t s = kEight; s < kChunk; s += kEight) {
    load(scores + s, x);
    most = (x > most) | (x != x) ? x : most;
  }
  float largest = most[0];
  for (int i = 1; i < kEight; ++i) largest = most[i] > largest || most[i] != most[i] ? most[i] : largest;
  Eight sums = {};
  for (int64_t s = 0; s < kChunk; s += kEight) {
    load(scores + s, x);
    x -= largest;
    exponentiate(x);
    sums += x;
    std::memcpy(scores + s, &x, sizeof(x));
  }
  part[0] = largest;
  part[1] = total_of(sums);
}

// kSize: the heads' size where the compiler should know it; 0: of.size.
template <typename T, int64_t kSize>
[[IBERIS_TARGET]] void attend_chunk_of_size(const SingleQueries<T>& of, int64_t request, int64_t first, int64_t last,
                                            float* scores, float* parts) {
  const int64_t size = kSize ? kSize : of.size;
  const int64_t stride = kPartHeader + size;
  const int64_t row = of.kv_heads * size;
  const int64_t sharing = of.heads / of.kv_heads;
  const int64_t start = of.starts[request] + first;
  const int64_t count = last - first;
  const T* q = of.q + request * of.heads * size;
  const float scale = 1.0F / std::sqrt(static_cast<float>(size));
  for (int64_t h = 0; h < of.heads; ++h) {  // the queries lie where the values will be summed
    for (int64_t d = 0; d < size; ++d) parts[h * stride + kPartHeader + d] = widened(q[h * size + d]) * scale;
  }
  for (int64_t s = 0; s < count; ++s) {
    const T* key = of.keys + (start + s) * row;
    const float* query = parts + kPartHeader;
    float* score = scores + s;
    for (int64_t kv = 0; kv < of.kv_heads; ++kv, key += size) {
      for (int64_t i = 0; i < sharing; ++i, query += stride, score += kChunk) *score = dot(query, key, size);
    }
  }
  for (int64_t h = 0; h < of.heads; ++h) {
    std::fill(scores + h * kChunk + count, scores + (h + 1) * kChunk, -std::numeric_limits<float>::infinity());
    weigh(scores + h * kChunk, parts + h * stride);
    std::fill_n(parts + h * stride + kPartHeader, size, 0.0F);
  }
  for (int64_t s = 0; s < count; ++s) {
    const T* value = of.values + (start + s) * row;
    float* sum = parts + kPartHeader;
    const float* weight = scores + s;
    for (int64_t kv = 0; kv < of.kv_heads; ++kv, value += size) {
      for (int64_t i = 0; i < sharing; ++i, sum += stride, weight += kChunk) add_weighted(*weight, value, size, sum);
    }
  }
}

template <typename T>
void attend_chunk(const SingleQueries<T>& of, int64_t request, int64_t first, int64_t last, float* scores,
                  float* parts) {
  const auto attend = of.size == 64    ? attend_chunk_of_size<T, 64>
                      : of.size == 128 ? attend_chunk_of_size<T, 128>
                                       : attend_chunk_of_size<T, 0>;
  attend(of, request, first, last, scores, parts);
}
