#include "trainer/run/course.hpp"

#include <fmt/core.h>

#include <filesystem>
#include <random>
#include <vector>

#include "tensor/error.hpp"
#include "trainer/checkpoint/inspect.hpp"
#include "trainer/checkpoint/manifest.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

std::string random_id() {
  std::random_device random;  // from the system: courses of one seed differ, too
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", random(), random(), random(), random());
}

// The id in `checkpoints`, given that of the marker (empty: it has none).
std::string course_in(const std::string& checkpoints, const std::vector<std::int64_t>& steps,
                      const std::string& marked) {
  std::string id = marked;
  for (const std::int64_t step : steps) {
    const std::string path = checkpoints + "/" + step_folder_name(step);
    const std::string other = course_of_checkpoint(path);
    if (other.empty() || other == id) continue;
    if (!id.empty())
      throw ConfigError(fmt::format(
          "run.output: {} belongs to another course than {} (it was put there, or run.json was "
          "exchanged): a run would mix the two. Move it elsewhere; to go on from it, name it as "
          "checkpoint.resume with another run.output",
          path, marked.empty() ? "the newer checkpoints beside it" : "this run"));
    id = other;
  }
  return id;
}

bool is_newest_of(const std::string& checkpoints, const std::vector<std::int64_t>& steps,
                  const std::string& named) {
  std::error_code error;
  const std::string newest = checkpoints + "/" + step_folder_name(steps.front());
  return fs::equivalent(newest, resolve_checkpoint(named), error) && !error;
}

[[noreturn]] void refuse(const std::string& run_folder, const CheckpointConfig& config,
                         std::int64_t newest) {
  throw ConfigError(fmt::format(
      "checkpoint.resume: {} would begin a new course in {}, which holds checkpoints of an earlier "
      "one (the newest is {}); its saves would remove them. Choose another run.output for the new "
      "course; or checkpoint.resume=auto to go on from the newest; or remove the folder {} first, "
      "if nobody needs it",
      config.resume_choice() ? config.resume : "going on from " + config.resume, run_folder,
      step_folder_name(newest), run_folder));
}

}  // namespace

Course choose_course(const std::string& run_folder, const RunMarker& marker,
                     const CheckpointConfig& config, const BatchJob& job) {
  const std::string checkpoints = run_folder + "/checkpoints";
  const std::vector<std::int64_t> steps = checkpoint_steps_in(checkpoints);
  const std::string id = course_in(checkpoints, steps, marker.course);
  Course course{.id = id.empty() ? random_id() : id,
                .is_new = false,
                .resume = config.resume,
                .begun_by = id.empty() ? job : marker.begun_by,
                .note = {}};
  const std::optional<Resume> choice = config.resume_choice();
  if (choice == Resume::automatic) return course;

  const bool is_queued_again = !job.id.empty() && job.id == marker.begun_by.id &&
                               job.num_restarts > marker.begun_by.num_restarts;
  if (is_queued_again) {
    if (steps.empty()) return course;
    course.resume = name_of(Resume::automatic);
    course.note = fmt::format(
        "this job began the course in {} and was queued again: it goes on with it "
        "(checkpoint.resume, {}, was for its first start)",
        run_folder, config.resume);
    return course;
  }
  if (steps.empty())
    return {
        .id = random_id(), .is_new = true, .resume = config.resume, .begun_by = job, .note = {}};
  if (choice == Resume::never || !is_newest_of(checkpoints, steps, config.resume))
    refuse(run_folder, config, steps.front());
  return course;
}

}  // namespace switchyard
