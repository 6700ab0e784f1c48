#include "trainer/checkpoint/weights_writer.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "data/files/atomic_file.hpp"
#include "trainer/checkpoint/reader.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t most_files = 16;

std::string dataset_name(const SavedTensor& tensor) {
  return fmt::format("{}/{}", group_name_of(SavedPart::value), tensor.name);
}

}  // namespace

WeightsWriter::WeightsWriter(SaveRequest request, std::vector<SavedTensor> tensors,
                             std::int64_t least_file_bytes)
    : request_(std::move(request)) {
  manifest_.state = request_.state;
  manifest_.lineage = request_.lineage;
  manifest_.has_moments = false;
  manifest_.configuration = request_.configuration;
  manifest_.course = request_.course;
  manifest_.corpus = request_.corpus;
  manifest_.tensors = std::move(tensors);
  manifest_.num_ranks = plan_files(least_file_bytes);
  manifest_.layout = {.data = manifest_.num_ranks, .context = 1, .expert = 1};
  const std::string name = step_folder_name(manifest_.state.step);
  temporary_ = fmt::format("{}/{}.tmp", request_.folder, name);
  std::int64_t bytes = 0;
  for (const std::int64_t of_file : file_bytes_) bytes += of_file;
  with_io_errors([&] {
    fs::create_directories(request_.folder);
    remove_leftovers(request_.folder);
    require_free_name(request_.folder + "/" + name, request_.course);
    require_free_space(request_.folder, bytes + request_.leave_free_bytes, "a checkpoint");
    fs::create_directory(temporary_);
  });
  begin_file();
}

WeightsWriter::~WeightsWriter() {
  if (is_finished_) return;
  stream_ = {};
  file_.reset();
  ended_files_.clear();
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

int WeightsWriter::plan_files(std::int64_t least_bytes) {
  constexpr std::int64_t overhead = 64 << 10;
  std::int64_t bytes = 0;
  for (const SavedTensor& tensor : manifest_.tensors)
    bytes += bytes_of_dataset(tensor.shape.numel());
  const std::int64_t enough = std::max(least_bytes, bytes / most_files);
  file_bytes_ = {overhead};
  for (SavedTensor& tensor : manifest_.tensors) {
    if (file_bytes_.back() >= enough) file_bytes_.push_back(overhead);
    const std::int64_t numel = tensor.shape.numel();
    file_bytes_.back() += bytes_of_dataset(numel);
    tensor.ranges = {
        {.rank = static_cast<int>(file_bytes_.size()) - 1, .begin = 0, .numel = numel}};
  }
  return static_cast<int>(file_bytes_.size());
}

std::string WeightsWriter::path_of(int file) const {
  return temporary_ + "/" + rank_file_name(file);
}

void WeightsWriter::begin_file() {
  const int number = static_cast<int>(ended_files_.size());
  file_.emplace(create_file_of(path_of(number), file_bytes_[ended_files_.size()]));
  file_->create_group(std::string(group_name_of(SavedPart::value)));
  written_file_ = OpenFile(path_of(number), OpenFile::Access::read);
  num_begun_bytes_ = 0;
}

void WeightsWriter::end_file() {
  stream_ = {};
  file_->close();
  file_.reset();
  const int number = static_cast<int>(ended_files_.size());
  ended_files_.push_back(
      std::async(std::launch::async, [folder = temporary_, name = rank_file_name(number)] {
        trim_reservation(folder + "/" + name);
        sync_file(folder + "/" + name);
        return describe_file(folder, name);
      }));
}

void WeightsWriter::begin_tensor() {
  expect(next_ < manifest_.tensors.size(), "a tensor of the model");
  const SavedTensor& tensor = manifest_.tensors[next_++];
  if (tensor.ranges.front().rank != static_cast<int>(ended_files_.size())) {
    end_file();
    begin_file();
  }
  const std::int64_t numel = tensor.shape.numel();
  hdf5::Dataset dataset = file_->create_dataset(
      dataset_name(tensor), {numel}, hdf5::ElementType::f32, checkpoint_dataset_options(numel));
  dataset.set_attribute("global_begin", std::int64_t{0});
  stream_ = hdf5::ChunkStream(std::move(dataset));
}

std::vector<hdf5::Fletcher32> WeightsWriter::checksums_of(std::int64_t numel, std::int64_t begin,
                                                          std::span<const float> values) {
  return hdf5::chunk_checksums(begin * std::int64_t{sizeof(float)}, std::as_bytes(values),
                               checkpoint_dataset_options(numel).chunk_bytes);
}

void WeightsWriter::write(std::span<float> values, std::span<const hdf5::Fletcher32> checksums) {
  if (stream_.is_whole()) begin_tensor();
  stream_.write(std::as_writable_bytes(values), checksums);
  const std::int64_t size = written_file_.size();
  written_file_.begin_write_back(num_begun_bytes_, size - num_begun_bytes_);
  num_begun_bytes_ = size;
}

SaveResult WeightsWriter::finish() {
  expect(stream_.is_whole() && next_ == manifest_.tensors.size(), "every element of the model");
  const std::string name = step_folder_name(manifest_.state.step);
  const std::int64_t shared_bytes =
      bytes_of_shared_files(manifest_.tensors) + std::ssize(manifest_.configuration) * 2;
  with_io_errors([&] {
    end_file();
    for (std::future<CheckpointFile>& file : ended_files_) manifest_.files.push_back(file.get());
    write_whole_file(fmt::format("{}/{}", temporary_, whole_file_name), manifest_, shared_bytes);
    manifest_.files.push_back(describe_file(temporary_, whole_file_name));
    write_file_atomically(fmt::format("{}/{}", temporary_, manifest_name), to_json(manifest_));
    publish(request_.folder, temporary_, name);
  });
  is_finished_ = true;
  return {fmt::format("{}/{}", request_.folder, name), manifest_.num_bytes(), 0};
}

}  // namespace switchyard
