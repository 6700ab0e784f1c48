#include "bench/traced_choices.hpp"

#include <algorithm>
#include <utility>

#include "tensor/error.hpp"
#include "trainer/agreement.hpp"
#include "trainer/routing/trace_reader.hpp"

namespace switchyard::bench {

namespace {

// Choices of the most chosen expert over the mean.
double max_over_mean(const std::vector<std::int32_t>& experts, std::int64_t num_experts) {
  std::vector<std::int64_t> loads(static_cast<std::size_t>(num_experts));
  std::int64_t total = 0;
  for (const std::int32_t expert : experts) {
    if (expert < 0) continue;
    ++loads[static_cast<std::size_t>(expert)];
    ++total;
  }
  if (total == 0) return 1;
  return static_cast<double>(*std::ranges::max_element(loads) * num_experts) /
         static_cast<double>(total);
}

TracedChoices fullest_layer(const TraceReader& trace) {
  const TraceShape& shape = trace.shape();
  const std::int64_t step = trace.steps().back();
  const auto of_sequence = static_cast<std::size_t>(shape.sequence_length * shape.top_k);
  std::vector<std::vector<std::int32_t>> layers(shape.layers.size());
  for (std::int64_t row = 0; row < std::ssize(trace.sequence_ids(step)); ++row) {
    const std::vector<std::int32_t> read =
        trace.read(TraceReader::What::experts, step, row, {0, shape.sequence_length});
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const auto begin = read.begin() + static_cast<std::ptrdiff_t>(i * of_sequence);
      layers[i].insert(layers[i].end(), begin, begin + static_cast<std::ptrdiff_t>(of_sequence));
    }
  }
  TracedChoices fullest;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const double load = max_over_mean(layers[i], shape.num_experts);
    if (!fullest.experts.empty() && load <= fullest.max_over_mean) continue;
    fullest = {.step = step,
               .layer = shape.layers[i],
               .num_experts = shape.num_experts,
               .top_k = shape.top_k,
               .max_over_mean = load,
               .experts = std::move(layers[i])};
  }
  return fullest;
}

}  // namespace

std::vector<std::int32_t> TracedChoices::of_rank(int rank, std::int64_t num_tokens) const {
  const std::int64_t all = std::ssize(experts) / top_k;
  expect(all > 0, "a trace that has tokens");
  std::vector<std::int32_t> taken;
  for (std::int64_t t = 0; t < num_tokens; ++t) {
    const std::int64_t token = (rank * num_tokens + t) % all;
    const auto begin = experts.begin() + token * top_k;
    taken.insert(taken.end(), begin, begin + top_k);
  }
  return taken;
}

TracedChoices read_choices(Group& world, const std::string& path) {
  TracedChoices choices;
  run_together(world, [&] { choices = fullest_layer(TraceReader(path)); });
  return choices;
}

}  // namespace switchyard::bench
