#include "launch/sweep/slurm_sweep.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <ostream>

#include "data/files/atomic_file.hpp"
#include "data/files/shell_quote.hpp"
#include "launch/program_place.hpp"
#include "launch/sweep/child_process.hpp"
#include "launch/sweep/point_state.hpp"
#include "launch/sweep/study_folder.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

std::string jobs_file(const StudyConfig& study) {
  return study.output + "/jobs.json";
}

void require_no_jobs(const StudyConfig& study) {
  std::error_code error;
  if (!fs::exists(jobs_file(study), error)) return;
  const nlohmann::json json = nlohmann::json::parse(read_file(jobs_file(study)), nullptr, false);
  if (!json.is_object() || !json.contains("jobs")) return;
  const auto jobs = json["jobs"].get<std::vector<std::string>>();
  std::string text;
  // Squeue fails where it knows none of the jobs any more.
  const int code = run_child_for_text(
      {"squeue", "-h", "-o", "%A", "-j", fmt::format("{}", fmt::join(jobs, ","))}, text);
  if (code == 127)
    throw ConfigError("squeue is missing: this is no machine that jobs are submitted from");
  if (code == 0 && text.find_first_of("0123456789") != std::string::npos)
    throw ConfigError(
        fmt::format("jobs of the study {} are queued or run ({}): wait for them, or "
                    "scancel them first",
                    study.name, fmt::join(jobs, ", ")));
}

// The number in "job 12 submitted".
std::string job_in(const std::string& text) {
  const std::string_view before = "job ";
  for (std::size_t at = text.find(before); at != std::string::npos;
       at = text.find(before, at + 1)) {
    std::size_t end = at + before.size();
    while (end < text.size() && std::isdigit(static_cast<unsigned char>(text[end])) != 0) ++end;
    if (end > at + before.size() && text.compare(end, 10, " submitted") == 0)
      return text.substr(at + before.size(), end - at - before.size());
  }
  return {};
}

class SlurmSweep {
 public:
  SlurmSweep(const Study& study, bool retry, std::ostream& out)
      : study_(study), retry_(retry), out_(out), submit_(script_of_launch("submit")) {
    if (submit_.empty())
      throw ConfigError(
          "launch/submit, which submits the jobs, does not lie beside the program: run it where it "
          "was "
          "built or installed");
  }

  std::int64_t run() {
    const FileLock lock = hold_study_on_this_host(study_.file);
    require_no_jobs(study_.file);
    std::map<std::int64_t, std::vector<const StudyPoint*>> trunks, branches;
    for (const StudyPoint& point : study_.points)
      if (is_open(point)) (point.parent.empty() ? trunks : branches)[point.ranks].push_back(&point);
    for (const auto& [ranks, points] : trunks) submit(ranks, points, "");
    const std::string after =
        jobs_.empty() ? "" : fmt::format("--dependency=afterok:{}", fmt::join(jobs_, ":"));
    for (const auto& [ranks, points] : branches) submit(ranks, points, after);
    if (!jobs_.empty()) submit_collector();
    return num_points_;
  }

 private:
  bool is_open(const StudyPoint& point) const {
    const PointStatus status = state_of(study_.folder_of(point), point.num_steps()).status;
    return status == PointStatus::waiting || status == PointStatus::stopped ||
           (retry_ && status == PointStatus::failed);
  }

  void submit(std::int64_t ranks, const std::vector<const StudyPoint*>& points,
              const std::string& dependency) {
    const SlurmConfig& slurm = study_.file.slurm;
    const std::int64_t of_node =
        slurm.ranks_per_node == 0 ? ranks : std::min(ranks, slurm.ranks_per_node);
    if (ranks % of_node != 0)
      throw ConfigError(fmt::format(
          "study.slurm.ranks_per_node: {} ranks do not fill nodes of {}; choose a divisor", ranks,
          of_node));
    std::vector<std::string> words = {"env", "SWITCHYARD=" + path_of_program(), submit_};
    for (const StudyPoint* point : points) {
      prepare_point(study_, *point);
      forget_attempt(study_.folder_of(*point));
      words.push_back(study_.folder_of(*point) + "/point.yaml");
    }
    words.insert(words.end(), {"--nodes", std::to_string(ranks / of_node), "--ranks-per-node",
                               std::to_string(of_node)});
    words.insert(words.end(), slurm.options.begin(), slurm.options.end());
    if (points.size() > 1)  // or they would lie where this was called
      words.insert(words.end(),
                   {"--sbatch", fmt::format("--output={}/slurm-%A_%a.log", study_.file.output)});
    if (slurm.limit > 0) words.insert(words.end(), {"--limit", std::to_string(slurm.limit)});
    if (!dependency.empty())
      words.insert(words.end(), {"--sbatch", dependency, "--sbatch", "--kill-on-invalid-dep=yes"});
    std::string text;
    const int code = run_child_for_text(words, text);
    const std::string job = job_in(text);
    if (code != 0 || job.empty()) {
      while (text.ends_with('\n')) text.pop_back();
      throw ConfigError(fmt::format("{} refused {} points of {} ranks:\n{}", submit_, points.size(),
                                    ranks, text));
    }
    jobs_.push_back(job);
    num_points_ += static_cast<std::int64_t>(points.size());
    out_ << fmt::format("job {}: {} {} of {} ranks", job, points.size(),
                        points.size() == 1 ? "point" : "points", ranks)
         << std::endl;
    keep_jobs();
  }

  // When all have ended, however they did.
  void submit_collector() {
    const std::string command = quote_all_for_shell(
        std::vector<std::string>{path_of_program(), "sweep", study_.file.path, "--collect"});
    std::string text;
    const int code = run_child_for_text(
        {"sbatch", "--parsable", "--job-name=" + study_.file.name + "-collect", "--ntasks=1",
         "--output=" + study_.file.output + "/collect-%j.log",
         fmt::format("--dependency=afterany:{}", fmt::join(jobs_, ":")), "--wrap", command},
        text);
    if (code != 0)
      throw ConfigError(fmt::format(
          "sbatch refused the job that collects; `{}` does it by hand:\n{}", command, text));
    out_ << fmt::format("job {}: collects when they have ended",
                        text.substr(0, text.find_first_of(";\n")))
         << std::endl;
  }

  void keep_jobs() const {
    const nlohmann::ordered_json json = {{"jobs", jobs_}};
    write_file_atomically(jobs_file(study_.file), json.dump(2) + "\n");
  }

  const Study& study_;
  bool retry_;
  std::ostream& out_;
  std::string submit_;
  std::vector<std::string> jobs_;
  std::int64_t num_points_ = 0;
};

}  // namespace

std::int64_t submit_to_slurm(const Study& study, bool retry, std::ostream& out) {
  return SlurmSweep(study, retry, out).run();
}

}  // namespace switchyard
