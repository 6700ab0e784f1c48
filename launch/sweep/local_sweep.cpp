#include "launch/sweep/local_sweep.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <ostream>
#include <thread>

#include "launch/program_place.hpp"
#include "launch/sweep/child_process.hpp"
#include "launch/sweep/point_state.hpp"
#include "launch/sweep/study_folder.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

constexpr int most_starts = 3;  // of a point whose ranks hang or die

// The last thing that the program said of itself in its output; else how it ended.
std::string last_words(const std::string& log, std::uintmax_t from, int code) {
  std::ifstream file(log);
  file.seekg(static_cast<std::streamoff>(from));
  std::string line, found;
  while (std::getline(file, line))
    if (line.starts_with("switchyard: ") || line.starts_with("mpirun.sh: ")) found = line;
  return found.empty()
             ? fmt::format("ended with code {} without a word; {} has its output", code, log)
             : found;
}

class LocalSweep {
 public:
  LocalSweep(const Study& study, const LocalSweepSettings& settings, std::ostream& out)
      : study_(study), settings_(settings), out_(out) {}

  SweepResult run() {
    const FileLock lock = hold_study_on_this_host(study_.file);
    while (!settings_.is_stopped()) {
      const bool has_started = start_all();
      if (settings_.is_stopped()) break;
      if (has_started) continue;
      if (!others_run()) break;
      wait();
    }
    return result();
  }

 private:
  // Starts what can be started, each once; whether there was any.
  bool start_all() {
    bool has_started = false;
    for (std::size_t i = 0; i < study_.points.size() && !settings_.is_stopped(); ++i) {
      const StudyPoint& point = study_.points[i];
      if (!may_start(point)) continue;
      start(point, i);
      has_started = true;
    }
    return has_started;
  }

  bool may_start(const StudyPoint& point) {
    const PointState state = state_of(study_.folder_of(point), point.num_steps());
    if (state.status == PointStatus::done || state.status == PointStatus::running) return false;
    const int starts = num_starts_[point.name];
    if (state.status == PointStatus::failed && (!settings_.retry || starts > 0)) return false;
    return starts < most_starts && is_done(point.parent);
  }

  bool is_done(const std::string& name) const {
    if (name.empty()) return true;
    for (const StudyPoint& point : study_.points)
      if (point.name == name)
        return state_of(study_.folder_of(point), point.num_steps()).status == PointStatus::done;
    return false;
  }

  std::vector<std::string> command(const StudyPoint& point) const {
    const std::string config = study_.folder_of(point) + "/point.yaml";
    if (point.ranks == 1) return {path_of_program(), "train", config};
    const std::string script = script_of_launch("mpirun.sh");
    if (script.empty())
      throw ConfigError(
          "points of several ranks are started by launch/mpirun.sh, which does not lie beside the "
          "program: run it where it was built or installed, or use --slurm");
    return {"env", "SWITCHYARD=" + path_of_program(), script, config,
            "-n",  std::to_string(point.ranks)};
  }

  void start(const StudyPoint& point, std::size_t index) {
    const std::string folder = study_.folder_of(point);
    const std::vector<std::string> words = command(point);
    prepare_point(study_, point);
    forget_attempt(folder);
    ++num_starts_[point.name];
    const std::string log = folder + "/output.log";
    std::error_code error;
    const std::uintmax_t log_size = std::filesystem::file_size(log, error);
    out_ << fmt::format("{} ({} of {}): {}", point.name, index + 1, study_.points.size(),
                        point.settings_text)
         << std::endl;
    const int code = run_child(words, log, settings_.is_stopped);
    PointState state = state_of(folder, point.num_steps());
    // What the run could not write itself: it was refused, or did not begin.
    if (code != 0 && code < 128 && state.exit_code != code && !settings_.is_stopped()) {
      write_attempt(folder, code, last_words(log, error ? 0 : log_size, code));
      state = state_of(folder, point.num_steps());
    }
    const bool has_reason = !state.reason.empty() && state.status != PointStatus::done;
    out_ << fmt::format("  {}{}", name_of(state.status), has_reason ? ": " + state.reason : "")
         << std::endl;
  }

  bool others_run() const {
    return std::any_of(study_.points.begin(), study_.points.end(), [&](const StudyPoint& point) {
      return state_of(study_.folder_of(point), point.num_steps()).status == PointStatus::running;
    });
  }

  // For the points that run elsewhere: branches may hang on them, and the file is of all.
  void wait() {
    if (!is_waiting_) out_ << "waiting for points that run elsewhere" << std::endl;
    is_waiting_ = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }

  SweepResult result() const {
    SweepResult result;
    result.was_stopped = settings_.is_stopped();
    for (const StudyPoint& point : study_.points) {
      const bool done =
          state_of(study_.folder_of(point), point.num_steps()).status == PointStatus::done;
      ++(done ? result.num_done : result.num_failed);
    }
    return result;
  }

  const Study& study_;
  const LocalSweepSettings& settings_;
  std::ostream& out_;
  std::map<std::string, int> num_starts_;
  bool is_waiting_ = false;
};

}  // namespace

SweepResult run_locally(const Study& study, const LocalSweepSettings& settings, std::ostream& out) {
  return LocalSweep(study, settings, out).run();
}

}  // namespace switchyard
