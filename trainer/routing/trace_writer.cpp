#include "trainer/routing/trace_writer.hpp"

#include <algorithm>
#include <filesystem>

#include "data/files/atomic_file.hpp"
#include "kernels/host_copy.hpp"
#include "tensor/error.hpp"
#include "trainer/agreement.hpp"
#include "trainer/routing/trace_format.hpp"
#include "trainer/whole_sequences.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t overhead_bytes = 1 << 20;  // of HDF5 beside the data
constexpr std::int64_t mapping_bytes = 4096;      // of a rank's part of a dataset, at most
constexpr std::string_view purpose = "a trace of routing";

void with_io_errors(const std::function<void()>& work) {
  try {
    work();
  } catch (const fs::filesystem_error& error) {
    throw IoError(error.path1().string() + ": " + error.code().message());
  }
}

// A choice that was dropped enters no output.
std::vector<float> kept_weights(const RoutingRecord& record) {
  const kernels::HostContents<std::int32_t> experts(record.experts().flat());
  std::vector<float> weights(static_cast<std::size_t>(record.weights().numel()));
  kernels::copy_to_host<float>(record.weights().flat(), weights);
  for (std::size_t i = 0; i < weights.size(); ++i)
    if (experts.span()[i] < 0) weights[i] = 0;
  return weights;
}

}  // namespace

TraceWriter::TraceWriter(const Config& config, const BatchLayout& layout,
                         std::int64_t restored_step, Group& world)
    : folder_(config.run.output + "/routing"),
      wanted_(config.trace.steps),
      layers_(moe_layers_of(config)),
      num_experts_(config.experts.num_experts),
      top_k_(config.experts.top_k),
      may_drop_(config.experts.may_drop()),
      layout_(layout),
      world_(world) {
  run_together(world_, [&] {
    if (world_.rank() != 0) return;
    with_io_errors([&] {
      fs::create_directories(folder_);
      for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
        const std::string name = entry.path().filename().string();
        const std::int64_t first_step = trace_format::first_step_of(name);
        if (first_step > restored_step || (first_step > 0 && name.ends_with(".tmp")))
          fs::remove_all(entry.path());
      }
    });
  });
}

TraceWriter::~TraceWriter() = default;

bool TraceWriter::wants(std::int64_t step) const {
  return std::ranges::find(wanted_, step) != wanted_.end();
}

std::string TraceWriter::temporary_folder() const {
  const std::int64_t first_step = steps_.front().step;
  return folder_ + "/" + trace_format::folder_of(first_step, first_step) + ".tmp";
}

void TraceWriter::write(std::int64_t step, const RoutingRecord& record) {
  const kernels::HostContents<std::int64_t> ids(record.sequence_ids());
  steps_.push_back({step, {ids.span().begin(), ids.span().end()}});
  if (steps_.size() == 1) {
    run_together(world_, [&] {
      if (world_.rank() == 0) with_io_errors([&] { fs::create_directories(temporary_folder()); });
    });
  }
  run_together(world_, [&] {
    if (steps_.size() == 1) open_file();
    write_step(step, record);
  });
}

void TraceWriter::open_file() {
  require_free_space(temporary_folder(), overhead_bytes, purpose);
  file_ = std::make_unique<hdf5::File>(
      hdf5::File::create(temporary_folder() + "/" + trace_format::rank_file(world_.rank())));
}

void TraceWriter::write_step(std::int64_t step, const RoutingRecord& record) {
  require_free_space(temporary_folder(), overhead_bytes + 3 * record.experts().num_bytes(),
                     purpose);
  const Shape shape{record.experts().shape[0], record.sequence_ids().numel(),
                    layout_.local_length(), record.experts().shape[2]};
  const auto write_choices = [&](const char* name, const TensorView& choices) {
    const kernels::HostContents<std::int32_t> contents(choices.flat());
    file_->create_dataset(trace_format::dataset(step, name), shape, hdf5::ElementType::i32)
        .write_all<std::int32_t>(contents.span());
  };
  write_choices(trace_format::experts, record.experts());
  if (may_drop_) write_choices(trace_format::considered, record.considered());
  file_
      ->create_dataset(trace_format::dataset(step, trace_format::weights), shape,
                       hdf5::ElementType::f32)
      .write_all<float>(kept_weights(record));
}

std::string TraceWriter::advance(std::int64_t step) {
  return wants(step + 1) ? std::string() : finish();
}

std::string TraceWriter::finish() {
  if (steps_.empty()) return {};
  run_together(world_, [&] {
    file_->close_synced();
    file_.reset();
  });
  write_whole_file();
  std::string path =
      folder_ + "/" + trace_format::folder_of(steps_.front().step, steps_.back().step);
  publish(path);
  steps_.clear();
  return path;
}

void TraceWriter::write_whole_file() {
  std::vector<WholeSequences> sequences;
  std::vector<std::int64_t> numbers;
  for (const Step& step : steps_) {
    sequences.emplace_back(step.sequence_ids, layout_, world_);
    numbers.push_back(step.step);
  }
  const auto write = [&] {
    const std::int64_t num_pieces = std::ssize(steps_) * std::ssize(steps_.front().sequence_ids) *
                                    static_cast<std::int64_t>(world_.size());
    require_free_space(temporary_folder(), overhead_bytes + 3 * num_pieces * mapping_bytes,
                       purpose);
    hdf5::File file = hdf5::File::create(temporary_folder() + "/" + trace_format::whole_file);
    file.set_attribute("/", "num_experts", num_experts_);
    file.set_attribute("/", "top_k", top_k_);
    file.set_attribute("/", "num_ranks", static_cast<std::int64_t>(world_.size()));
    const auto write_numbers = [&](const std::string& name,
                                   const std::vector<std::int64_t>& values) {
      file.create_dataset(name, {std::ssize(values)}, hdf5::ElementType::i64)
          .write_all<std::int64_t>(values);
    };
    write_numbers("layers", layers_);
    write_numbers("steps", numbers);
    for (std::size_t i = 0; i < steps_.size(); ++i) {
      const std::vector<std::int64_t>& ids = sequences[i].ids();
      write_numbers(trace_format::dataset(numbers[i], "sequence_ids"), ids);
      const auto show = [&](const char* name, hdf5::ElementType type) {
        const std::string dataset = trace_format::dataset(numbers[i], name);
        hdf5::VirtualDataset whole(
            {std::ssize(layers_), std::ssize(ids), layout_.sequence_length, top_k_}, type);
        for (int rank = 0; rank < world_.size(); ++rank)
          sequences[i].map_rank(whole, rank, 1, trace_format::rank_file(rank), dataset);
        file.create_dataset(dataset, whole);
      };
      show(trace_format::experts, hdf5::ElementType::i32);
      show(trace_format::weights, hdf5::ElementType::f32);
      if (may_drop_) show(trace_format::considered, hdf5::ElementType::i32);
    }
    file.close_synced();
  };
  run_together(world_, [&] {
    if (world_.rank() == 0) write();
  });
}

void TraceWriter::publish(const std::string& path) {
  run_together(world_, [&] {
    if (world_.rank() != 0) return;
    with_io_errors([&] {
      sync_folder(temporary_folder());
      fs::remove_all(path);  // of a course of the run that was left
      fs::rename(temporary_folder(), path);
      sync_folder(folder_);
    });
  });
}

}  // namespace switchyard
