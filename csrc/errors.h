// What a user can mend: a damaged file, a setting that asks for too much. Python's megatron_iberis.errors.InputError.
//
// Wrong arguments of the calling program are std::invalid_argument (ValueError), and a failing system call is a
// std::filesystem::filesystem_error (OSError).
#pragma once

#include <stdexcept>

namespace iberis {

struct InputError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

}  // namespace iberis
