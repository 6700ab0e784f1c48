#include "tests/experts/layer_problem.hpp"

#include <fmt/core.h>

#include <array>
#include <cmath>
#include <numeric>

#include "experts/router/given_load.hpp"
#include "kernels/routing/select.hpp"
#include "kernels/rows/elementwise.hpp"
#include "tests/experts/numbers.hpp"
#include "tests/support/reference_routing.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {

namespace {

// The mask of all tokens in one piece, as one rank would draw it.
Doubles whole_mask(const LayerCase& c) {
  const std::unique_ptr<Device> device = make_tested_device();
  Tensor ones(*device, Purpose::workspace, DType::f32, {c.num_tokens * c.top_k, c.hidden});
  Tensor ids(*device, Purpose::workspace, DType::i64, {c.num_sequences});
  std::ranges::fill(ones->span<float>(), 1.0f);
  std::iota(ids->as<std::int64_t>(), ids->as<std::int64_t>() + c.num_sequences, 0);
  const Tensor positions(*device, Purpose::workspace, DType::i32, {c.num_tokens});
  write_positions(positions, c.sequence_length);
  kernels::dropout(ones, static_cast<float>(c.dropout),
                   {.key = dropout_key(),
                    .step = c.step,
                    .sequence_length = c.sequence_length,
                    .positions = positions,
                    .copies = static_cast<int>(c.top_k)},
                   ids);
  return to_doubles(ones);
}

// Whether choice j of the t-th token of the whole problem is dropped: of every fifth token all are.
bool is_dropped(std::int64_t t, std::int64_t j) {
  return t % 5 == 2 || (t * 7 + j) % 3 == 0;
}

// A part of a router that the program does not have: top-k of which some choices are dropped, by
// the identity of the token.
class DroppingSelect final : public Select {
 public:
  void choose(const RoutedTokens& tokens, const TensorView& scores,
              const TensorView& indices) const override {
    kernels::select_top_k(scores, indices);
    if (scores.device->is_plan()) return;
    const Pass& pass = tokens.pass;
    for (std::int64_t t = 0; t < scores.rows(); ++t)
      for (std::int64_t j = 0; j < indices.cols(); ++j)
        if (is_dropped(pass.sequence_ids.as<std::int64_t>()[t / pass.sequence_length] *
                               pass.sequence_length +
                           pass.positions.as<std::int32_t>()[t],
                       j))
          indices.row<std::int32_t>(t)[j] = -1;
  }
};

RouterKeys keys() {
  return router_keys(99, "layers.0");
}

Doubles router_weight(const LayerCase& c) {
  Doubles router =
      random_doubles("router", static_cast<std::size_t>(c.num_experts * c.hidden), 0.5);
  const std::size_t last = static_cast<std::size_t>((c.num_experts - 1) * c.hidden);
  if (c.routing == Routing::all_to_last_expert) router[last] += 8;
  if (c.routing == Routing::none_to_first_expert) router[0] -= 8;
  round_to(DType::f32, router);
  return router;
}

std::array<std::uint32_t, 4> random_words_of(RandomKey key, std::size_t t, std::size_t group) {
  const auto length = static_cast<std::size_t>(LayerCase::sequence_length);
  return random_words(key,
                      {LayerCase::step, static_cast<std::uint32_t>(t / length),
                       static_cast<std::uint32_t>(t % length), static_cast<std::uint32_t>(group)});
}

void set_noise(ReferenceMoe& moe, const LayerCase& c, std::size_t num_tokens) {
  if (c.router.kind == RouterKind::noisy_top_k) {
    moe.noise_router = random_doubles("noise router", moe.router.size(), 0.3);
    round_to(DType::f32, moe.noise_router);
    for (std::size_t t = 0; t < num_tokens; ++t)
      for (std::size_t e = 0; e < moe.num_experts; ++e)
        moe.noise.push_back(normals(random_words_of(keys().noise, t, e / 4))[e % 4]);
  }
  for (std::size_t i = 0; c.router.jitter > 0 && i < num_tokens * moe.hidden; ++i) {
    const std::size_t h = i % moe.hidden;
    const float u = uniform(random_words_of(keys().jitter, i / moe.hidden, h / 4)[h % 4]);
    moe.jitter.push_back(1 - c.router.jitter + 2 * c.router.jitter * u);
  }
}

// The choices of the t-th token, or of the sequence that it begins.
Choices choices_at(const LayerCase& c, const ReferenceMoe& moe, const ReferenceMoe::Forward& free,
                   std::size_t t) {
  const std::size_t experts = moe.num_experts, length = moe.sequence_length;
  const auto rows = [&](const Doubles& values, std::size_t num_rows) {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(t * experts);
    return Doubles(begin, begin + static_cast<std::ptrdiff_t>(num_rows * experts));
  };
  const double capacity = c.router.capacity > 0 ? c.router.capacity : static_cast<double>(c.top_k);
  const auto tokens_of_expert = static_cast<std::size_t>(std::clamp<std::int64_t>(
      std::llround(capacity * static_cast<double>(length) / static_cast<double>(experts)), 1,
      c.sequence_length));
  Choices plan;
  switch (c.router.kind) {
    case RouterKind::sinkhorn: {
      const Doubles balanced = reference_plan(rows(free.logits, length), experts);
      for (std::size_t row = 0; row < length; ++row)
        for (const std::int64_t e :
             largest_of({balanced.begin() + static_cast<std::ptrdiff_t>(row * experts),
                         balanced.begin() + static_cast<std::ptrdiff_t>((row + 1) * experts)},
                        moe.top_k))
          plan.push_back(e);
      return plan;
    }
    case RouterKind::base:
      return reference_assignment(rows(free.logits, length), experts, moe.top_k);
    case RouterKind::expert_choice:
      return reference_expert_choice(rows(free.scores, length), experts, tokens_of_expert,
                                     moe.top_k);
    case RouterKind::hash:
      return reference_hash(token_id(static_cast<std::int64_t>(t)), keys().choice, experts,
                            moe.top_k);
    case RouterKind::balanced:
      for (std::size_t j = 0; j < moe.top_k; ++j)
        plan.push_back(static_cast<std::int64_t>((t * moe.top_k + j) % experts));
      return plan;
    case RouterKind::imbalanced:
      return reference_load(t, given_load(c.num_experts, c.top_k, c.router.imbalance), moe.top_k);
    case RouterKind::top_k:
    case RouterKind::noisy_top_k:
    case RouterKind::gshard:
      break;
  }
  return choose_in_groups(
      rows(free.scores, 1), {},
      {static_cast<std::size_t>(c.router.groups), static_cast<std::size_t>(c.router.top_groups),
       c.router.group_score == kernels::GroupScore::best_two},
      moe.top_k);
}

// What is over an expert's capacity in a sequence, by each choice's rank among those of its expert.
void set_dropped(ReferenceMoe& moe, const LayerCase& c, const Doubles& x) {
  const ReferenceMoe::Forward free = moe.forward(x);
  const std::size_t k = moe.top_k, experts = moe.num_experts;
  const auto length = static_cast<std::size_t>(c.sequence_length);
  const double even = static_cast<double>(length * k) / static_cast<double>(experts);
  const auto room = static_cast<std::size_t>(std::max(1.0, std::ceil(c.capacity_factor * even)));
  moe.dropped_are_in_sums = moe.dropped_are_counted = true;
  moe.dropped.clear();
  for (std::size_t slot = 0; slot < free.indices.size(); ++slot) {
    const std::size_t first = slot / k / length * length * k, e = free.indices[slot];
    const auto goes_before = [&](std::size_t other) {
      const double mine = free.probs[slot / k * experts + e];
      const double its = free.probs[other / k * experts + e];
      if (c.drop_by == kernels::DropBy::score && its != mine) return its > mine;
      return other < slot;
    };
    std::size_t num_before = 0;
    for (std::size_t other = first; other < first + length * k; ++other)
      num_before += free.indices[other] == e && goes_before(other);
    moe.dropped.push_back(num_before >= room);
  }
}

void set_router(ReferenceMoe& moe, const LayerCase& c, const Doubles& x) {
  const ExpertsConfig config = c.config();
  const std::size_t num_tokens = x.size() / moe.hidden;
  moe.sigmoid = c.router.score == RouterScore::sigmoid;
  moe.scale = c.router.scale;
  moe.normalize = config.weights_are_shares();
  set_noise(moe, c, num_tokens);
  if (!c.router.has_weights()) {
    std::ranges::fill(moe.router, 0.0);
    moe.balance_weight = moe.z_weight = 0;
  }
  const ReferenceMoe::Forward free = moe.forward(x);
  if (c.router.kind == RouterKind::gshard) {
    moe.dropped_are_in_sums = true;
    for (std::size_t t = 0; t < num_tokens; ++t) {
      moe.dropped.push_back(false);
      const float u = uniform(random_words_of(keys().choice, t, 0)[0]);
      moe.dropped.push_back(!(2 * free.weights[2 * t + 1] > static_cast<double>(u)));
    }
  } else if (c.router.kind != RouterKind::noisy_top_k &&
             (c.router.kind != RouterKind::top_k || c.router.groups > 1)) {
    const std::size_t step = c.router.sees_future() ? moe.sequence_length : 1;
    for (std::size_t t = 0; t < num_tokens; t += step)
      for (const std::int64_t e : choices_at(c, moe, free, t)) moe.given.push_back(e);
  }
}

}  // namespace

RandomKey dropout_key() {
  return random_key(99, "dropout layers.0.experts");
}

void write_positions(const TensorView& positions, std::int64_t length) {
  for (std::int64_t t = 0; t < positions.numel(); ++t)
    positions.as<std::int32_t>()[t] = static_cast<std::int32_t>(t % length);
}

std::int32_t token_id(std::int64_t t) {
  return static_cast<std::int32_t>(t * 7919 % 50);
}

RouterParts parts_of(const LayerCase& c) {
  RouterParts parts = make_router_parts(c.config(), keys());
  if (c.drops) parts.select = std::make_unique<DroppingSelect>();
  return parts;
}

std::string LayerCase::describe() const {
  return fmt::format(
      "{} experts, top {}, normalize {}, routing {}, {}, dropout {}, drops {}, {} shared of {}, "
      "latent {}, "
      "gate {}, balance over {}, {} of layers, router {} of {} scores, capacity {} by {}, loss of "
      "{}",
      num_experts, top_k, normalize, static_cast<int>(routing), name_of(dtype), dropout, drops,
      shared.number, shared.intermediate, latent, name_of(shared.gate), name_of(scope),
      name_of(reduction), name_of(router.kind), name_of(router.score), capacity_factor,
      name_of(drop_by), name_of(loss));
}

ExpertsConfig LayerCase::config() const {
  ExpertsConfig config;
  config.num_experts = num_experts;
  config.top_k = top_k;
  config.intermediate = intermediate;
  config.normalize_top_k = normalize;
  config.balance_weight = 0.8;
  config.z_weight = 0.3;
  config.dropout = dropout;
  config.shared = shared;
  config.balance_scope = scope;
  config.balance_reduction = reduction;
  config.router = router;
  config.latent = latent;
  config.capacity_factor = capacity_factor;
  config.drop_by = drop_by;
  config.balance_loss = loss;
  return config;
}

Problem::Problem(const LayerCase& c, const std::string& inputs) {
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  moe.num_experts = size(c.num_experts);
  moe.top_k = size(c.top_k);
  moe.hidden = size(c.hidden);
  moe.intermediate = size(c.intermediate);
  moe.sequence_length = size(c.scope == BalanceScope::sequence ? c.sequence_length : c.num_tokens);
  moe.normalize = c.normalize;
  const ExpertsConfig config = c.config();
  moe.importance = has_importance(config.balance_loss);
  moe.load = has_load(config.balance_loss);
  moe.balance_weight = config.balance_weight;
  moe.z_weight = config.z_weight;
  if (config.balance_reduction == BalanceReduction::mean)
    for (double* weight : {&moe.balance_weight, &moe.z_weight})
      *weight /= static_cast<double>(c.num_layers);
  moe.router = router_weight(c);
  moe.gate_up = random_doubles("gate_up", size(c.num_experts * 2 * c.intermediate * c.hidden), 0.5);
  moe.down = random_doubles("down", size(c.num_experts * c.hidden * c.intermediate), 0.5);
  const std::int64_t shared_width = c.config().shared_width();
  moe.shared.intermediate = size(shared_width);
  moe.shared.gate_up = random_doubles("shared gate_up", size(2 * shared_width * c.hidden), 0.5);
  moe.shared.down = random_doubles("shared down", size(c.hidden * shared_width), 0.5);
  if (c.shared.gate == SharedGate::sigmoid)
    moe.shared.gate = random_doubles("shared gate", size(c.hidden), 0.5);
  round_to(DType::f32, moe.shared.gate);
  if (c.dropout > 0) moe.mask = whole_mask(c);
  for (std::int64_t slot = 0; c.drops && slot < c.num_tokens * c.top_k; ++slot)
    moe.dropped.push_back(is_dropped(slot / c.top_k, slot % c.top_k));
  x = random_doubles(inputs + " x", size(c.num_tokens * c.hidden), 1.0);
  dy = random_doubles(inputs + " dy", size(c.num_tokens * c.hidden), c.dy_scale);
  for (std::size_t t = 0; t < size(c.num_tokens); ++t) x[t * moe.hidden] = 1;
  for (Doubles* values : {&moe.gate_up, &moe.down, &moe.shared.gate_up, &moe.shared.down, &x, &dy})
    round_to(c.dtype, *values);
  if (c.latent > 0) fold(c);
  set_router(moe, c, x);
  if (c.capacity_factor > 0) set_dropped(moe, c, x);
  solve();
}

namespace {

// out [rows, cols] += a [rows, inner] b [inner, cols]; or with a or b transposed.
struct Matrix {
  const double* values;
  std::size_t row_step, col_step;
  double operator()(std::size_t row, std::size_t col) const {
    return values[row * row_step + col * col_step];
  }
};

void add_product(const Matrix& a, const Matrix& b, std::size_t rows, std::size_t inner,
                 std::size_t cols, double* out) {
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t i = 0; i < inner; ++i)
      for (std::size_t c = 0; c < cols; ++c) out[r * cols + c] += a(r, i) * b(i, c);
}

}  // namespace

void Problem::fold(const LayerCase& c) {
  const auto width = static_cast<std::size_t>(c.latent);
  const std::size_t h = moe.hidden, i = moe.intermediate, e = moe.num_experts;
  latent.down = random_doubles("latent down", width * h, 0.5);
  latent.up = random_doubles("latent up", h * width, 0.5);
  latent.gate_up = random_doubles("latent gate_up", e * 2 * i * width, 0.5);
  latent.expert_down = random_doubles("latent expert down", e * width * i, 0.5);
  for (Doubles* values : {&latent.down, &latent.up, &latent.gate_up, &latent.expert_down})
    round_to(c.dtype, *values);
  std::ranges::fill(moe.gate_up, 0.0);
  std::ranges::fill(moe.down, 0.0);
  for (std::size_t k = 0; k < e; ++k) {
    add_product({&latent.gate_up[k * 2 * i * width], width, 1}, {latent.down.data(), h, 1}, 2 * i,
                width, h, &moe.gate_up[k * 2 * i * h]);
    add_product({latent.up.data(), width, 1}, {&latent.expert_down[k * width * i], i, 1}, h, width,
                i, &moe.down[k * h * i]);
  }
}

// The chain rule through the folded weights.
void Problem::unfold() {
  const std::size_t h = moe.hidden, i = moe.intermediate, width = latent.down.size() / h;
  latent.d_down.assign(latent.down.size(), 0);
  latent.d_up.assign(latent.up.size(), 0);
  latent.d_gate_up.assign(latent.gate_up.size(), 0);
  latent.d_expert_down.assign(latent.expert_down.size(), 0);
  for (std::size_t k = 0; k < moe.num_experts; ++k) {
    const double* d_gate_up = &gradients.gate_up[k * 2 * i * h];
    const double* d_down = &gradients.down[k * h * i];
    const double* gate_up = &latent.gate_up[k * 2 * i * width];
    const double* expert_down = &latent.expert_down[k * width * i];
    add_product({gate_up, 1, width}, {d_gate_up, h, 1}, width, 2 * i, h, latent.d_down.data());
    add_product({d_gate_up, h, 1}, {latent.down.data(), 1, h}, 2 * i, h, width,
                &latent.d_gate_up[k * 2 * i * width]);
    add_product({d_down, i, 1}, {expert_down, 1, i}, h, i, width, latent.d_up.data());
    add_product({latent.up.data(), 1, width}, {d_down, i, 1}, width, h, i,
                &latent.d_expert_down[k * width * i]);
  }
}

void Problem::solve() {
  forward = moe.forward(x);
  gradients = moe.backward(x, dy, forward);
  if (!latent.down.empty()) unfold();
}

}  // namespace switchyard::test
