// Small training runs in memory: models of a few thousand parameters whose experts divide by few
// numbers of ranks, several micro-steps, made-up tokens that depend on identity alone.
#pragma once

#include <cmath>
#include <memory>
#include <optional>
#include <vector>

#include "tests/support/tested_device.hpp"
#include "trainer/plan.hpp"
#include "trainer/trainer.hpp"

namespace switchyard::test {

inline constexpr std::int64_t vocab_size = 61;

// Five experts in every layer, grouped queries.
inline Config small_config(std::int64_t expert) {
  Config config;
  config.run.precision = Precision::fp32;
  config.model.vocab_size = 64;
  config.model.hidden = 32;
  config.model.num_layers = 2;
  config.model.num_heads = 4;
  config.model.num_kv_heads = 2;
  config.model.head_dim = 8;
  config.model.sequence_length = 16;
  config.experts = {.num_experts = 5, .top_k = 2, .intermediate = 24};
  config.parallel.expert = expert;
  config.train = {.num_steps = 40, .global_batch = 24, .micro_batch = 2};
  config.optimizer.learning_rate = 3e-3;
  config.optimizer.warmup_steps = 5;
  return config;
}

// What small_config has not: a tied head, dense layers between, three experts (four ranks leave one
// without any) of which each token takes one by its raw probability, dropout everywhere, a
// strong balance loss, clipping in every step, another schedule.
inline Config varied_config(std::int64_t expert) {
  Config config = small_config(expert);
  config.model.num_layers = 3;
  config.model.num_kv_heads = 1;
  config.model.tie_embeddings = true;
  config.model.embedding_std = 0.5;  // the router's choices then lie further apart than rounding
  config.model.dense_intermediate = 40;
  config.model.embedding_dropout = 0.1;
  config.model.residual_dropout = 0.1;
  config.experts.num_experts = 3;
  config.experts.top_k = 1;
  config.experts.normalize_top_k = false;
  config.experts.every = 2;
  config.experts.balance_weight = 0.05;
  config.experts.dropout = 0.1;
  config.optimizer.schedule = Schedule::constant_decay;
  config.optimizer.decay_steps = 15;
  config.optimizer.clip_norm = 0.1;
  return config;
}

// How a test makes the configuration of an expert degree.
using MakeConfig = Config (*)(std::int64_t expert);
inline constexpr MakeConfig all_configs[] = {small_config, varied_config};

// Random tokens of which small ones are more frequent, so that there is something to learn.
class SkewedSource final : public BatchSource {
 public:
  explicit SkewedSource(const BatchLayout& layout) : random_(layout, vocab_size, 99) {}
  void seek(std::int64_t num_steps) { random_.seek(num_steps); }
  Batch next() override {
    Batch batch = random_.next();
    for (std::vector<std::int32_t>* tokens : {&batch.tokens, &batch.targets})
      for (std::int32_t& token : *tokens)
        token = token * token / static_cast<std::int32_t>(vocab_size);
    return batch;
  }

 private:
  RandomSource random_;
};

// Members die in reverse order: the trainer first, the device last.
struct SmallRun {
  SmallRun(Group& world, Config config, std::unique_ptr<Device> on = make_tested_device(),
           std::optional<Placement> placement = {})
      : config_(resolved(config, world.size())),
        device(std::move(on)),
        mesh(world, config_.parallel),
        trainer(*device, mesh, config_, vocab_size, 0, std::move(placement)) {}

  // Steps first ... last (counted from 1).
  std::vector<StepResult> train(std::int64_t first, std::int64_t last) {
    SkewedSource source(trainer.batch_layout());
    source.seek(first - 1);
    std::vector<StepResult> results;
    for (std::int64_t step = first; step <= last; ++step)
      results.push_back(trainer.step(step, source));
    return results;
  }

 private:
  static Config resolved(Config config, int num_ranks) {
    config.parallel = resolved_parallel(config, num_ranks);
    return config;
  }
  Config config_;

 public:
  std::unique_ptr<Device> device;
  Mesh mesh;
  Trainer trainer;
};

// Norm of the difference over the norm of the reference, for one parameter over all ranks.
inline double gradient_error(const Parameter& reference, SmallRun& run, Group& world) {
  double sums[2] = {0, 0};
  const float* expected = reference.gradient().as<float>();
  for (const OwnedRange& range : run.trainer.store().owned_ranges()) {
    if (range.parameter->name() != reference.name()) continue;
    const float* actual = range.bucket->gradients->as<float>() + range.bucket_begin;
    for (std::int64_t i = 0; i < range.numel; ++i) {
      const double wanted = expected[range.global_index(i)];
      sums[0] += (actual[i] - wanted) * (actual[i] - wanted);
      sums[1] += wanted * wanted;
    }
  }
  world.all_reduce_values(sums, ReduceOp::sum);
  return std::sqrt(sums[0] / sums[1]);
}

inline std::vector<std::int64_t> divisors(std::int64_t n) {
  std::vector<std::int64_t> result;
  for (std::int64_t d = 1; d <= n; ++d)
    if (n % d == 0) result.push_back(d);
  return result;
}

}  // namespace switchyard::test
