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
// The header is 34 bytes, so no array in the file is aligned: go through load() and never through a cast pointer.
#pragma once

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

  void pack(unsigned char* out) const {
    const auto code = static_cast<uint8_t>(dtype_code);
    std::memcpy(out, kMagic, 9);
    std::memcpy(out + 9, &kVersion, 8);
    std::memcpy(out + 17, &code, 1);
    std::memcpy(out + 18, &sequences, 8);
    std::memcpy(out + 26, &documents_plus_one, 8);
  }
};

// Element i of an unaligned array.
template <typename T>
T load(const unsigned char* array, uint64_t i) {
  T value;
  std::memcpy(&value, array + i * sizeof(T), sizeof(T));
  return value;
}

}  // namespace iberis::idx
