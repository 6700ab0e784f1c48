// Choices of experts from a trace, for the tokens that a rank trains on (experts.router.replay).
// They go by token identity, so neither the layout nor the placement that traced them counts.
#pragma once

#include <string>

#include "data/loader.hpp"
#include "experts/router/router.hpp"
#include "trainer/config.hpp"
#include "trainer/routing/trace_reader.hpp"

namespace switchyard {

class RoutingReplay {
 public:
  // Opens the trace that the configuration names. ConfigError if it is of another model; DataError,
  // IoError: see TraceReader.
  RoutingReplay(const Config& config, const BatchLayout& layout);

  // DataError unless the trace has the steps first ... last of a run whose step `first` begins at
  // this position in the data, with all of their sequences.
  void require(std::int64_t first, std::int64_t last, std::int64_t data_position) const;
  // Writes the choices for the tokens of `batch`, as this rank holds them, to `into`
  // (Activations::replayed). DataError if a sequence is missing.
  void load(std::int64_t step, const Batch& batch, const RouterScratch::Replayed& into) const;

 private:
  std::int64_t row_of(const std::vector<std::int64_t>& ids, std::int64_t id,
                      std::int64_t step) const;

  TraceReader trace_;
  BatchLayout layout_;
};

}  // namespace switchyard
