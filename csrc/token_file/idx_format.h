// Megatron's .idx file, the one place that knows its layout (all numbers little-endian):
//
//   bytes            what
//   9                magic "MMIDIDX\0\0"
//   8                version, 1
//   1                dtype code of the tokens in the .bin: 8 = uint16, 4 = int32
//   8                S, number of sequences
//   8                D, number of documents + 1
//   4 * S            int32 length of each sequence, in tokens
//   8 * S            int64 offset of each sequence in the .bin, in bytes
//   8 * D            int64 document index: document d is the sequences [index[d], index[d + 1])
//
// The header is 34 bytes, so no array in the file is aligned: go through Array and load(), never through a cast pointer.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "token files are little-endian and are mapped as they are: a big-endian machine cannot read them"
#endif

namespace iberis::idx {

constexpr char kMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
constexpr uint64_t kVersion = 1;
constexpr uint64_t kHeaderBytes = 34;

// Bytes of one token, 0 for a dtype that token files do not use.
constexpr int64_t token_bytes(int dtype_code) { return dtype_code == 8 ? 2 : dtype_code == 4 ? 4 : 0; }

struct Header {
  int dtype_code = 0;
  uint64_t sequences = 0;
  uint64_t documents_plus_one = 0;

  std::array<unsigned char, kHeaderBytes> packed() const {
    std::array<unsigned char, kHeaderBytes> bytes;
    const auto code = static_cast<uint8_t>(dtype_code);
    std::memcpy(bytes.data(), kMagic, 9);
    std::memcpy(bytes.data() + 9, &kVersion, 8);
    std::memcpy(bytes.data() + 17, &code, 1);
    std::memcpy(bytes.data() + 18, &sequences, 8);
    std::memcpy(bytes.data() + 26, &documents_plus_one, 8);
    return bytes;
  }
};

// A number that may lie anywhere.
template <typename T>
T load(const unsigned char* data) {
  T value;
  std::memcpy(&value, data, sizeof(T));
  return value;
}

// An array of the file, in the mapped memory.
template <typename T>
class Array {
 public:
  Array() = default;
  Array(const unsigned char* data, uint64_t size) : data_(data), size_(size) {}

  const unsigned char* data() const { return data_; }
  const unsigned char* end() const { return data_ + size_ * sizeof(T); }
  uint64_t size() const { return size_; }
  T operator[](uint64_t i) const { return load<T>(data_ + i * sizeof(T)); }

 private:
  const unsigned char* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace iberis::idx
