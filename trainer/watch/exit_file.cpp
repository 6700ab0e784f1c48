#include "trainer/watch/exit_file.hpp"

#include <fmt/chrono.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "data/files/atomic_file.hpp"
#include "trainer/watch/side_files.hpp"

namespace switchyard {

std::string utc_now() {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(seconds));
}

namespace {

std::string exit_text(ExitCode code, const std::string& reason, std::int64_t step) {
  const nlohmann::ordered_json json = {
      {"code", static_cast<int>(code)}, {"reason", reason}, {"step", step}, {"time", utc_now()}};
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

void write_exit_file(const std::string& run_folder, ExitCode code, const std::string& reason,
                     std::int64_t step) {
  write_file_atomically(run_folder + "/exit.json", exit_text(code, reason, step));
}

void write_exit_file_at_once(const std::string& run_folder, ExitCode code,
                             const std::string& reason, std::int64_t step) {
  write_file_at_once(run_folder + "/exit.json", exit_text(code, reason, step));
}

void remove_exit_file(const std::string& run_folder) {
  ::unlink((run_folder + "/exit.json").c_str());
}

}  // namespace switchyard
