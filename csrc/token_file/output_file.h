// A file that is appended to through a buffer and can be read back and patched before it is closed.
//
// * Every failing system call throws std::filesystem::filesystem_error, which becomes Python's OSError with its errno
//   (so that a full disk can be told from other faults).
// * After a failure the file is closed and every further call throws: nothing is ever finished with a hole in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "span.h"

namespace iberis {

class OutputFile {
 public:
  // Creates the file, or empties the one that is there.
  static OutputFile create(const std::filesystem::path& path);
  // A file without a name beside `path`: it is gone when it is closed, also after kill -9.
  static OutputFile spool_beside(const std::filesystem::path& path);

  OutputFile(OutputFile&& other) noexcept;
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile() { close(); }

  template <typename T>
  void append(const T& value) {
    append_bytes(bytes_of(Span<const T>(&value, 1)));
  }
  template <typename T>
  void append(const std::vector<T>& values) {
    append_bytes(bytes_of(Span<const T>(values)));
  }
  void flush();
  // Fills `values` with what was flushed from the byte `offset` on.
  template <typename T>
  void read(uint64_t offset, std::vector<T>& values) {
    read_bytes(offset, writable_bytes_of(Span<T>(values)));
  }
  void overwrite(uint64_t offset, Span<const unsigned char> bytes);
  // Everything is on the disk when this returns.
  void sync();
  // Without flushing: for files that are not wanted any more, and after sync().
  void close() noexcept;

 private:
  OutputFile(int descriptor, std::filesystem::path path);
  void append_bytes(Span<const unsigned char> bytes);
  void read_bytes(uint64_t offset, Span<unsigned char> bytes);
  void write(uint64_t offset, Span<const unsigned char> bytes);
  void require_open() const;
  [[noreturn]] void fail(const char* what);

  int descriptor_;
  std::filesystem::path path_;
  std::vector<unsigned char> buffer_;
  uint64_t flushed_ = 0;
};

}  // namespace iberis
