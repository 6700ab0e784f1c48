// What the tests of model/ share: small models with weights far from zero (of
// tests/model/model_cases.hpp), small batches, and the double-precision oracle on the same weights.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/host_copy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "model/transformer.hpp"
#include "tests/model/model_cases.hpp"
#include "tests/support/on_device.hpp"
#include "tests/support/reference_transformer.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {

// Token ids and targets that are a formula of the sequence and the position.
struct SmallBatch {
  SmallBatch(std::int64_t first_sequence, std::int64_t sequences, std::int64_t tokens_each,
             std::int64_t vocab)
      : num_sequences(sequences), length(tokens_each) {
    for (std::int64_t s = first_sequence; s < first_sequence + sequences; ++s) {
      sequence_ids.push_back(s);
      for (std::int64_t i = 0; i < length; ++i) {
        tokens.push_back(
            static_cast<std::int32_t>((7 * s * s + 5 * i * i + 3 * s * i + i) % vocab));
        targets.push_back(static_cast<std::int32_t>((11 * s + 2 * i * i + 1) % vocab));
        positions.push_back(static_cast<std::int32_t>(i));
      }
    }
  }
  // Borrows this; on a device with memory of its own the values of now, in tensors kept here.
  TokenBatch on(Device& device) {
    on_device.clear();
    const auto put = [&](auto& values, Shape shape) {
      if (!device.has_own_memory()) return view_of(device, values.data(), shape);
      return on_device.emplace_back(tensor_of(device, values, shape)).view();
    };
    return {put(tokens, {num_sequences, length}),
            put(targets, {num_sequences, length}),
            put(sequence_ids, {num_sequences}),
            put(positions, {num_sequences * length}),
            num_sequences,
            length};
  }

  std::int64_t num_sequences;
  std::int64_t length;
  std::vector<std::int32_t> tokens, targets, positions;
  std::vector<std::int64_t> sequence_ids;
  std::vector<Tensor> on_device;
};

// A training pass over a batch that is `share` of the step's tokens.
inline Pass pass_over(const TokenBatch& batch, double share = 1) {
  Pass pass;
  pass.step = 3;
  pass.sequence_length = batch.sequence_length;
  pass.sequence_ids = batch.sequence_ids;
  pass.positions = batch.positions;
  pass.rotary_positions = batch.positions;
  pass.num_global_sequences = static_cast<double>(batch.num_sequences) / share;
  pass.num_global_tokens = static_cast<double>(batch.num_sequences * batch.sequence_length) / share;
  return pass;
}

// A model of a case on a mesh, initialised; the norms' gains differ from one, sinks from zero.
class SmallModel {
 public:
  static constexpr std::uint64_t seed = 17;

  SmallModel(Device& device, const Mesh& mesh, const ModelCase& c, DType compute = DType::f32)
      : placements{Placement::contiguous(c.experts.num_experts, mesh.degree(Axis::expert))},
        store(device, mesh),
        model(store, placements, c.model, c.experts, compute, seed, c.vocab_size_used),
        losses_(device, Purpose::workspace, DType::f64, {num_losses}) {
    store.allocate();
    store.initialize(seed);
    if (!device.is_plan()) vary_gains();
    model.pack_weights();
  }

  // The losses that a pass adds; zeros on the plan device.
  LossSums train(const TokenBatch& batch, Activations& activations, const Pass& pass) const {
    return losses_of(
        [&](const TensorView& losses) { model.train(batch, activations, pass, losses); });
  }
  LossSums evaluate(const TokenBatch& batch, Activations& activations, const Pass& pass,
                    const TensorView& token_losses = {}) const {
    return losses_of([&](const TensorView& losses) {
      model.evaluate(batch, activations, pass, losses, token_losses);
    });
  }

  std::vector<Placement> placements;
  ParameterStore store;
  Transformer model;

 private:
  template <class RunPass>
  LossSums losses_of(const RunPass& run) const {
    kernels::fill_zero(losses_);
    run(losses_.view());
    std::array<double, num_losses> values{};
    kernels::copy_to_host<double>(losses_, values);
    return {values[0], values[1], values[2]};
  }
  void vary_gains() {
    for (const Parameter& parameter : store.parameters()) {
      if (parameter.spec().initial == Initial::normal || parameter.spec().initial == Initial::given)
        continue;
      const std::span<float> gains = parameter.value().span<float>();
      if (parameter.name().ends_with(".span")) {  // between 0 and 1, and no edge at a token
        for (std::size_t h = 0; h < gains.size(); ++h)
          gains[h] = 0.23f + 0.11f * static_cast<float>(h);
        continue;
      }
      for (std::size_t h = 0; h < gains.size(); ++h)
        gains[h] += 0.1f * static_cast<float>(static_cast<int>(h * h % 7) - 3);
    }
  }

  Tensor losses_;
};

// One rank alone, on the tested device. Its groups have one member, so nothing is exchanged.
struct OneRank {
  std::unique_ptr<Device> device = make_tested_device();
  Mesh mesh{*device, 0, 1, {}};
};

inline reference_model::Values values_of(const ParameterStore& store) {
  reference_model::Values values;
  for (const Parameter& parameter : store.parameters()) {
    const std::span<float> value = parameter.value().span<float>();
    values[parameter.name()].assign(value.begin(), value.end());
  }
  return values;
}

inline reference_model::Transformer oracle_of(const ParameterStore& store, const ModelCase& c) {
  return {c.model, c.experts, c.vocab_size_used, values_of(store)};
}

// The masks of a pass, taken from the kernel: dropout of a matrix of ones.
inline reference_model::Masks masks_of(Device& device, const Pass& pass, std::int64_t hidden) {
  return [&device, pass, hidden](const std::string& site_name, double rate, std::int64_t copies) {
    const std::int64_t rows = pass.sequence_ids.numel() * pass.sequence_length * copies;
    const Tensor ones = tensor_of(
        device, std::vector<float>(static_cast<std::size_t>(rows * hidden), 1.0f), {rows, hidden});
    kernels::DropoutSite site;
    site.key = random_key(SmallModel::seed, site_name);
    site.step = pass.step;
    site.sequence_length = pass.sequence_length;
    site.positions = pass.positions;
    site.copies = static_cast<int>(copies);
    kernels::dropout(ones, static_cast<float>(rate), site, pass.sequence_ids);
    reference_model::Matrix mask(rows, hidden);
    const std::span<float> values = ones->span<float>();
    mask.data.assign(values.begin(), values.end());
    return mask;
  };
}

inline double gradient_error(const Parameter& parameter, const reference_model::Values& expected) {
  const std::vector<double>& values = expected.at(parameter.name());
  return relative_error(parameter.gradient().as<float>(), values.data(), values.size());
}

}  // namespace switchyard::test
