// A tile of a sequence, to be compiled for a kind of CPU. Included inside an unnamed namespace, behind lanes.h.
//
// Rows of numbers lie in rings of the last `kernel` steps, in fp32, each head filled up with zeros to whole vectors.

// Up to kWide numbers, filled up with zeros.
template <typename T>
[[IBERIS_TARGET, gnu::always_inline]] inline void load_some(const T* from, int64_t count, Lanes& to) {
  if (count >= kWide) return load(from, to);
  T filled[kWide] = {};
  std::copy(from, from + count, filled);
  load(filled, to);
}

template <typename T>
[[IBERIS_TARGET, gnu::always_inline]] inline void store_some(const Lanes& numbers, int64_t count, T* to) {
  if (count >= kWide) return store(numbers, to);
  T filled[kWide];
  store(numbers, filled);
  std::copy(filled, filled + count, to);
}

// x / (1 + e^-x), and its derivative.
[[IBERIS_TARGET, gnu::always_inline]] inline void silu_and_slope(const Lanes& x, Lanes& silu_of, Lanes& slope) {
  const Lanes zero = {};
  Lanes power = x < 0 ? x : -x;
  exponentiate(power);  // e^-|x|, which cannot overflow
  const Lanes inverse = 1.0F / (1.0F + power);
  const Lanes sigmoid = (x < 0 ? power : zero + 1.0F) * inverse;
  silu_of = x * sigmoid;
  slope = sigmoid + silu_of * ((x < 0 ? zero + 1.0F : power) * inverse);
}

template <typename T>
class Tile {
 public:
  // `rings`: how many of them.
  Tile(const Mixing<T>& of, int64_t item, int64_t rings)
      : of_(of),
        first_(item / of.batch * kTileSteps),
        end_(std::min(of.time, first_ + kTileSteps)),
        n_(item % of.batch),
        padded_((of.size + kWide - 1) / kWide * kWide),
        row_(of.heads * padded_),
        memory_(static_cast<size_t>((rings + 1) * of.kernel * row_ + of.heads + kWide)),
        gates_(static_cast<size_t>(row_)) {
    float* tap = memory_.data();
    for (int64_t j = 0; j < of.kernel * of.heads; ++j, tap += padded_) {
      for (int64_t d = 0; d < of.size; ++d) tap[d] = widened(of.taps[j * of.size + d]);
    }
  }

 protected:
  float* ring(int64_t which, int64_t t) {
    return memory_.data() + ((which + 1) * of_.kernel + (t + of_.kernel) % of_.kernel) * row_;
  }
  const float* tap(int64_t back) const { return memory_.data() + (of_.kernel - 1 - back) * row_; }
  float* heads() { return memory_.data() + memory_.size() - of_.heads - kWide; }
  int64_t at(int64_t t) const { return t * of_.batch + n_; }
  int64_t earliest() const { return std::max(first_ - (of_.kernel - 1), of_.past ? 1 - of_.kernel : 0); }

  // SiLU(alpha), to heads().
  [[IBERIS_TARGET]] void gates_of_heads(int64_t t) {
    for (int64_t h = 0; h < of_.heads; h += kWide) {
      Lanes gate;
      load_some(of_.alpha + at(t) * of_.heads + h, of_.heads - h, gate);
      silu(gate);
      store(gate, heads() + h);
    }
  }

  // The past's u.
  [[IBERIS_TARGET]] void recall(int64_t t, float* u) {
    const T* from = of_.past + ((t + of_.kernel - 1) * of_.batch + n_) * of_.width();
    for (int64_t h = 0; h < of_.heads; ++h) {
      for (int64_t d = 0; d < of_.size; ++d) u[h * padded_ + d] = widened(from[h * of_.size + d]);
    }
  }

  // 1 / RMS of the numbers whose squares these are the sums of.
  [[IBERIS_TARGET]] float inverse_rms(const Lanes& squares) const {
    return 1.0F / std::sqrt(total_of(squares) / static_cast<float>(of_.width()) + *of_.norm_eps);
  }

  // The convolution at step t, of the numbers from `place` on in a row. Ring 0 is u's.
  [[IBERIS_TARGET, gnu::always_inline]] inline void convolve(int64_t t, int64_t reach, int64_t place, Lanes& z) {
    z = Lanes{};
    for (int64_t back = reach; back >= 0; --back) {
      Lanes u;
      Lanes weight;
      load(ring(0, t - back) + place, u);
      load(tap(back) + place, weight);
      z += weight * u;
    }
  }

  const Mixing<T>& of_;
  const int64_t first_;
  const int64_t end_;
  const int64_t n_;
  const int64_t padded_;
  const int64_t row_;
  std::vector<float> memory_;
  std::vector<float> gates_;  // a step's SiLU(z); forward: times b
};

template <typename T>
class ForwardTile : Tile<T> {
  using Tile<T>::of_;
  using Tile<T>::at;
  using Tile<T>::padded_;
  using Tile<T>::ring;

 public:
  ForwardTile(const Mixing<T>& of, int64_t item) : Tile<T>(of, item, 1) {}

  [[IBERIS_TARGET]] void run(T* y) {
    for (int64_t t = this->earliest(); t < this->end_; ++t) {
      if (t < 0) {
        this->recall(t, ring(0, t));
        continue;
      }
      this->gates_of_heads(t);
      for (int64_t h = 0; h < of_.heads; ++h) take_in(t, h);
      if (t < this->first_) continue;
      give_out(t, y);
    }
  }

 private:
  [[IBERIS_TARGET]] void take_in(int64_t t, int64_t h) {
    for (int64_t d = 0; d < of_.size; d += kWide) {
      Lanes gate;
      Lanes x;
      load_some(of_.a + at(t) * of_.size + d, of_.size - d, gate);
      load_some(of_.x + at(t) * of_.width() + h * of_.size + d, of_.size - d, x);
      gate *= this->heads()[h];
      silu(gate);
      store(gate * x, ring(0, t) + h * padded_ + d);
    }
  }

  [[IBERIS_TARGET]] void give_out(int64_t t, T* y) {
    const int64_t reach = of_.reach(t, this->n_);
    Lanes squares = {};
    for (int64_t h = 0; h < of_.heads; ++h) {
      for (int64_t d = 0; d < of_.size; d += kWide) {
        const int64_t place = at(t) * of_.width() + h * of_.size + d;
        Lanes mixed;
        Lanes b;
        this->convolve(t, reach, h * padded_ + d, mixed);
        silu(mixed);
        load_some(of_.b + place, of_.size - d, b);
        mixed *= b;
        if (of_.norm_eps) {
          squares += mixed * mixed;
          store(mixed, this->gates_.data() + h * padded_ + d);
        } else {
          store_some(mixed, of_.size - d, y + place);
        }
      }
    }
    if (of_.norm_eps) give_out_normed(t, this->inverse_rms(squares), y);
  }

  [[IBERIS_TARGET]] void give_out_normed(int64_t t, float scale, T* y) {
    for (int64_t h = 0; h < of_.heads; ++h) {
      for (int64_t d = 0; d < of_.size; d += kWide) {
        Lanes mixed;
        load(this->gates_.data() + h * padded_ + d, mixed);
        store_some(mixed * scale, of_.size - d, y + at(t) * of_.width() + h * of_.size + d);
      }
    }
  }
};

template <typename T>
class BackwardTile : Tile<T> {
  using Tile<T>::of_;
  using Tile<T>::at;
  using Tile<T>::padded_;
  using Tile<T>::ring;
  static constexpr int64_t kU = 0, kDz = 1, kGate = 2, kByOuter = 3;  // rings

 public:
  BackwardTile(const Mixing<T>& of, int64_t item, const MixingGradient<T>& to)
      : Tile<T>(of, item, 4),
        to_(to),
        taps_(static_cast<size_t>(of.kernel * this->row_)),
        slopes_(static_cast<size_t>(this->row_)),
        a_(static_cast<size_t>(padded_)),
        item_(item) {}

  [[IBERIS_TARGET]] void run() {
    const int64_t back = of_.kernel - 1;
    const int64_t first = this->first_ == 0 && of_.past ? -back : this->first_;
    for (int64_t t = this->earliest(); t < this->end_ + back; ++t) {
      if (t < 0) {
        this->recall(t, ring(kU, t));
      } else if (t < of_.time) {
        see(t);
      }
      if (t - back >= first) finish(t - back);
    }
    float* taps = to_.taps + item_ * of_.kernel * of_.width();
    for (int64_t i = 0; i < of_.kernel * of_.heads; ++i) {
      std::copy_n(taps_.data() + i * padded_, of_.size, taps + i * of_.size);
    }
  }

 private:
  // u, and from the tile's first step on z with the gradients by it, by b and by the taps.
  [[IBERIS_TARGET]] void see(int64_t t) {
    this->gates_of_heads(t);
    const int64_t reach = of_.reach(t, this->n_);
    Lanes squares = {};
    Lanes products = {};  // of y before the norm with the gradient by y
    for (int64_t h = 0; h < of_.heads; ++h) {
      for (int64_t d = 0; d < of_.size; d += kWide) {
        take_in(t, h, d);
        if (t < this->first_) continue;
        Lanes z;
        Lanes gate;
        Lanes slope;
        this->convolve(t, reach, h * padded_ + d, z);
        silu_and_slope(z, gate, slope);
        if (of_.norm_eps) {
          keep_for_norm(t, h, d, gate, slope, squares, products);
        } else {
          through_output(t, reach, h, d, gate, slope, 1.0F, 0.0F);
        }
      }
    }
    if (of_.norm_eps && t >= this->first_) through_norm(t, reach, squares, products);
  }

  [[IBERIS_TARGET, gnu::always_inline]] inline void keep_for_norm(int64_t t, int64_t h, int64_t d, const Lanes& gate,
                                                                  const Lanes& slope, Lanes& squares, Lanes& products) {
    const int64_t outside = at(t) * of_.width() + h * of_.size + d;
    store(gate, this->gates_.data() + h * padded_ + d);
    store(slope, slopes_.data() + h * padded_ + d);
    Lanes b;
    Lanes dy;
    load_some(of_.b + outside, of_.size - d, b);
    load_some(to_.y + outside, of_.size - d, dy);
    const Lanes mixed = b * gate;
    squares += mixed * mixed;
    products += mixed * dy;
  }

  [[IBERIS_TARGET]] void through_norm(int64_t t, int64_t reach, const Lanes& squares, const Lanes& products) {
    const float scale = this->inverse_rms(squares);
    const float pull = scale * scale * total_of(products) / static_cast<float>(of_.width());
    for (int64_t h = 0; h < of_.heads; ++h) {
      for (int64_t d = 0; d < of_.size; d += kWide) {
        Lanes gate;
        Lanes slope;
        load(this->gates_.data() + h * padded_ + d, gate);
        load(slopes_.data() + h * padded_ + d, slope);
        through_output(t, reach, h, d, gate, slope, scale, pull);
      }
    }
  }

  [[IBERIS_TARGET, gnu::always_inline]] inline void take_in(int64_t t, int64_t h, int64_t d) {
    Lanes outer;
    Lanes x;
    Lanes gate;
    Lanes slope;
    load_some(of_.a + at(t) * of_.size + d, of_.size - d, outer);
    load_some(of_.x + at(t) * of_.width() + h * of_.size + d, of_.size - d, x);
    outer *= this->heads()[h];
    silu_and_slope(outer, gate, slope);
    const int64_t place = h * padded_ + d;
    store(gate * x, ring(kU, t) + place);
    store(gate, ring(kGate, t) + place);
    store(slope * x, ring(kByOuter, t) + place);
  }

  // scale, pull: before the norm the gradient is scale * (dy - pull * y).
  [[IBERIS_TARGET, gnu::always_inline]] inline void through_output(int64_t t, int64_t reach, int64_t h, int64_t d,
                                                                   const Lanes& gate, const Lanes& slope, float scale,
                                                                   float pull) {
    const int64_t outside = at(t) * of_.width() + h * of_.size + d;
    const int64_t place = h * padded_ + d;
    const int64_t count = of_.size - d;
    Lanes b;
    Lanes dy;
    load_some(of_.b + outside, count, b);
    load_some(to_.y + outside, count, dy);
    if (of_.norm_eps) dy = scale * (dy - pull * b * gate);
    const Lanes dz = dy * b * slope;
    store(dz, ring(kDz, t) + place);
    if (t >= this->end_) return;
    store_some(dy * gate, count, to_.b + outside);
    for (int64_t back = 0; back <= reach; ++back) {
      float* sum = taps_.data() + (of_.kernel - 1 - back) * this->row_ + place;
      Lanes so_far;
      Lanes u;
      load(sum, so_far);
      load(ring(kU, t - back) + place, u);
      store(so_far + dz * u, sum);
    }
  }

  // The gradients by a step's u, and by what it is made of.
  [[IBERIS_TARGET]] void finish(int64_t t) {
    if (t < 0) {
      T* past = to_.past + ((t + of_.kernel - 1) * of_.batch + this->n_) * of_.width();
      for (int64_t h = 0; h < of_.heads; ++h) {
        for (int64_t d = 0; d < of_.size; d += kWide) {
          Lanes du;
          by_input(t, h * padded_ + d, du);
          store_some(du, of_.size - d, past + h * of_.size + d);
        }
      }
      return;
    }
    this->gates_of_heads(t);
    std::fill(a_.begin(), a_.end(), 0.0F);
    for (int64_t h = 0; h < of_.heads; ++h) through_gate(t, h);
    for (int64_t d = 0; d < of_.size; ++d) narrow(a_[d], to_.a + at(t) * of_.size + d);
  }

  [[IBERIS_TARGET]] void through_gate(int64_t t, int64_t h) {
    const float gate_of_head = this->heads()[h];
    Lanes by_head = {};
    for (int64_t d = 0; d < of_.size; d += kWide) {
      const int64_t place = h * padded_ + d;
      Lanes du;
      Lanes numbers;
      by_input(t, place, du);
      load(ring(kGate, t) + place, numbers);
      store_some(du * numbers, of_.size - d, to_.x + at(t) * of_.width() + h * of_.size + d);
      load(ring(kByOuter, t) + place, numbers);
      const Lanes by_outer = du * numbers;
      load_some(of_.a + at(t) * of_.size + d, of_.size - d, numbers);
      by_head += by_outer * numbers;
      load(a_.data() + d, numbers);
      store(numbers + by_outer * gate_of_head, a_.data() + d);
    }
    Lanes alpha = {};
    Lanes gate;
    Lanes slope;
    alpha += widened(of_.alpha[at(t) * of_.heads + h]);
    silu_and_slope(alpha, gate, slope);
    narrow(slope[0] * total_of(by_head), to_.alpha + at(t) * of_.heads + h);
  }

  [[IBERIS_TARGET, gnu::always_inline]] inline void by_input(int64_t t, int64_t place, Lanes& du) {
    du = Lanes{};
    for (int64_t back = 0; back < of_.kernel && t + back < of_.time; ++back) {
      if (t + back < 0 || back > of_.reach(t + back, this->n_)) continue;
      Lanes dz;
      Lanes weight;
      load(ring(kDz, t + back) + place, dz);
      load(this->tap(back) + place, weight);
      du += weight * dz;
    }
  }

  const MixingGradient<T>& to_;
  std::vector<float> taps_;
  std::vector<float> slopes_;  // a step's derivatives of SiLU at z
  std::vector<float> a_;
  const int64_t item_;
};

template <typename T>
[[IBERIS_TARGET]] void mix_tile(const Mixing<T>& of, int64_t item, T* y) {
  ForwardTile<T>(of, item).run(y);
}

template <typename T>
[[IBERIS_TARGET]] void mix_tile_backward(const Mixing<T>& of, int64_t item, const MixingGradient<T>& to) {
  BackwardTile<T>(of, item, to).run();
}
