#include "launch/standard_streams.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tensor/error.hpp"

namespace switchyard {

void hold_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number is this one. Opened the wrong way round: what is lost shall not look
    // as if it had been written.
    const int held = ::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    if (held != stream)
      throw IoError(fmt::format(
          "standard stream {} is closed and cannot be held with /dev/null: {}; leave it open",
          stream, held < 0 ? std::strerror(errno) : "another file has its place"));
  }
}

}  // namespace switchyard
