#include "trainer/routing/trace_reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "tensor/error.hpp"
#include "trainer/routing/trace_format.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

constexpr const char* sequence_ids_name = "sequence_ids";

// The traces in `folder`, in the order of their first steps.
std::vector<std::string> traces_in(const fs::path& folder) {
  std::vector<std::pair<std::int64_t, std::string>> found;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    const fs::path file = entry.path() / trace_format::whole_file;
    const std::int64_t first_step = trace_format::first_step_of(name);
    if (first_step > 0 && !name.ends_with(".tmp") && fs::exists(file, error))
      found.emplace_back(first_step, file.string());
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> files;
  for (auto& [step, file] : found) files.push_back(std::move(file));
  return files;
}

std::vector<std::string> find_traces(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return {path};
  const fs::path folder = path;
  if (fs::exists(folder / trace_format::whole_file, error))
    return {(folder / trace_format::whole_file).string()};
  std::vector<std::string> files = traces_in(folder);
  if (files.empty()) files = traces_in(folder / "routing");
  if (files.empty())
    throw DataError(path +
                    ": there is no trace of routing here; a run with trace: {routing: true, "
                    "steps: ...} writes them to routing/ in its folder");
  return files;
}

void check_shape(const TraceShape& shape, const std::string& path) {
  if (shape.top_k < 1 || shape.top_k > shape.num_experts)
    throw DataError(fmt::format("{}: says that a token has {} of {} experts", path, shape.top_k,
                                shape.num_experts));
  if (shape.sequence_length < 1) throw DataError(path + ": has no positions");
}

// Of all ranks' files. HDF5 would show zeros for those that are missing.
std::int64_t bytes_of_ranks(const std::string& path, int num_ranks) {
  if (num_ranks < 1) throw DataError(path + ": says that it is of no rank");
  const fs::path folder = fs::path(path).parent_path();
  std::int64_t bytes = 0;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const std::string part = (folder / trace_format::rank_file(rank)).string();
    if (!hdf5::has_signature(part))
      throw DataError(fmt::format("{}: is missing or damaged; it belongs to {}", part, path));
    bytes += static_cast<std::int64_t>(fs::file_size(part));
  }
  return bytes;
}

}  // namespace

TraceReader::TraceReader(const std::string& path) : path_(path) {
  for (const std::string& file : find_traces(path)) add(file);
}

void TraceReader::add(const std::string& path) {
  const hdf5::File file = hdf5::File::open(path);
  if (!file.has_attribute("/", "num_experts") || !file.exists("layers") || !file.exists("steps"))
    throw DataError(path + ": is no trace of routing");
  const std::vector<std::int64_t> steps = file.open_dataset("steps").read_all<std::int64_t>();
  if (steps.empty() || file.open_dataset("layers").shape().numel() == 0)
    throw DataError(path + ": has no step or no layer");
  const Shape choices =
      file.open_dataset(trace_format::dataset(steps.front(), trace_format::experts)).shape();
  TraceShape shape{.layers = file.open_dataset("layers").read_all<std::int64_t>(),
                   .num_experts = file.integer_attribute("/", "num_experts"),
                   .top_k = file.integer_attribute("/", "top_k"),
                   .sequence_length = choices.num_dims() == 4 ? choices[2] : 0};
  check_shape(shape, path);
  file.open_dataset("layers").expect_shape({std::max<std::int64_t>(choices[0], 1)});
  if (!files_.empty() && shape != shape_)
    throw DataError(path + ": is of another model than the traces beside it; name one of them");
  shape_ = std::move(shape);
  const std::int64_t bytes =
      bytes_of_ranks(path, static_cast<int>(std::clamp<std::int64_t>(
                               file.integer_attribute("/", "num_ranks"), 0, 1 << 30)));
  for (const std::int64_t step : steps) files_[step] = {path, bytes};
}

std::vector<std::int64_t> TraceReader::steps() const {
  std::vector<std::int64_t> steps;
  for (const auto& [step, file] : files_) steps.push_back(step);
  return steps;
}

const hdf5::File& TraceReader::file_of(std::int64_t step) const {
  const auto file = files_.find(step);
  if (file == files_.end())
    throw DataError(fmt::format("{}: the trace has no step {}; it has {} from {} to {}", path_,
                                step, files_.size(), files_.begin()->first,
                                files_.rbegin()->first));
  if (open_path_ != file->second.path) {
    datasets_.clear();
    open_file_ = std::make_unique<hdf5::File>(hdf5::File::open(file->second.path));
    open_path_ = file->second.path;
  }
  return *open_file_;
}

const hdf5::Dataset& TraceReader::dataset(std::int64_t step, const std::string& name) const {
  const hdf5::File& file = file_of(step);
  const std::string path = trace_format::dataset(step, name);
  const auto known = datasets_.find(path);
  if (known != datasets_.end()) return known->second;
  constexpr std::size_t most_open = 8;
  if (datasets_.size() >= most_open) datasets_.clear();
  hdf5::Dataset opened = file.open_dataset(path);
  check(step, name, opened);
  return datasets_.emplace(path, std::move(opened)).first->second;
}

// What a dataset claims, before anybody makes room for it.
void TraceReader::check(std::int64_t step, const std::string& name,
                        const hdf5::Dataset& dataset) const {
  if (dataset.is_virtual() &&
      dataset.shape().numel() > files_.at(step).rank_bytes / size_of(dataset.type()))
    throw DataError(fmt::format("{}: {} claims more than the files of the ranks hold", open_path_,
                                dataset.name()));
  if (name == sequence_ids_name) {
    dataset.expect_shape({dataset.shape().numel()});
    return;
  }
  dataset.expect_shape({std::ssize(shape_.layers), std::ssize(sequence_ids(step)),
                        shape_.sequence_length, shape_.top_k});
}

bool TraceReader::has(std::int64_t step, const std::string& name) const {
  return file_of(step).exists(trace_format::dataset(step, name));
}

std::vector<std::int64_t> TraceReader::sequence_ids(std::int64_t step) const {
  return dataset(step, sequence_ids_name).read_all<std::int64_t>();
}

template <class T>
std::vector<T> TraceReader::read_part(std::int64_t step, const std::string& name, std::int64_t row,
                                      const PositionRange& positions) const {
  const hdf5::Dataset& from = dataset(step, name);
  from.expect_type(hdf5::element_type_of<T>());
  hdf5::Box box = hdf5::Box::whole(from.shape());
  box.begin[1] = row;
  box.count[1] = 1;
  box.begin[2] = positions.begin;
  box.count[2] = positions.count;
  std::vector<T> values(static_cast<std::size_t>(box.numel()));
  from.read(box, values.data());
  return values;
}

std::vector<std::int32_t> TraceReader::read(What what, std::int64_t step, std::int64_t row,
                                            const PositionRange& positions) const {
  const bool before_drops = what == What::considered && has(step, trace_format::considered);
  std::vector<std::int32_t> experts = read_part<std::int32_t>(
      step, before_drops ? trace_format::considered : trace_format::experts, row, positions);
  const auto is_legal = [&](std::int32_t expert) {
    return expert >= -1 && expert < shape_.num_experts;
  };
  if (!std::ranges::all_of(experts, is_legal))
    throw DataError(
        fmt::format("{}: step {} has an expert beyond its {}", path_, step, shape_.num_experts));
  return experts;
}

std::vector<float> TraceReader::read_weights(std::int64_t step, std::int64_t row,
                                             const PositionRange& positions) const {
  return read_part<float>(step, trace_format::weights, row, positions);
}

}  // namespace switchyard
