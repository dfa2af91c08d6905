// A file mapped into memory for reading, as long as this lives.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "errors.h"
#include "span.h"

namespace iberis {

class MappedFile {
 public:
  // InputError for what cannot be opened, is not a file, or does not fit into memory.
  explicit MappedFile(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
      throw InputError("cannot open " + path + " (" + std::strerror(errno) + "): check its name and rights.");
    }
    struct stat status{};
    const bool is_file = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
    const uint64_t bytes = is_file ? static_cast<uint64_t>(status.st_size) : 0;
    void* data = bytes == 0 ? nullptr : ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, descriptor, 0);
    const int code = errno;
    ::close(descriptor);
    if (!is_file) throw InputError(path + " is not a file: give one.");
    if (data == MAP_FAILED) {
      throw InputError("cannot map " + path + " into memory (" + std::strerror(code) + "): free memory.");
    }
    bytes_ = {static_cast<const unsigned char*>(data), bytes};
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() {
    if (!bytes_.empty()) ::munmap(const_cast<unsigned char*>(bytes_.data()), bytes_.size());
  }

  Span<const unsigned char> bytes() const { return bytes_; }

 private:
  Span<const unsigned char> bytes_;
};

}  // namespace iberis
