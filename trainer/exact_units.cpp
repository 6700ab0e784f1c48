#include "trainer/exact_units.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Chunks of a sequence that has them at both ends: an early one and its mirror image (zigzag).
std::int64_t parts_of_sequence(const NumericsConfig& numerics) {
  return numerics.max_context > 1 ? 2 * numerics.max_context : 1;
}

// A part of a model whose sums follow from how tokens are spread over ranks.
struct InexactSum {
  bool is_there = false;
  std::string_view key, what, remedy;
};

std::array<InexactSum, 9> inexact_sums(const ModelConfig& model) {
  return {{{model.has_convolution(), "model.mixer",
            "the gradient of a convolution's taps is summed over a rank's rows in fp32",
            "leave conv out"},
           {model.has_hierarchical(), "model.mixer",
            "hierarchical attention adds up what blocks gave to the rows that chose them on a rank",
            "write mixers of another kind"},
           {model.has_conv_heads(), "model.mixer",
            "the gradients of heads that are convolutions (kind conv_attention) are summed over a "
            "rank's rows in fp32",
            "write mixers of another kind"},
           {model.has_classes(), "model.mixer",
            "attention of kind lsh adds up gradients of keys by class over a rank's rows",
            "write mixers of another kind"},
           {model.has_distance_keys(), "model.position.kind",
            "the gradient of position xl is summed over a rank's rows in fp32",
            "write another model.position"},
           {model.has_spans(), "model.mixer",
            "the penalty of learned spans (ramp) is added in fp32, by a share of each rank",
            "leave ramp out"},
           {model.has_compressed_memory(), "model.mixer",
            "what teaches the pooling of a compressed memory is summed over a rank's rows in fp32",
            "leave compressed out"},
           {model.has_slots(), "model.mixer",
            "the gradient of memory slots is summed over a rank's rows in fp32", "leave slots out"},
           {model.has_recurrent_mixer(), "model.mixer",
            "a recurrence adds up its chunks from where a rank's part of a sequence begins",
            "write mixers of kind full or window"}}};
}

}  // namespace

ExactUnits exact_units_of(const Config& config) {
  const NumericsConfig& numerics = config.numerics;
  expect(numerics.exact, "exact mode");
  const std::int64_t parts = parts_of_sequence(numerics);
  return {.rows = config.model.sequence_length * numerics.unit_sequences / parts,
          .per_step = config.train.global_batch * parts / numerics.unit_sequences};
}

std::optional<kernels::ExactSum> exact_sum_of(const Config& config) {
  if (!config.numerics.exact) return std::nullopt;
  const ExactUnits units = exact_units_of(config);
  kernels::ExactSum sum;
  sum.fraction_bits = static_cast<int>(config.numerics.fraction_bits);
  sum.most_of_unit = std::ldexp(1.0, 62 - sum.fraction_bits) / static_cast<double>(units.per_step);
  sum.unit_rows = units.rows;
  return sum;
}

// The largest terms that an exact sum takes are far above those of any run that learns: a loss of
// 1024 nats a token, a log-sum-exp of 256 in the router.
ExactFigures exact_figures_of(const Config& config, std::int64_t num_sequences,
                              std::int64_t num_moe_layers) {
  if (!config.numerics.exact) return {};
  constexpr double most_loss = 1024, most_z = 65536, most_score = 64;
  const auto length = static_cast<double>(config.model.sequence_length);
  const auto sequences = static_cast<double>(std::max<std::int64_t>(num_sequences, 1));
  const auto layers = static_cast<double>(std::max<std::int64_t>(num_moe_layers, 1));
  const auto terms = [](double most, double num) {
    return kernels::ExactTerms{most, kernels::exact_quantum(most, num)};
  };
  const double most_balance = 2 * most_score * static_cast<double>(config.experts.num_experts + 1);
  return {.token_loss = terms(most_loss, sequences * length),
          .balance = terms(most_balance, sequences * layers),
          .z = terms(most_z, sequences * length * layers),
          .score = terms(most_score, length)};
}

std::vector<ConfigMistake> exact_mistakes(const Config& config, const ParallelConfig& parallel) {
  const NumericsConfig& numerics = config.numerics;
  std::vector<ConfigMistake> mistakes;
  if (!numerics.exact) return mistakes;
  const auto blame = [&](std::vector<std::string_view> keys, std::string text) {
    mistakes.push_back({std::move(keys), std::move(text)});
  };
  if (config.run.device == RunDevice::cuda)
    blame({"run.device", "numerics.exact"},
          "exact mode is there on the CPU only: the products of a card do not keep a row's bits; "
          "write run.device: cpu, or numerics.exact: false");
  for (const InexactSum& sum : inexact_sums(config.model))
    if (sum.is_there)
      blame({sum.key, "numerics.exact"},
            fmt::format("{}, so that its last bits depend on the layout, and numerics.exact "
                        "forbids that; {}, or write numerics.exact: false",
                        sum.what, sum.remedy));
  if (numerics.max_context > 1 && numerics.unit_sequences > 1)
    blame({"numerics.unit_sequences", "numerics.max_context"},
          fmt::format("a unit is unit_sequences = {} sequences, or with max_context = {} a part of "
                      "one; set one of them to 1",
                      numerics.unit_sequences, numerics.max_context));
  const std::int64_t micro_batch =
      config.train.micro_batch > 0
          ? config.train.micro_batch
          : config.train.global_batch / std::max<std::int64_t>(parallel.data, 1);
  if (micro_batch % numerics.unit_sequences != 0)
    blame({"numerics.unit_sequences", "train.micro_batch", "train.global_batch", "parallel.data"},
          fmt::format("a micro-batch of {} sequences is no multiple of unit_sequences = {}; make "
                      "unit_sequences a divisor of it, as 1",
                      micro_batch, numerics.unit_sequences));
  const std::int64_t parts = parts_of_sequence(numerics);
  if (config.model.sequence_length % parts != 0)
    blame({"numerics.max_context", "model.sequence_length"},
          fmt::format("sequence_length / (2 max_context) = {} / {} is not whole; make "
                      "sequence_length a multiple of {}, or max_context smaller",
                      config.model.sequence_length, parts, parts));
  if (numerics.max_context % std::max<std::int64_t>(parallel.context, 1) != 0)
    blame({"numerics.max_context", "parallel.context.ranks"},
          fmt::format("{} ranks share a sequence (parallel.context), and max_context = {} is no "
                      "multiple of them; make it one, as {}. It is part of what a run computes: "
                      "take the same for all runs that are to be equal",
                      parallel.context, numerics.max_context, parallel.context));
  return mistakes;
}

}  // namespace switchyard
