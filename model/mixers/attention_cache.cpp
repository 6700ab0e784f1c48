// The keys and values that attention keeps in generation.
#include <algorithm>

#include "kernels/rows/elementwise.hpp"
#include "model/mixers/attention.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// Tokens leave a cache in such numbers: attention cuts keys into blocks at their multiples, so its
// sums are those over all keys, to the bit.
constexpr std::int64_t cache_step = 256;

// Rows [distance, end) of a tensor become its rows [0, end - distance).
void move_up(const TensorView& rows, std::int64_t distance, std::int64_t end) {
  for (std::int64_t from = distance; from < end; from += distance) {
    const std::int64_t to = std::min(from + distance, end);
    kernels::copy(rows.slice_rows(from, to), rows.slice_rows(from - distance, to - distance));
  }
}

}  // namespace

AttentionMixer::Cache::Cache(Device& device, const ModelConfig& model,
                             const kernels::KeyPattern& pattern, std::int64_t conv, DType compute,
                             std::int64_t max_length, std::int64_t max_new_tokens)
    : pattern_(pattern) {
  const std::int64_t head_dim = model.effective_head_dim();
  const std::int64_t key_cols = model.num_kv_heads * head_dim;
  if (conv > 1)
    last_rows_ = Tensor(device, Purpose::activation, compute,
                        {conv - 1, (model.num_heads + 2 * model.num_kv_heads) * head_dim});
  const std::int64_t kept = pattern.globals + pattern.window + cache_step + max_new_tokens;
  const std::int64_t rows = pattern.window > 0 ? std::min(max_length, kept) : max_length;
  keys_ = Tensor(device, Purpose::activation, compute, {rows, key_cols});
  values_ = Tensor(device, Purpose::activation, compute, {rows, key_cols});
}

std::vector<PositionRange> AttentionMixer::Cache::positions(std::int64_t num_rows) const {
  if (num_gone_ == 0) return {{0, num_rows}};
  const std::int64_t globals = pattern_.globals;
  return joined({{0, globals}, {globals + num_gone_, num_rows - globals}});
}

void AttentionMixer::Cache::make_room(std::int64_t num_cached, std::int64_t num_tokens) {
  if (num_cached + num_tokens - num_gone_ <= keys_->rows()) return;
  expect(pattern_.window > 0, "no more tokens than the cache has room for");
  const std::int64_t globals = pattern_.globals;
  const std::int64_t unseen = std::max<std::int64_t>(0, num_cached + 1 - pattern_.window - globals);
  const std::int64_t gone = unseen - unseen % cache_step;
  expect(num_cached + num_tokens - gone <= keys_->rows(), "at most max_new_tokens new tokens");
  for (const Tensor* rows : {&keys_, &values_})
    move_up((*rows)->slice_rows(globals, (*rows)->rows()), gone - num_gone_,
            num_cached - num_gone_ - globals);
  num_gone_ = gone;
}

}  // namespace switchyard
