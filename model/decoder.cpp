#include "model/decoder.hpp"

#include <algorithm>
#include <numeric>

#include "kernels/host_copy.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Tokens of a prompt that go through the model at once.
constexpr std::size_t prompt_chunk = 256;

}  // namespace

Decoder::Decoder(const Transformer& model, std::int64_t max_length)
    : model_(model),
      device_(model.device()),
      generation_(model.make_generation(max_length, static_cast<std::int64_t>(prompt_chunk))),
      sequence_ids_(device_, Purpose::workspace, DType::i64, {1}),
      logits_(device_, Purpose::workspace, DType::f32, {1, model.vocab_size()}) {}

Decoder::~Decoder() = default;

void Decoder::clear() {
  generation_.length = 0;
  for (const auto& cache : generation_.caches) cache->clear();
}

std::span<const float> Decoder::append(std::span<const std::int32_t> tokens) {
  expect(!tokens.empty(), "at least one token to append");
  expect(length() + static_cast<std::int64_t>(tokens.size()) <= max_length(),
         "a sequence of at most max_length tokens");
  while (!tokens.empty()) {
    const std::size_t count = std::min(prompt_chunk, tokens.size());
    extend(tokens.first(count));
    tokens = tokens.subspan(count);
  }
  model_.last_logits(*state_, logits_);
  host_logits_.resize(static_cast<std::size_t>(logits_->numel()));
  kernels::copy_to_host<float>(logits_, host_logits_);
  return std::span(host_logits_).first(static_cast<std::size_t>(model_.vocab_size_used()));
}

void Decoder::extend(std::span<const std::int32_t> tokens) {
  const auto num_tokens = static_cast<std::int64_t>(tokens.size());
  if (!state_ || tokens_->numel() != num_tokens) {
    state_.reset();  // first, so that two sets of buffers never exist together
    tokens_ = Tensor(device_, Purpose::workspace, DType::i32, {num_tokens});
    positions_ = Tensor(device_, Purpose::workspace, DType::i32, {num_tokens});
    state_ = model_.make_extend_state(num_tokens, max_length());
  }
  Pass pass;
  pass.training = false;
  pass.sequence_length = num_tokens;
  pass.sequence_ids = sequence_ids_;
  pass.positions = positions_;
  pass.tokens = tokens_;
  pass.rotary_positions = positions_;
  pass.num_global_tokens = static_cast<double>(num_tokens);

  kernels::copy_from_host<std::int32_t>(tokens, tokens_);
  kernels::write_from_host<std::int32_t>(positions_, [&](std::span<std::int32_t> positions) {
    std::iota(positions.begin(), positions.end(), static_cast<std::int32_t>(length()));
  });
  model_.extend(tokens_, generation_, *state_, pass);
}

}  // namespace switchyard
