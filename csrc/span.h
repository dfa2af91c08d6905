// Elements one after the other in memory that someone else owns: what C++20 calls std::span.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

namespace iberis {

template <typename T>
class Span {
 public:
  constexpr Span() = default;
  constexpr Span(T* data, uint64_t size) : data_(data), size_(size) {}
  // All elements of a vector, which must outlive this.
  template <typename U, typename = std::enable_if_t<std::is_convertible_v<U (*)[], T (*)[]>>>
  Span(std::vector<U>& vector) : Span(vector.data(), vector.size()) {}
  template <typename U, typename = std::enable_if_t<std::is_convertible_v<const U (*)[], T (*)[]>>>
  Span(const std::vector<U>& vector) : Span(vector.data(), vector.size()) {}

  constexpr T* data() const { return data_; }
  constexpr uint64_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr T& operator[](uint64_t i) const { return data_[i]; }
  constexpr T* begin() const { return data_; }
  constexpr T* end() const { return data_ + size_; }

 private:
  T* data_ = nullptr;
  uint64_t size_ = 0;
};

// The same memory as bytes.
template <typename T>
Span<const unsigned char> bytes_of(Span<T> span) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<const unsigned char*>(span.data()), span.size() * sizeof(T)};
}

template <typename T>
Span<unsigned char> writable_bytes_of(Span<T> span) {
  static_assert(std::is_trivially_copyable_v<T> && !std::is_const_v<T>);
  return {reinterpret_cast<unsigned char*>(span.data()), span.size() * sizeof(T)};
}

}  // namespace iberis
