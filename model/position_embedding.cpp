#include "model/position_embedding.hpp"

#include <algorithm>

#include "kernels/host_copy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "kernels/rows/embedding.hpp"
#include "model/parameter_spec.hpp"

namespace switchyard {

PositionEmbedding::Scratch::Scratch(Device& device, const ModelConfig& model, DType compute,
                                    std::int64_t num_tokens, std::int64_t num_positions) {
  if (!model.adds_positions()) return;
  rows = Tensor(device, Purpose::workspace, compute, {num_tokens, model.hidden});
  if (model.position.kind != PositionKind::sinusoidal) return;
  angles = kernels::RopeTable(device, num_positions, model.hidden, {.base = 10000});
  unturned = Tensor(device, Purpose::workspace, DType::f32, {1, model.hidden});
  zeros = Tensor(device, Purpose::workspace, DType::i32, {num_tokens});
  kernels::fill_zero(zeros);
  kernels::write_from_host<float>(unturned, [](std::span<float> row) {
    std::fill_n(row.begin(), row.size() / 2, 1.0f);
    std::fill(row.begin() + static_cast<std::ptrdiff_t>(row.size() / 2), row.end(), 0.0f);
  });
}

PositionEmbedding::PositionEmbedding(ParameterStore& store, const ModelConfig& model)
    : kind_(model.position.kind), hidden_(model.hidden) {
  if (kind_ == PositionKind::absolute)
    table_ = &store.add(weight_spec("position.weight", {model.sequence_length, model.hidden},
                                    "model.sequence_length, model.hidden", model.initial_std));
}

void PositionEmbedding::forward(const TensorView& stream, Scratch& scratch,
                                const Pass& pass) const {
  if (scratch.rows.empty()) return;
  if (table_ != nullptr) {
    kernels::embedding_forward(pass.rotary_positions, table_->value(), scratch.rows);
  } else {
    kernels::embedding_forward(scratch.zeros, scratch.unturned, scratch.rows);
    kernels::rope(scratch.rows, scratch.angles, pass.rotary_positions, hidden_,
                  kernels::Rotation::forward);
  }
  kernels::add(stream, scratch.rows, stream);
}

void PositionEmbedding::backward(const TensorView& d_stream, const Pass& pass) const {
  if (table_ == nullptr) return;
  kernels::embedding_backward(pass.rotary_positions, d_stream, table_->gradient_sum());
  pass.gradient_ready(*table_);
}

}  // namespace switchyard
