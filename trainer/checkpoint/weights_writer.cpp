#include "trainer/checkpoint/weights_writer.hpp"

#include <fmt/core.h>

#include <utility>

#include "data/files/atomic_file.hpp"
#include "trainer/checkpoint/reader.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

std::string dataset_name(const SavedTensor& tensor) {
  return fmt::format("{}/{}", group_name_of(SavedPart::value), tensor.name);
}

}  // namespace

WeightsWriter::WeightsWriter(SaveRequest request, std::vector<SavedTensor> tensors)
    : request_(std::move(request)) {
  manifest_.state = request_.state;
  manifest_.lineage = request_.lineage;
  manifest_.has_moments = false;
  manifest_.configuration = request_.configuration;
  manifest_.course = request_.course;
  manifest_.corpus = request_.corpus;
  manifest_.num_ranks = 1;
  manifest_.layout = {.data = 1, .context = 1, .expert = 1};
  std::int64_t bytes = 64 << 10;
  for (SavedTensor& tensor : tensors) {
    tensor.ranges = {{.rank = 0, .begin = 0, .numel = tensor.shape.numel()}};
    bytes += bytes_of_dataset(tensor.shape.numel());
  }
  manifest_.tensors = std::move(tensors);
  const std::string name = step_folder_name(manifest_.state.step);
  temporary_ = fmt::format("{}/{}.tmp", request_.folder, name);
  with_io_errors([&] {
    fs::create_directories(request_.folder);
    remove_leftovers(request_.folder);
    require_free_name(request_.folder + "/" + name, request_.course);
    require_free_space(request_.folder, bytes + request_.leave_free_bytes, "a checkpoint");
    fs::create_directory(temporary_);
  });
  file_.emplace(create_file_of(temporary_ + "/" + rank_file_name(0), bytes));
  written_file_ = OpenFile(temporary_ + "/" + rank_file_name(0), OpenFile::Access::read);
  file_->create_group(std::string(group_name_of(SavedPart::value)));
}

WeightsWriter::~WeightsWriter() {
  if (is_finished_) return;
  dataset_ = {};
  file_.reset();
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);
}

bool WeightsWriter::tensor_is_whole() const {
  return next_ == 0 || written_ == manifest_.tensors[next_ - 1].shape.numel();
}

void WeightsWriter::begin_tensor() {
  expect(next_ < manifest_.tensors.size(), "a tensor of the model");
  const SavedTensor& tensor = manifest_.tensors[next_++];
  const std::int64_t numel = tensor.shape.numel();
  written_ = 0;
  dataset_ = file_->create_dataset(dataset_name(tensor), {numel}, hdf5::ElementType::f32,
                                   checkpoint_dataset_options(numel));
  dataset_.set_attribute("global_begin", std::int64_t{0});
}

void WeightsWriter::write(std::span<const float> values) {
  if (tensor_is_whole()) begin_tensor();
  dataset_.write(hdf5::Box::rows(dataset_.shape(), written_, std::ssize(values)), values.data());
  written_ += std::ssize(values);
  written_file_.begin_write_back(0, std::ssize(values) * std::int64_t{sizeof(float)});
}

SaveResult WeightsWriter::finish() {
  expect(tensor_is_whole() && next_ == manifest_.tensors.size(), "every element of the model");
  dataset_ = {};
  const std::string name = step_folder_name(manifest_.state.step);
  const std::int64_t shared_bytes =
      bytes_of_shared_files(manifest_.tensors) + std::ssize(manifest_.configuration) * 2;
  with_io_errors([&] {
    file_->close_synced();
    file_.reset();
    trim_reservation(temporary_ + "/" + rank_file_name(0));
    manifest_.files.push_back(describe_file(temporary_, rank_file_name(0)));
    write_whole_file(fmt::format("{}/{}", temporary_, whole_file_name), manifest_, shared_bytes);
    manifest_.files.push_back(describe_file(temporary_, whole_file_name));
    write_file_atomically(fmt::format("{}/{}", temporary_, manifest_name), to_json(manifest_));
    publish(request_.folder, temporary_, name);
  });
  is_finished_ = true;
  return {fmt::format("{}/{}", request_.folder, name), manifest_.num_bytes(), 0};
}

}  // namespace switchyard
