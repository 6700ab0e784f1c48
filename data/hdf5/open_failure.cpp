#include "data/hdf5/open_failure.hpp"

#include <fmt/core.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <fstream>
#include <sstream>

#include "data/files/utf8.hpp"
#include "data/hdf5/hdf5.hpp"
#include "tensor/error.hpp"

namespace switchyard::hdf5 {

namespace {

// " by process 12 (python3)", of the process on this host that holds a lock on the file; empty when
// /proc/locks shows none (it is on another host, or another user's).
std::string holder_of_lock(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return "";
  const std::string file =
      fmt::format("{:02x}:{:02x}:{}", major(status.st_dev), minor(status.st_dev), status.st_ino);
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    // "1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF"
    std::istringstream words(line);
    std::string number, kind, advice, mode, where;
    long process = 0;
    if (!(words >> number >> kind >> advice >> mode >> process >> where) || where != file) continue;
    std::string name;
    std::getline(std::ifstream(fmt::format("/proc/{}/comm", process)), name);
    return fmt::format(" by process {}{}", process, name.empty() ? "" : " (" + name + ")");
  }
  return "";
}

}  // namespace

std::string beginning_of(const std::string& path) {
  constexpr std::streamsize most = 4096;
  std::string bytes(most, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(bytes.data(), most);
  bytes.resize(static_cast<std::size_t>(file.gcount()));
  return bytes;
}

bool is_text(const std::string& path) {
  std::string bytes = beginning_of(path);
  bytes.resize(complete_utf8_prefix(bytes));
  return !bytes.empty() && bytes.find('\0') == std::string::npos &&
         first_invalid_utf8(bytes) == bytes.size();
}

void fail_to_open(const std::string& path, std::string_view reasons) {
  if (reasons.find("unable to lock file") != std::string_view::npos) {
    const bool is_held = reasons.find("errno = 11,") != std::string_view::npos;
    if (is_held)
      throw IoError(
          fmt::format("{}: is in use: it is locked{}; wait until that has closed it, or end it",
                      path, holder_of_lock(path)));
    throw IoError(
        fmt::format("{}: cannot be locked: {}; where the file system knows no locks, set the "
                    "environment variable HDF5_USE_FILE_LOCKING=FALSE",
                    path, reasons));
  }
  const std::string bytes = beginning_of(path);
  if (bytes.empty()) throw DataError(fmt::format("{}: is empty, or cannot be read", path));
  if (is_text(path)) throw DataError(fmt::format("{}: is a text, not an HDF5 file", path));
  if (!bytes.starts_with(signature))
    throw DataError(fmt::format(
        "{}: does not begin as an HDF5 file: it is another kind of file, or damaged", path));
  throw DataError(fmt::format(
      "{}: cannot open as an HDF5 file (it may be damaged or cut short): {}", path, reasons));
}

}  // namespace switchyard::hdf5
