// Reads traces of routing (trace_format.hpp), one or all of a run, by token identity.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/hdf5/hdf5.hpp"
#include "tensor/position_range.hpp"

namespace switchyard {

// What all steps of a trace have in common.
struct TraceShape {
  std::vector<std::int64_t> layers;  // those with experts
  std::int64_t num_experts = 0;
  std::int64_t top_k = 0;
  std::int64_t sequence_length = 0;

  friend bool operator==(const TraceShape&, const TraceShape&) = default;
};

class TraceReader {
 public:
  // path: a trace.h5, its folder, a folder of such folders, or that of a run. Of a step that
  // several have, the one that begins last counts. DataError if there is none, if one is of another
  // shape, or if a rank's file is missing; IoError.
  explicit TraceReader(const std::string& path);

  const std::string& path() const { return path_; }
  const TraceShape& shape() const { return shape_; }
  std::vector<std::int64_t> steps() const;  // ascending
  bool has_step(std::int64_t step) const { return files_.contains(step); }
  // Ascending. These and read() DataError for a step that is not there.
  std::vector<std::int64_t> sequence_ids(std::int64_t step) const;

  enum class What : std::uint8_t { experts, considered };
  // i32 [layers, positions, top_k] of the sequence in row `row` of sequence_ids(). Where nothing
  // could be dropped, what was considered are the experts.
  std::vector<std::int32_t> read(What what, std::int64_t step, std::int64_t row,
                                 const PositionRange& positions) const;
  // f32, of the same shape.
  std::vector<float> read_weights(std::int64_t step, std::int64_t row,
                                  const PositionRange& positions) const;

 private:
  void add(const std::string& file);
  const hdf5::Dataset& dataset(std::int64_t step, const std::string& name) const;
  void check(std::int64_t step, const std::string& name, const hdf5::Dataset& dataset) const;
  bool has(std::int64_t step, const std::string& name) const;
  const hdf5::File& file_of(std::int64_t step) const;
  template <class T>
  std::vector<T> read_part(std::int64_t step, const std::string& name, std::int64_t row,
                           const PositionRange& positions) const;

  std::string path_;
  TraceShape shape_;
  struct StepFile {
    std::string path;
    std::int64_t rank_bytes = 0;  // of the files of the ranks beside it
  };
  std::map<std::int64_t, StepFile> files_;  // by step
  // What was read last stays open.
  mutable std::string open_path_;
  mutable std::unique_ptr<hdf5::File> open_file_;
  mutable std::map<std::string, hdf5::Dataset> datasets_;
};

}  // namespace switchyard
