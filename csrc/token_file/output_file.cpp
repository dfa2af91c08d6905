#include "token_file/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>
#include <utility>

namespace iberis {
namespace {

constexpr uint64_t kBufferBytes = 1 << 20;

[[noreturn]] void throw_errno(const char* what, const std::filesystem::path& path, int code) {
  throw std::filesystem::filesystem_error(what, path, std::error_code(code, std::generic_category()));
}

// 0, or the errno of the write that failed.
int write_all(int descriptor, const unsigned char* data, uint64_t bytes, uint64_t offset) {
  while (bytes > 0) {
    const ssize_t written = ::pwrite(descriptor, data, bytes, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    data += written;
    offset += static_cast<uint64_t>(written);
    bytes -= static_cast<uint64_t>(written);
  }
  return 0;
}

}  // namespace

OutputFile::OutputFile(int descriptor, std::filesystem::path path) : descriptor_(descriptor), path_(std::move(path)) {
  buffer_.reserve(kBufferBytes);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      path_(std::move(other.path_)),
      buffer_(std::move(other.buffer_)),
      flushed_(other.flushed_) {}

OutputFile OutputFile::create(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) throw_errno("cannot create", path, errno);
  return {descriptor, path};
}

OutputFile OutputFile::spool_beside(const std::filesystem::path& path) {
  std::string name = path.string() + ".spool.XXXXXX";
  const int descriptor = ::mkstemp(name.data());
  if (descriptor < 0) throw_errno("cannot create a temporary file", path, errno);
  ::unlink(name.c_str());
  return {descriptor, path};
}

void OutputFile::append(const void* data, uint64_t bytes) {
  require_open();
  const auto* from = static_cast<const unsigned char*>(data);
  buffer_.insert(buffer_.end(), from, from + bytes);
  if (buffer_.size() >= kBufferBytes) flush();
}

void OutputFile::flush() {
  require_open();
  if (const int code = write_all(descriptor_, buffer_.data(), buffer_.size(), flushed_); code != 0) {
    errno = code;
    fail("cannot write");
  }
  flushed_ += buffer_.size();
  buffer_.clear();
}

void OutputFile::read(uint64_t offset, void* data, uint64_t bytes) {
  require_open();
  auto* to = static_cast<unsigned char*>(data);
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, to, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = EIO;  // someone else has cut the file
    if (got <= 0) fail("cannot read back");
    to += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<uint64_t>(got);
  }
}

void OutputFile::overwrite(uint64_t offset, const void* data, uint64_t bytes) {
  require_open();
  const auto* from = static_cast<const unsigned char*>(data);
  if (const int code = write_all(descriptor_, from, bytes, offset); code != 0) {
    errno = code;
    fail("cannot write");
  }
}

void OutputFile::sync() {
  flush();
  if (::fsync(descriptor_) != 0) fail("cannot write to the disk");
}

void OutputFile::close() noexcept {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

void OutputFile::require_open() const {
  if (descriptor_ < 0) throw std::invalid_argument(path_.string() + " is closed: start a new writer.");
}

void OutputFile::fail(const char* what) {
  const int code = errno;
  close();
  throw_errno(what, path_, code);
}

}  // namespace iberis
