#include "trainer/activations/capture.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "data/files/atomic_file.hpp"
#include "data/files/open_file.hpp"
#include "data/hdf5/chunk_compression.hpp"
#include "kernels/host_copy.hpp"
#include "tensor/error.hpp"
#include "trainer/agreement.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t chunk_bytes = 1 << 20;     // before compression
constexpr int deflate_level = 1;                  // shuffled floats gain little from higher ones
constexpr std::int64_t overhead_bytes = 1 << 20;  // of HDF5 beside the chunks
constexpr double wait_seconds = 0.05;

bool is_chosen(const auto& list, const auto& element) {
  return list.empty() || std::find(list.begin(), list.end(), element) != list.end();
}

// rows: dense, f32 or bf16.
void copy_rows(const TensorView& rows, float* to) {
  if (rows.dtype == DType::f32)
    return kernels::copy_to_host<float>(rows, {to, static_cast<std::size_t>(rows.numel())});
  const kernels::HostContents<BFloat16> contents(rows);
  std::ranges::transform(contents.span(), to, [](BFloat16 value) { return to_float(value); });
}

void with_io_errors(const std::function<void()>& work) {
  try {
    work();
  } catch (const fs::filesystem_error& error) {
    throw IoError(fmt::format("{}: {}", error.path1().string(), error.code().message()));
  }
}

std::string rank_file_name(int rank) {
  return fmt::format("rank-{}.h5", rank);
}

}  // namespace

Capture::Capture(const Config& config, const BatchLayout& layout, Group& world)
    : folder_(config.run.output + "/captures"),
      steps_(config.capture.steps),
      layout_(layout),
      world_(world) {
  choose_sources(config);
  run_together(world_, [&] {
    if (world_.rank() != 0 || steps_.empty()) return;
    with_io_errors([&] {  // what an interrupted run left
      fs::create_directories(folder_);
      for (const fs::directory_entry& entry : fs::directory_iterator(folder_))
        if (const fs::path& path = entry.path();
            path.extension() == ".tmp" && path.filename().string().starts_with("step-"))
          fs::remove_all(path);
    });
  });
}

Capture::~Capture() = default;

void Capture::choose_sources(const Config& config) {
  const std::array<std::pair<ObservedTensor, std::int64_t>, 3> tensors = {
      {{ObservedTensor::hidden, config.model.hidden},
       {ObservedTensor::attention_lse, config.model.num_heads},
       {ObservedTensor::gate_probs, config.experts.num_experts}}};
  for (std::int64_t layer = 0; layer < config.model.num_layers; ++layer) {
    if (!is_chosen(config.capture.layers, layer)) continue;
    for (const auto& [which, num_cols] : tensors) {
      if (!is_chosen(config.capture.tensors, which)) continue;
      if (which == ObservedTensor::attention_lse &&
          !config.model.mixer_of_layer(layer).is_attention())
        continue;
      if (which == ObservedTensor::gate_probs && !config.experts.layer_has_experts(layer)) continue;
      sources_.push_back({layer, which, num_cols, {}});
    }
  }
}

bool Capture::wants(std::int64_t step) const {
  return std::find(steps_.begin(), steps_.end(), step) != steps_.end();
}

std::string Capture::path_of(std::int64_t step) const {
  return fmt::format("{}/step-{:08}", folder_, step);
}

std::string Capture::dataset_name(const Source& source) {
  return fmt::format("layers.{}/{}", source.layer, name_of(source.which));
}

Shape Capture::local_shape(const Source& source) const {
  return {layout_.num_micro_steps() * layout_.micro_batch, layout_.local_length(), source.num_cols};
}

std::int64_t Capture::rows_of_chunk(std::int64_t num_cols) const {
  const std::int64_t row_bytes = num_cols * static_cast<std::int64_t>(sizeof(float));
  return std::clamp<std::int64_t>(chunk_bytes / row_bytes, 1, layout_.local_length());
}

void Capture::begin_step(std::int64_t step) {
  finish();
  step_ = step;
  has_ended_ = false;
  sequence_ids_.clear();
  num_chunks_ = num_written_ = 0;
  run_together(world_, [&] {
    if (world_.rank() != 0) return;
    with_io_errors([&] { fs::create_directories(temporary_folder()); });
  });
  run_together(world_, [&] { open_file(); });
}

void Capture::open_file() {
  const std::string path = temporary_folder() + "/" + rank_file_name(world_.rank());
  require_free_space(temporary_folder(), overhead_bytes, "a capture of activations");
  file_ = std::make_unique<hdf5::File>(hdf5::File::create(path));
  file_->set_attribute("/", "step", step_);
  for (Source& source : sources_) {
    const std::int64_t rows = rows_of_chunk(source.num_cols);
    source.dataset = file_->create_dataset(
        dataset_name(source), local_shape(source), hdf5::ElementType::f32,
        {.chunk_bytes = rows * source.num_cols * static_cast<std::int64_t>(sizeof(float)),
         .deflate = deflate_level,
         .shuffle = true});
    expect(source.dataset.chunk_shape() == Shape{1, rows, source.num_cols},
           "chunks of rows of one sequence");
  }
}

void Capture::begin(const TensorView& sequence_ids) {
  const kernels::HostContents<std::int64_t> contents(sequence_ids);
  const std::span<const std::int64_t> ids = contents.span();
  num_sequences_now_ = std::ssize(ids);
  sequence_ids_.insert(sequence_ids_.end(), ids.begin(), ids.end());
}

void Capture::observe(std::int64_t layer, ObservedTensor which, const TensorView& rows) {
  const auto source = std::find_if(sources_.begin(), sources_.end(), [&](const Source& each) {
    return each.layer == layer && each.which == which;
  });
  if (source == sources_.end()) return;
  const std::int64_t length = layout_.local_length();
  const std::int64_t chunk_rows = rows_of_chunk(source->num_cols);
  const std::int64_t first_sequence = std::ssize(sequence_ids_) - num_sequences_now_;
  for (std::int64_t s = 0; s < num_sequences_now_; ++s)
    for (std::int64_t begin = 0; begin < length; begin += chunk_rows) {
      Chunk chunk;
      chunk.source = static_cast<std::size_t>(source - sources_.begin());
      chunk.begin = {first_sequence + s, begin, 0, 0};
      chunk.bytes.resize(static_cast<std::size_t>(chunk_rows * source->num_cols) * sizeof(float));
      float* values = reinterpret_cast<float*>(chunk.bytes.data());
      const std::int64_t end = std::min(begin + chunk_rows, length);
      copy_rows(rows.slice_rows(s * length + begin, s * length + end), values);
      start_compression(std::move(chunk));
    }
}

void Capture::start_compression(Chunk chunk) {
  ++num_chunks_;
  compression_.start(0, [this, taken = std::make_shared<Chunk>(std::move(chunk))] {
    taken->bytes = shuffle_and_deflate(taken->bytes, sizeof(float), deflate_level);
    const std::lock_guard lock(mutex_);
    ready_.push_back(std::move(*taken));
  });
}

void Capture::end_step() {
  has_ended_ = true;
}

void Capture::write_ready_chunks() {
  std::vector<Chunk> chunks;
  {
    const std::lock_guard lock(mutex_);
    chunks.swap(ready_);
  }
  if (chunks.empty()) return;
  // HDF5 1.10 may not survive a full disk: it must show before.
  std::int64_t bytes = overhead_bytes;
  for (const Chunk& chunk : chunks) bytes += std::ssize(chunk.bytes);
  require_free_space(temporary_folder(), bytes, "a capture of activations");
  const auto size = static_cast<std::int64_t>(fs::file_size(file_->path()));
  if (const int error = size_error(size + bytes))
    throw IoError(fmt::format("{}: the capture needs {} more bytes, which the system refuses: {}",
                              file_->path(), bytes, std::strerror(error)));
  for (const Chunk& chunk : chunks)
    sources_[chunk.source].dataset.write_chunk(chunk.begin, chunk.bytes);
  num_written_ += std::ssize(chunks);
}

std::string Capture::advance() {
  if (step_ == 0) return {};
  run_together(world_, [&] {
    with_io_errors([&] { write_ready_chunks(); });
    if (!is_complete() || !file_) return;
    for (Source& source : sources_) source.dataset = {};
    file_->close_synced();
    file_.reset();
  });
  std::array<double, 1> complete{is_complete() ? 1.0 : 0.0};
  world_.all_reduce_values(complete, ReduceOp::min);
  if (complete[0] == 0) return {};
  publish();
  return path_of(std::exchange(step_, 0));
}

std::string Capture::finish() {
  std::string published;
  while (step_ != 0) {
    compression_.wait_for(0, wait_seconds);
    published = advance();
  }
  return published;
}

void Capture::publish() {
  const WholeSequences sequences(sequence_ids_, layout_, world_);
  run_together(world_, [&] {
    if (world_.rank() != 0) return;
    with_io_errors([&] {
      write_whole_file(temporary_folder() + "/capture.h5", sequences);
      sync_folder(temporary_folder());
      fs::remove_all(path_of(step_));  // of a course of the run that was left
      fs::rename(temporary_folder(), path_of(step_));
      sync_folder(folder_);
    });
  });
}

void Capture::write_whole_file(const std::string& path, const WholeSequences& sequences) const {
  const auto num_sequences = std::ssize(sequences.ids());
  const std::int64_t num_pieces = std::ssize(sequence_ids_) * world_.size();
  require_free_space(temporary_folder(), overhead_bytes + num_pieces * 4096,
                     "a capture of activations");
  hdf5::File file = hdf5::File::create(path);
  file.set_attribute("/", "step", step_);
  file.set_attribute("/", "num_ranks", static_cast<std::int64_t>(world_.size()));
  file.create_dataset("sequence_ids", {num_sequences}, hdf5::ElementType::i64)
      .write_all<std::int64_t>(sequences.ids());
  for (const Source& source : sources_) {
    hdf5::VirtualDataset whole({num_sequences, layout_.sequence_length, source.num_cols},
                               hdf5::ElementType::f32);
    for (int rank = 0; rank < world_.size(); ++rank)
      sequences.map_rank(whole, rank, 0, rank_file_name(rank), dataset_name(source));
    file.create_dataset(dataset_name(source), whole);
  }
  file.close_synced();
}

}  // namespace switchyard
