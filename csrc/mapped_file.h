// A file mapped into memory for reading, as long as this lives.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

namespace iberis {

class MappedFile {
 public:
  // std::invalid_argument for what cannot be opened, is not a file, or does not fit into memory.
  explicit MappedFile(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
      throw std::invalid_argument("cannot open " + path + " (" + std::strerror(errno) + "): check its name and rights.");
    }
    struct stat status{};
    const bool is_file = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
    const uint64_t bytes = is_file ? static_cast<uint64_t>(status.st_size) : 0;
    void* data = bytes == 0 ? nullptr : ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, descriptor, 0);
    const int code = errno;
    ::close(descriptor);
    if (!is_file) throw std::invalid_argument(path + " is not a file: give the prefix of a .bin and .idx pair.");
    if (data == MAP_FAILED) {
      throw std::invalid_argument("cannot map " + path + " into memory (" + std::strerror(code) + "): free memory.");
    }
    data_ = static_cast<const unsigned char*>(data);
    bytes_ = bytes;
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() {
    if (bytes_ != 0) ::munmap(const_cast<unsigned char*>(data_), bytes_);
  }

  const unsigned char* data() const { return data_; }  // null for an empty file
  uint64_t bytes() const { return bytes_; }

 private:
  const unsigned char* data_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace iberis
