#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "kernels/host_copy.hpp"
#include "parallel/group/collective_error.hpp"
#include "trainer/agreement.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/checkpoint/reader.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t long_verification_bytes = std::int64_t{2} << 30;

void check_file(const std::string& folder, const CheckpointFile& file) {
  const std::string path = folder + "/" + file.name;
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  if (error) throw CheckpointError(fmt::format("{}: {}", path, error.message()));
  if (static_cast<std::int64_t>(size) != file.bytes)
    throw CheckpointError(
        fmt::format("{}: {} bytes, its manifest says {}", path, size, file.bytes));
  if (const std::string hash = hash_of_file(path); hash != file.hash)
    throw CheckpointError(fmt::format(
        "{}: the hash of its contents is {}, its manifest says {}: the file has changed", path,
        hash, file.hash));
}

// The manifest as rank 0 reads it, on all ranks.
Manifest shared_manifest(const std::string& path, Group& world) {
  Manifest manifest;
  std::string text;
  run_together(world, [&] {
    if (world.rank() != 0) return;
    manifest = read_manifest(path);
    text = to_json(manifest);
  });
  world.broadcast_text(text, 0);
  if (world.rank() != 0) manifest = parse_manifest(text, path);
  return manifest;
}

// Complete checkpoint folders, newest first, one a line, as rank 0 sees them.
std::vector<std::string> candidates_in(const std::string& folder, Group& world) {
  std::string lines;
  run_together(world, [&] {
    std::error_code error;
    if (world.rank() != 0 || !fs::is_directory(folder, error)) return;
    std::vector<std::int64_t> steps;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder))
      if (const std::int64_t step = step_of_folder_name(entry.path().filename().string());
          step >= 0)
        steps.push_back(step);
    std::sort(steps.rbegin(), steps.rend());
    for (const std::int64_t step : steps) lines += step_folder_name(step) + "\n";
  });
  world.broadcast_text(lines, 0);
  std::vector<std::string> names;
  for (std::size_t begin = 0; begin < lines.size();) {
    const std::size_t end = lines.find('\n', begin);
    names.push_back(lines.substr(begin, end - begin));
    begin = end + 1;
  }
  return names;
}

// The configuration keys that decide which tensors a model has.
constexpr const char* keys_of_presence =
    "model.num_layers, model.mixer, model.tie_embeddings, experts.num_experts, experts.every";

// Every parameter of the model must be there under its shape, and nothing else.
void check_tensors(const Manifest& manifest, const ParameterStore& store, const std::string& path) {
  for (const Parameter& parameter : store.parameters()) {
    const std::string& name = parameter.name();
    const Shape& shape = parameter.spec().global_shape;
    const SavedTensor* saved = manifest.find(name);
    if (saved == nullptr)
      throw CheckpointError(fmt::format(
          "{}: the model has a tensor {} {} that the checkpoint has not; compare model.num_layers, "
          "{} with the configuration that `switchyard checkpoint show` prints",
          path, name, shape.to_string(), parameter.spec().keys));
    if (saved->shape != shape)
      throw CheckpointError(fmt::format(
          "{}: tensor {} has shape {} in the checkpoint and {} in the model; compare {} with the "
          "configuration that `switchyard checkpoint show` prints",
          path, name, saved->shape.to_string(), shape.to_string(), parameter.spec().keys));
    if (saved->kind != parameter.spec().kind)
      throw CheckpointError(fmt::format("{}: tensor {} is {} in the checkpoint and {} in the model",
                                        path, name, name_of(saved->kind),
                                        name_of(parameter.spec().kind)));
  }
  for (const SavedTensor& saved : manifest.tensors) {
    const auto& parameters = store.parameters();
    const bool known = std::any_of(parameters.begin(), parameters.end(),
                                   [&](const Parameter& p) { return p.name() == saved.name; });
    if (!known)
      throw CheckpointError(fmt::format(
          "{}: the checkpoint has a tensor {} {} that the model has not; compare {} with the "
          "configuration that `switchyard checkpoint show` prints",
          path, saved.name, saved.shape.to_string(), keys_of_presence));
  }
}

void read_part(CheckpointReader& reader, SavedPart part, const SavedTensor& saved,
               const std::vector<SlicePiece>& pieces, const TensorView& to) {
  kernels::write_from_host<float>(
      to, [&](std::span<float> values) { reader.read(part, saved, pieces, values); });
}

void read_values(CheckpointReader& reader, ParameterStore& store) {
  for (const Parameter& parameter : store.parameters()) {
    const SavedTensor* saved = reader.manifest().find(parameter.name());
    const TensorView& value = parameter.value();
    if (value.empty()) continue;  // a rank may hold no expert
    read_part(reader, SavedPart::value, *saved, parameter.pieces(0, value.numel()), value);
  }
}

void read_moments(CheckpointReader& reader, const ParameterStore& store, const AdamW& optimizer) {
  if (!reader.manifest().has_moments) {
    if (reader.manifest().state.step == 0) return;  // before step 1 they are zeros
    throw CheckpointError(
        fmt::format("{}: has weights alone and no moments of the optimizer, so no run can go on "
                    "from it; a run can begin with it: checkpoint.start_from={} with "
                    "checkpoint.start_with=weights",
                    reader.folder(), reader.folder()));
  }
  for (const OwnedRange& range : store.owned_ranges()) {
    if (!range.parameter->is_trained()) continue;
    const SavedTensor* saved = reader.manifest().find(range.parameter->name());
    const std::vector<SlicePiece> pieces = range.pieces();
    read_part(reader, SavedPart::moment1, *saved, pieces, optimizer.moment1(range));
    read_part(reader, SavedPart::moment2, *saved, pieces, optimizer.moment2(range));
  }
}

constexpr int most_looks = 20;

// Whether the folder is gone, as rank 0 sees it. Collective.
bool has_vanished(const std::string& path, Group& world) {
  std::error_code error;
  double vanished = world.rank() == 0 && !fs::exists(path, error) ? 1 : 0;
  world.all_reduce_values({&vanished, 1}, ReduceOp::max);
  return vanished > 0;
}

}  // namespace

std::string find_damage(const std::string& path, Group& world, const Report& report) {
  try {
    const Manifest manifest = shared_manifest(path, world);
    if (report && world.rank() == 0 && manifest.num_bytes() > long_verification_bytes)
      report(fmt::format("verifying {} ({:.1f} GiB on {} ranks)", path,
                         static_cast<double>(manifest.num_bytes()) / (1 << 30), world.size()));
    run_together(world, [&] {
      for (std::size_t i = 0; i < manifest.files.size(); ++i)
        if (i % static_cast<std::size_t>(world.size()) == static_cast<std::size_t>(world.rank()))
          check_file(path, manifest.files[i]);
    });
    const std::string name = fs::path(path).lexically_normal().filename().string();
    if (const std::int64_t step = step_of_folder_name(name);
        step >= 0 && step != manifest.state.step)
      return fmt::format("{}: the folder's name and its manifest (step {}) differ", path,
                         manifest.state.step);
    return {};
  } catch (const CheckpointError& error) {
    return error.what();
  } catch (const IoError& error) {
    return error.what();
  }
}

namespace {

enum class Look : std::uint8_t { found, nothing, vanished };

// Tries the checkpoints in `folder`, newest first, until one is valid (`found`) or has vanished.
Look look_through(const std::string& folder, Group& world, const Report& report,
                  const TryCheckpoint& try_one, std::string& found) {
  const auto tell = [&](const std::string& text) {
    if (report && world.rank() == 0) report(text);
  };
  for (const std::string& name : candidates_in(folder, world)) {
    const std::string path = folder + "/" + name;
    std::string damage;
    try {
      damage = try_one(path);
      if (damage.empty()) {
        found = path;
        return Look::found;
      }
    } catch (const KnownToAllRanks&) {
      if (!has_vanished(path, world)) throw;
    }
    if (!has_vanished(path, world)) {
      tell(fmt::format("skipping {}: {}", name, damage));
      continue;
    }
    tell(fmt::format("{} was removed while it was read; trying the next newer one", name));
    return Look::vanished;
  }
  return Look::nothing;
}

}  // namespace

std::optional<std::string> find_newest_valid(const std::string& folder, Group& world,
                                             const Report& report) {
  return read_newest_valid(folder, world, report, [](const std::string&) {});
}

std::optional<std::string> read_newest_valid(
    const std::string& folder, Group& world, const Report& report,
    const std::function<void(const std::string& path)>& read) {
  return try_newest(folder, world, report, [&](const std::string& path) {
    std::string damage = find_damage(path, world, report);
    if (damage.empty()) read(path);
    return damage;
  });
}

std::optional<std::string> try_newest(const std::string& folder, Group& world, const Report& report,
                                      const TryCheckpoint& try_one) {
  std::string found;
  // A run that removes each checkpoint before it is read would keep this busy for ever.
  for (int look = 0; look < most_looks; ++look) {
    const Look outcome = look_through(folder, world, report, try_one, found);
    if (outcome == Look::found) return found;
    if (outcome == Look::nothing) return std::nullopt;
  }
  throw Collective<CheckpointError>(
      fmt::format("{}: {} times in a row the newest checkpoint was removed while it was read; let "
                  "the run that saves there keep more of them (checkpoint.keep)",
                  folder, most_looks));
}

TrainState load_checkpoint(const std::string& path, ParameterStore& store, AdamW* optimizer,
                           Group& world) {
  TrainState state;
  run_together(world, [&] {
    CheckpointReader reader(path);
    check_tensors(reader.manifest(), store, path);
    read_values(reader, store);
    if (optimizer != nullptr) read_moments(reader, store, *optimizer);
    state = reader.manifest().state;
  });
  return state;
}

}  // namespace switchyard
