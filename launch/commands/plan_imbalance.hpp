// What `plan --imbalance` says: how uneven the rows of the ranks are.
#pragma once

#include <string>

#include "trainer/config.hpp"
#include "trainer/load_statistics.hpp"

namespace switchyard {

struct Imbalance {
  RowsOfRanks rows;
  std::string reason;  // in words: where it is from
};

// wanted: "balanced" or empty; a factor as "1.4"; a run's folder (the last rows of its
// metrics.jsonl that tell of layers); or a trace of routing (trainer/routing/trace_reader.hpp). A
// load of as many experts as the configuration has goes to the ranks where its experts live, layer
// by layer; another is taken on by a distribution. config.parallel is resolved. ConfigError,
// DataError, IoError.
Imbalance read_imbalance(const std::string& wanted, const Config& config);

}  // namespace switchyard
