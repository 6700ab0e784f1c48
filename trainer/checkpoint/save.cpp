#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>

#include "data/files/atomic_file.hpp"
#include "data/hdf5/hdf5.hpp"
#include "kernels/host_copy.hpp"
#include "trainer/agreement.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/checkpoint/checkpoint_files.hpp"
#include "trainer/checkpoint/flat_range.hpp"
#include "trainer/checkpoint/reader.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t block_numel = 4 << 20;  // elements written at a time where they are gathered

std::int64_t num_elements(const std::vector<SlicePiece>& pieces) {
  std::int64_t numel = 0;
  for (const SlicePiece& piece : pieces) numel += piece.total();
  return numel;
}

// An upper bound of the bytes of this rank's file: data, alignment, chunk index, headers, names.
std::int64_t bytes_of_rank_file(const std::vector<OwnedRange>& ranges, bool has_moments) {
  std::int64_t bytes = 64 << 10;
  for (const OwnedRange& range : ranges)
    bytes += std::ssize(saved_parts_of(range.parameter->spec().kind, has_moments)) *
             bytes_of_dataset(num_elements(range.counted_pieces()));
  return bytes;
}

TensorView view_of_part(SavedPart part, const OwnedRange& range, const AdamW* optimizer) {
  if (part == SavedPart::moment1) return optimizer->moment1(range);
  if (part == SavedPart::moment2) return optimizer->moment2(range);
  return range.bucket->values.view().slice_rows(range.bucket_begin,
                                                range.bucket_begin + range.numel);
}

// Piece after piece, as the manifest lists them.
void write_range(hdf5::Dataset& dataset, const float* local,
                 const std::vector<SlicePiece>& pieces) {
  if (pieces.size() == 1 && pieces[0].count == 1)
    return dataset.write(local + pieces[0].local_begin);
  std::vector<float> block;
  std::int64_t written = 0;
  const auto write_block = [&] {
    const std::int64_t numel = std::ssize(block);
    dataset.write(hdf5::Box::rows(dataset.shape(), written, numel), block.data());
    written += numel;
    block.clear();
  };
  for (const SlicePiece& piece : pieces)
    for (std::int64_t stretch = 0; stretch < piece.count; ++stretch) {
      const float* begin = local + piece.local_begin + stretch * piece.local_stride;
      block.insert(block.end(), begin, begin + piece.numel);
      if (std::ssize(block) >= block_numel) write_block();
    }
  if (!block.empty()) write_block();
}

void write_rank_file(const std::string& path, const std::vector<OwnedRange>& ranges,
                     const AdamW* optimizer) {
  hdf5::File file = create_file_of(path, bytes_of_rank_file(ranges, optimizer != nullptr));
  for (const SavedPart part : saved_parts_of(ParameterKind::trained, optimizer != nullptr)) {
    file.create_group(std::string(group_name_of(part)));
    for (const OwnedRange& range : ranges) {
      if (part != SavedPart::value && !range.parameter->is_trained()) continue;
      const std::vector<SlicePiece> pieces = range.counted_pieces();
      const std::int64_t numel = num_elements(pieces);
      if (numel == 0) continue;  // other ranks save all of it
      hdf5::Dataset dataset =
          file.create_dataset(fmt::format("{}/{}", group_name_of(part), range.parameter->name()),
                              {numel}, hdf5::ElementType::f32, checkpoint_dataset_options(numel));
      dataset.set_attribute("global_begin", pieces.front().global_begin);
      const kernels::HostContents<float> contents(view_of_part(part, range, optimizer));
      write_range(dataset, contents.span().data(), pieces);
    }
  }
  file.close_synced();
  trim_reservation(path);
}

constexpr std::size_t figures_of_range = 5;  // tensor, begin, numel, count, stride

// What this rank owns, in the order of its datasets.
std::vector<std::int64_t> figures_of(const std::vector<OwnedRange>& ranges) {
  std::vector<std::int64_t> figures;
  for (const OwnedRange& range : ranges)
    for (const SlicePiece& piece : range.counted_pieces())
      for (const std::int64_t figure : {std::int64_t{range.parameter->index()}, piece.global_begin,
                                        piece.numel, piece.count, piece.global_stride})
        figures.push_back(figure);
  return figures;
}

// Which rank owns which elements of every tensor, from what each rank says of itself. Collective.
std::vector<SavedTensor> gather_ownership(const ParameterStore& store,
                                          const std::vector<OwnedRange>& ranges, Group& world) {
  const auto num_ranks = static_cast<std::size_t>(world.size());
  std::vector<std::int64_t> mine = figures_of(ranges);
  std::vector<std::int64_t> sizes(num_ranks);
  const std::int64_t my_size = std::ssize(mine);
  world.all_gather_values({&my_size, 1}, sizes);
  const auto room = static_cast<std::size_t>(*std::max_element(sizes.begin(), sizes.end()));
  mine.resize(room);
  std::vector<std::int64_t> all(room * num_ranks);
  world.all_gather_values(mine, all);

  std::vector<SavedTensor> tensors;
  for (const Parameter& parameter : store.parameters())
    tensors.push_back({parameter.name(), parameter.spec().global_shape, parameter.spec().kind, {}});
  for (std::size_t rank = 0; rank < num_ranks; ++rank)
    for (std::size_t at = 0; at < static_cast<std::size_t>(sizes[rank]); at += figures_of_range) {
      const std::int64_t* figures = &all[rank * room + at];
      tensors[static_cast<std::size_t>(figures[0])].ranges.push_back(
          {static_cast<int>(rank), figures[1], figures[2], figures[3], figures[4]});
    }
  // A rank's own ranges of a tensor ascend already, as its dataset holds them.
  for (SavedTensor& tensor : tensors)
    std::stable_sort(tensor.ranges.begin(), tensor.ranges.end(),
                     [](const SavedRange& a, const SavedRange& b) { return a.begin < b.begin; });
  return tensors;
}

// Sizes and hashes of all ranks' files. Collective.
std::vector<CheckpointFile> gather_files(const CheckpointFile& mine, Group& world) {
  std::array<std::int64_t, 3> figures{mine.bytes, 0, 0};
  for (std::size_t half = 0; half < 2; ++half)
    figures[1 + half] =
        static_cast<std::int64_t>(std::stoull(mine.hash.substr(16 * half, 16), nullptr, 16));
  std::vector<std::int64_t> all(3 * static_cast<std::size_t>(world.size()));
  world.all_gather_values(figures, all);
  std::vector<CheckpointFile> files;
  for (int rank = 0; rank < world.size(); ++rank) {
    const std::size_t at = 3 * static_cast<std::size_t>(rank);
    files.push_back({rank_file_name(rank), all[at],
                     fmt::format("{:016x}{:016x}", static_cast<std::uint64_t>(all[at + 1]),
                                 static_cast<std::uint64_t>(all[at + 2]))});
  }
  return files;
}

// Out of sight first, so that nobody takes a half-removed folder for a checkpoint.
void remove_checkpoint(const std::string& folder, const std::string& name) {
  const std::string doomed = fmt::format("{}/{}.old.tmp", folder, name);
  fs::rename(folder + "/" + name, doomed);
  sync_folder(folder);
  fs::remove_all(doomed);
}

void remove_surplus(const SaveRequest& request, const Report& report) {
  remove_leftovers(request.folder);
  const std::vector<std::int64_t> steps = checkpoint_steps_in(request.folder);
  const std::int64_t keep = std::max<std::int64_t>(request.keep, 1);
  if (std::ssize(steps) <= keep && steps.front() <= request.state.step) return;
  std::int64_t num_kept = 0;
  for (const std::int64_t step : steps) {
    const std::string name = step_folder_name(step);
    if (step == 0 || is_of_another_course(request.folder + "/" + name, request.course)) continue;
    if (step > request.state.step) {
      if (report)
        report(fmt::format("removing {}: this run started again before that step and has left it",
                           name));
      remove_checkpoint(request.folder, name);
    } else if (++num_kept > keep) {
      remove_checkpoint(request.folder, name);
    }
  }
}

// optimizer: null for weights alone.
SaveResult save(const SaveRequest& request, const ParameterStore& store, const AdamW* optimizer,
                Group& world, const Report& report) {
  const auto start = std::chrono::steady_clock::now();
  const std::string name = step_folder_name(request.state.step);
  const std::string temporary = fmt::format("{}/{}.tmp", request.folder, name);
  const bool first = world.rank() == 0;
  const std::vector<OwnedRange> ranges = store.owned_ranges();
  Manifest manifest;
  manifest.state = request.state;
  manifest.lineage = request.lineage;
  manifest.has_moments = optimizer != nullptr;
  manifest.configuration = request.configuration;
  manifest.course = request.course;
  manifest.corpus = request.corpus;
  manifest.arithmetic = request.arithmetic;
  manifest.num_ranks = world.size();
  manifest.layout = store.mesh().config();
  manifest.tensors = gather_ownership(store, ranges, world);
  const std::int64_t shared_bytes =
      bytes_of_shared_files(manifest.tensors) + std::ssize(request.configuration) * 2;
  std::array<double, 1> needed{
      static_cast<double>(bytes_of_rank_file(ranges, optimizer != nullptr))};
  world.all_reduce_values(needed, ReduceOp::sum);

  const auto on_first = [&](const auto& work) {
    run_together(world, [&] {
      if (first) with_io_errors(work);
    });
  };
  try {
    on_first([&] {
      fs::create_directories(request.folder);
      remove_leftovers(request.folder);
      require_free_name(request.folder + "/" + name, request.course);
      require_free_space(
          request.folder,
          static_cast<std::int64_t>(needed[0]) + shared_bytes + request.leave_free_bytes,
          "a checkpoint");
      fs::create_directory(temporary);
    });
    CheckpointFile mine;
    run_together(world, [&] {
      with_io_errors([&] {
        write_rank_file(temporary + "/" + rank_file_name(world.rank()), ranges, optimizer);
        mine = describe_file(temporary, rank_file_name(world.rank()));
      });
    });
    manifest.files = gather_files(mine, world);
    on_first([&] {
      write_whole_file(fmt::format("{}/{}", temporary, whole_file_name), manifest, shared_bytes);
      manifest.files.push_back(describe_file(temporary, whole_file_name));
      write_file_atomically(fmt::format("{}/{}", temporary, manifest_name), to_json(manifest));
      publish(request.folder, temporary, name);
    });
  } catch (const Error&) {
    std::error_code ignored;
    if (first) fs::remove_all(temporary, ignored);
    world.barrier();  // nobody goes on, or saves again, before it is gone
    throw;
  }
  on_first([&] { remove_surplus(request, report); });

  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  return {fmt::format("{}/{}", request.folder, name), manifest.num_bytes(), elapsed.count()};
}

}  // namespace

SaveResult save_checkpoint(const SaveRequest& request, const ParameterStore& store,
                           const AdamW& optimizer, Group& world, const Report& report) {
  return save(request, store, &optimizer, world, report);
}

SaveResult save_weights(const SaveRequest& request, const ParameterStore& store, Group& world,
                        const Report& report) {
  return save(request, store, nullptr, world, report);
}

}  // namespace switchyard
