#include "model/mixers/block_summaries.hpp"

#include <cmath>

#include "model/parameter_spec.hpp"

namespace switchyard {

namespace {

ParameterSpec sums_spec(std::string name, const MixerConfig& mixer) {
  return weight_spec(std::move(name), {mixer.summary, mixer.block}, "model.mixer",
                     1 / std::sqrt(static_cast<double>(mixer.block)));
}

}  // namespace

BlockSummaries::BlockSummaries(ParameterStore& store, const std::string& prefix,
                               const MixerConfig& mixer)
    : keys_(store.add(sums_spec(prefix + ".summary.key.weight", mixer))),
      values_(store.add(sums_spec(prefix + ".summary.value.weight", mixer))) {}

void BlockSummaries::put_weights(AttentionInputs& inputs) const {
  inputs.summary_keys = keys_.value();
  inputs.summary_values = values_.value();
}

void BlockSummaries::put_gradients(AttentionRowGradients& gradients) const {
  gradients.summary_keys = keys_.gradient();
  gradients.summary_values = values_.gradient();
}

void BlockSummaries::report_ready(const Pass& pass) const {
  pass.gradient_ready(keys_);
  pass.gradient_ready(values_);
}

}  // namespace switchyard
