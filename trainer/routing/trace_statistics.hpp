// What a trace of routing says of its experts, by layer: their load, and which of them tokens go to
// together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/routing/trace_reader.hpp"

namespace switchyard {

struct LayerTraffic {
  std::int64_t layer = 0;
  std::int64_t num_tokens = 0;
  std::int64_t num_dropped = 0;     // choices without an expert
  std::vector<std::int64_t> loads;  // tokens by expert
  std::vector<std::int64_t> pairs;  // tokens by two experts, [experts, experts], symmetric
  double largest_shares = 0;  // of the largest weight in the sum of a token's weights, added up

  std::int64_t pair(std::int64_t a, std::int64_t b) const {
    return pairs[static_cast<std::size_t>(a * std::ssize(loads) + b)];
  }
  double max_over_mean() const;
  // How much more often tokens go to both than if choices knew nothing of each other:
  // pair / num_tokens over the product of both loads / num_tokens. 0 where an expert has no token.
  double lift(std::int64_t a, std::int64_t b) const;
};

// Over all steps of the trace. DataError, IoError: see TraceReader.
std::vector<LayerTraffic> traffic_of(const TraceReader& trace);

// One line for each pair of different experts of each layer, the lower first, also those that never
// meet: "layer,first,second,tokens,lift".
std::string coactivation_csv(const std::vector<LayerTraffic>& layers);
// One line for each expert of each layer: "layer,expert,tokens,share".
std::string load_csv(const std::vector<LayerTraffic>& layers);

}  // namespace switchyard
