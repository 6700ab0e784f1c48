#include "model/decoder.hpp"

#include <algorithm>
#include <numeric>

#include "kernels/embedding.hpp"
#include "kernels/host_copy.hpp"
#include "kernels/rms_norm.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Tokens of a prompt that go through the model at once.
constexpr std::size_t prompt_chunk = 256;

}  // namespace

Decoder::Decoder(const Transformer& model, std::int64_t max_length)
    : model_(model),
      device_(model.store_.device()),
      max_length_(max_length),
      rope_(device_, max_length, model.model_.effective_head_dim(), rope_spec(model.model_)),
      sequence_ids_(device_, Purpose::workspace, DType::i64, {1}),
      logits_(device_, Purpose::workspace, DType::f32, {1, model.vocab_size()}) {
  expect(model.num_moe_layers() == 0 || model.store_.mesh().degree(Axis::expert) == 1,
         "generation has all experts on this rank");
  caches_.reserve(model.blocks_.size());
  for (std::size_t layer = 0; layer < model.blocks_.size(); ++layer)
    caches_.emplace_back(
        device_, model.model_,
        model.model_.attention_of_layer(static_cast<std::int64_t>(layer)).effective_window(),
        model.compute_, max_length, static_cast<std::int64_t>(prompt_chunk));
}

Decoder::~Decoder() = default;

void Decoder::clear() {
  length_ = 0;
  for (AttentionLayer::Cache& cache : caches_) cache.clear();
}

std::span<const float> Decoder::append(std::span<const std::int32_t> tokens) {
  expect(!tokens.empty(), "at least one token to append");
  expect(length_ + static_cast<std::int64_t>(tokens.size()) <= max_length_,
         "a sequence of at most max_length tokens");
  while (!tokens.empty()) {
    const std::size_t count = std::min(prompt_chunk, tokens.size());
    extend(tokens.first(count));
    tokens = tokens.subspan(count);
  }
  const std::int64_t last = state_->norm.normed->rows() - 1;
  model_.head_->logits(state_->norm.normed->slice_rows(last, last + 1), logits_);
  host_logits_.resize(static_cast<std::size_t>(logits_->numel()));
  kernels::copy_to_host<float>(logits_, host_logits_);
  return std::span(host_logits_).first(static_cast<std::size_t>(model_.vocab_size_used_));
}

void Decoder::extend(std::span<const std::int32_t> tokens) {
  const auto num_tokens = static_cast<std::int64_t>(tokens.size());
  if (!state_ || tokens_->numel() != num_tokens) {
    state_.reset();  // first, so that two sets of buffers never exist together
    tokens_ = Tensor(device_, Purpose::workspace, DType::i32, {num_tokens});
    positions_ = Tensor(device_, Purpose::workspace, DType::i32, {num_tokens});
    state_ = std::make_unique<Block::ExtendState>(device_, model_.placement_, model_.model_,
                                                  model_.experts_, model_.compute_, num_tokens,
                                                  max_length_);
    for (const auto& block : model_.blocks_) block->add_extend_buffers(*state_, num_tokens);
  }
  Pass pass;
  pass.training = false;
  pass.sequence_length = num_tokens;
  pass.sequence_ids = sequence_ids_;
  pass.positions = positions_;
  pass.rotary_positions = positions_;
  pass.num_global_tokens = static_cast<double>(num_tokens);

  kernels::copy_from_host<std::int32_t>(tokens, tokens_);
  kernels::write_from_host<std::int32_t>(positions_, [&](std::span<std::int32_t> positions) {
    std::iota(positions.begin(), positions.end(), static_cast<std::int32_t>(length_));
  });
  kernels::embedding_forward(tokens_, model_.embedding_->value(), state_->stream);
  for (std::size_t layer = 0; layer < model_.blocks_.size(); ++layer)
    model_.blocks_[layer]->extend(*state_, length_, caches_[layer], rope_, layer == 0, pass);
  const auto epsilon = static_cast<float>(model_.model_.norm_epsilon);
  const TensorView& weight = model_.final_norm_->value();
  if (model_.blocks_.empty())
    kernels::rms_norm_forward(state_->stream, weight, epsilon, state_->norm.normed,
                              state_->norm.rstd);
  else
    kernels::add_rms_norm_forward(state_->stream, state_->delta, weight, epsilon, state_->stream,
                                  state_->norm.normed, state_->norm.rstd);
  length_ += num_tokens;
}

}  // namespace switchyard
