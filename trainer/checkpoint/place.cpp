#include "trainer/checkpoint/place.hpp"

#include <fmt/core.h>

#include <filesystem>
#include <future>
#include <memory>

#include "parallel/group/collective_error.hpp"
#include "trainer/agreement.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

bool has_name_of_checkpoint(const std::string& path) {
  std::error_code error;
  return step_of_folder_name(fs::canonical(path, error).filename().string()) >= 0;
}

}  // namespace

CheckpointPlace place_of_checkpoint(const std::string& named) {
  std::string path = named;
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  std::error_code error;
  if (!fs::is_directory(path, error))
    throw CheckpointError(fmt::format(
        "{}: there is no such checkpoint; name a run's folder, for its newest checkpoint, or one "
        "such as RUN/checkpoints/step-00000100",
        path));
  if (fs::exists(fs::path(path) / manifest_name, error)) return {path, {}};
  for (const std::string& folder : {path + "/checkpoints", path})
    if (!checkpoint_steps_in(folder).empty()) return {{}, folder};
  if (has_name_of_checkpoint(path)) return {path, {}};
  throw CheckpointError(
      fmt::format("{}: holds no checkpoint; name a run's folder (which has a subfolder "
                  "checkpoints), a folder of checkpoints, or a checkpoint's (step-N)",
                  path));
}

std::string resolve_checkpoint(const std::string& path) {
  const CheckpointPlace place = place_of_checkpoint(path);
  if (place.folder.empty()) return place.checkpoint;
  return place.folder + "/" + step_folder_name(newest_step_in(place.folder));
}

std::optional<std::string> kept_in_run_of(const std::string& checkpoint, const std::string& name) {
  std::error_code error;
  fs::path written = fs::absolute(checkpoint, error).lexically_normal();
  if (!written.has_filename()) written = written.parent_path();
  for (const fs::path& folder : {written, fs::canonical(checkpoint, error)}) {
    const fs::path kept = folder.parent_path().parent_path() / name;
    if (!folder.empty() && fs::exists(kept, error)) return kept.string();
  }
  return std::nullopt;
}

namespace {

std::string read_place(const CheckpointPlace& place, Group& world, const Report& report,
                       const TryCheckpoint& try_one) {
  if (place.folder.empty()) {
    const std::string damage = try_one(place.checkpoint);
    if (!damage.empty()) throw Collective<CheckpointError>(damage);
    return place.checkpoint;
  }
  const std::optional<std::string> newest = try_newest(place.folder, world, report, try_one);
  if (!newest)
    throw Collective<CheckpointError>(
        fmt::format("{} holds no valid checkpoint (see above)", place.folder));
  return *newest;
}

// What is wrong with the checkpoint, or nothing, and then it was read.
std::string verify_and_read(const std::string& path, const Report& report,
                            const ReadMeanwhile& read) {
  std::string damage;
  std::future<void> verification = std::async(std::launch::async, [&] {
    const std::unique_ptr<Group> alone = make_local_group("world");
    damage = find_damage(path, *alone, report);
  });
  try {
    read(path, [&] {
      verification.get();
      if (!damage.empty()) throw CheckpointError(damage);
    });
  } catch (const Error&) {
    if (verification.valid()) verification.get();
    if (damage.empty()) throw;
  }
  return damage;
}

}  // namespace

std::string read_checkpoint(const std::string& path, Group& world, const Report& report,
                            const ReadCheckpoint& read) {
  CheckpointPlace place;
  run_together(world, [&] {
    if (world.rank() == 0) place = place_of_checkpoint(path);
  });
  world.broadcast_text(place.checkpoint, 0);
  world.broadcast_text(place.folder, 0);
  return read_place(place, world, report, [&](const std::string& checkpoint) {
    std::string damage = find_damage(checkpoint, world, report);
    if (damage.empty()) read(checkpoint);
    return damage;
  });
}

std::string read_checkpoint_meanwhile(const std::string& path, const Report& report,
                                      const ReadMeanwhile& read) {
  const std::unique_ptr<Group> alone = make_local_group("world");
  return read_place(place_of_checkpoint(path), *alone, report, [&](const std::string& checkpoint) {
    return verify_and_read(checkpoint, report, read);
  });
}

}  // namespace switchyard
