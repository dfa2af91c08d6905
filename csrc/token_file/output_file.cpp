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

void OutputFile::append_bytes(Span<const unsigned char> bytes) {
  require_open();
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  if (buffer_.size() >= kBufferBytes) flush();
}

void OutputFile::flush() {
  require_open();
  write(flushed_, buffer_);
  flushed_ += buffer_.size();
  buffer_.clear();
}

void OutputFile::read_bytes(uint64_t offset, Span<unsigned char> bytes) {
  require_open();
  for (uint64_t done = 0; done < bytes.size();) {
    const auto from = static_cast<off_t>(offset + done);
    const ssize_t got = ::pread(descriptor_, bytes.data() + done, bytes.size() - done, from);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = EIO;  // someone else has cut the file
    if (got <= 0) fail("cannot read back");
    done += static_cast<uint64_t>(got);
  }
}

void OutputFile::overwrite(uint64_t offset, Span<const unsigned char> bytes) {
  require_open();
  write(offset, bytes);
}

void OutputFile::write(uint64_t offset, Span<const unsigned char> bytes) {
  for (uint64_t done = 0; done < bytes.size();) {
    const auto to = static_cast<off_t>(offset + done);
    const ssize_t written = ::pwrite(descriptor_, bytes.data() + done, bytes.size() - done, to);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("cannot write");
    done += static_cast<uint64_t>(written);
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
  if (descriptor_ < 0) throw std::invalid_argument("the file is closed: start a new writer.");
}

void OutputFile::fail(const char* what) {
  const int code = errno;
  close();
  throw_errno(what, path_, code);
}

}  // namespace iberis
