#include "trainer/watch/side_files.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string_view>
#include <vector>

#include "tensor/error.hpp"

namespace switchyard {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void refuse(const std::string& path, const char* what) {
  throw IoError(fmt::format("{}: cannot be {}: {}", path, what, std::strerror(errno)));
}

// Not through a temporary: a reader that sees half an old and half a new state sees numbers that
// were true within the same moment, and a rename a second and rank would be dear on shared disks.
void write_in_place(const std::string& path, const void* data, std::size_t bytes) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0) refuse(path, "opened");
  const bool written = ::pwrite(file, data, bytes, 0) == static_cast<ssize_t>(bytes);
  const int error = errno;
  ::close(file);
  errno = error;
  if (!written) refuse(path, "written");
}

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  if (file) text << file.rdbuf();
  return text.str();
}

// Those that the functions below write, and what a killed process leaves of them.
bool is_side_file(const std::string& name) {
  static const std::regex names(
      R"((claim|suspicion|rank-\d+|(rank-\d+\.stack|report\.txt)(\.\d+\.tmp)?))");
  return std::regex_match(name, names);
}

std::string_view word_of(Claim::Kind kind) {
  switch (kind) {
    case Claim::Kind::failed:
      return "failed";
    case Claim::Kind::hang:
      return "hang";
    case Claim::Kind::lost:
      return "lost";
  }
  return "?";
}

}  // namespace

void write_file_at_once(const std::string& path, const std::string& text) {
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  std::ofstream file(temporary, std::ios::trunc);
  file << text << std::flush;
  if (!file || ::rename(temporary.c_str(), path.c_str()) != 0) refuse(path, "written");
}

void SideFiles::prepare(const std::string& run_folder) {
  const std::string folder = run_folder + "/watch";
  try {
    fs::create_directories(folder);
    std::vector<fs::path> left;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder))
      if (is_side_file(entry.path().filename().string())) left.push_back(entry.path());
    for (const fs::path& path : left) fs::remove(path);
  } catch (const fs::filesystem_error& error) {
    throw IoError(fmt::format("{}: cannot be made empty: {}", error.path1().string(),
                              error.code().message()));
  }
}

SideFiles::SideFiles(const std::string& run_folder, int rank)
    : folder_(run_folder + "/watch"), rank_(rank) {}

std::string SideFiles::path_of(int rank) const {
  return fmt::format("{}/rank-{}", folder_, rank);
}

void SideFiles::write(const LogState& state) const {
  write_in_place(path_of(rank_), &state, sizeof state);
}

std::optional<LogState> SideFiles::read(int rank) const {
  LogState state;
  const int file = ::open(path_of(rank).c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  const ssize_t bytes = ::pread(file, &state, sizeof state, 0);
  ::close(file);
  if (bytes != static_cast<ssize_t>(sizeof state) || state.format != LogState::current_format)
    return std::nullopt;
  const std::optional<LogState> live = read_live(state);
  return live ? live : state;
}

bool SideFiles::claim(const Claim& claim) const {
  const std::string path = folder_ + "/claim";
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) return false;
  const std::string text =
      fmt::format("{} {} by rank {}\n", word_of(claim.kind), claim.code, rank_);
  // A reader that comes before the words takes the claim to be a hang's, and waits for the report.
  [[maybe_unused]] const ssize_t written = ::write(file, text.data(), text.size());
  ::close(file);
  return true;
}

std::optional<Claim> SideFiles::claimed() const {
  const std::string path = folder_ + "/claim";
  if (::access(path.c_str(), F_OK) != 0) return std::nullopt;
  std::istringstream words(text_of(path));
  std::string kind;
  Claim claim{.kind = Claim::Kind::hang, .code = static_cast<int>(ExitCode::hang)};
  if (!(words >> kind)) return claim;
  words >> claim.code;
  if (kind == "failed") claim.kind = Claim::Kind::failed;
  if (kind == "lost") claim.kind = Claim::Kind::lost;
  return claim;
}

bool SideFiles::suspect() const {
  const std::string path = folder_ + "/suspicion";
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) return false;
  ::close(file);
  return true;
}

void SideFiles::drop_suspicion() const {
  ::unlink((folder_ + "/suspicion").c_str());
}

void SideFiles::write_stack(const std::string& text) const {
  write_file_at_once(path_of(rank_) + ".stack", text);
}

std::string SideFiles::read_stack(int rank) const {
  return text_of(path_of(rank) + ".stack");
}

void SideFiles::write_report(const std::string& text) const {
  write_file_at_once(report_path(), text);
}

bool SideFiles::has_report() const {
  return ::access(report_path().c_str(), F_OK) == 0;
}

}  // namespace switchyard
