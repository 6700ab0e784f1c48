// The canary of split sequences: what one rank holds must reach another through attention alone.
// A rank that attended to its own part only would train with a smooth loss and learn nothing here.
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/rows/cross_entropy.hpp"
#include "parallel/context/sequence_split.hpp"
#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {
namespace {

// Single-hop recall. A *pair* token says "key k has value v", a *query* token asks for a key, and
// its target is the value. Everything else of the sequence is filler without a target.
constexpr std::int64_t num_keys = 4;
constexpr std::int64_t num_values = 4;
constexpr std::int64_t first_query = num_keys * num_values;
constexpr std::int64_t first_value = first_query + num_keys;
constexpr std::int64_t filler = first_value + num_values;  // the last word in use
constexpr std::int64_t chunk = 2 * num_keys;  // positions; twice the ranks many in a sequence

Config recall_config() {
  const std::int64_t ranks = world().size();
  Config config = small_config(1);
  config.model.vocab_size = 64;
  config.model.num_layers = 1;
  config.model.sequence_length = 2 * ranks * chunk;
  config.model.dense_intermediate = 48;
  config.model.initial_std = 0.1;
  config.experts.every = 0;
  config.parallel.context = ranks;
  config.parallel.context_split.ring = ranks;
  config.train = {.num_steps = 160, .global_batch = 24, .micro_batch = 24};
  config.optimizer.learning_rate = 1e-2;
  config.optimizer.weight_decay = 0;
  config.optimizer.warmup_steps = 5;
  return config;
}

struct Owners {
  int pairs = 0;
  int queries = 0;
};

// Pairs lie in the early chunk of one rank, queries in the late chunk of another; in the zigzag
// layout rank r has the chunks r and 2 R - 1 - r.
class RecallSource final : public BatchSource {
 public:
  // owners: taken in turn by the sequences. at_borders: documents begin at every chunk.
  RecallSource(const BatchLayout& layout, std::vector<Owners> owners, std::uint64_t seed)
      : layout_(layout), owners_(std::move(owners)), key_(random_key(seed, "recall")) {}

  Batch next() override {
    Batch batch;
    for (std::int64_t row = 0; row < layout_.micro_batch; ++row) add_sequence(next_id_++, batch);
    return batch;
  }

 private:
  void add_sequence(std::int64_t id, Batch& batch) {
    const auto length = static_cast<std::size_t>(layout_.sequence_length);
    std::vector<std::int32_t> tokens(length, static_cast<std::int32_t>(filler));
    std::vector<std::int32_t> targets(length, kernels::no_target);
    const Owners owners = owners_[static_cast<std::size_t>(id) % owners_.size()];
    const std::int64_t last_chunk = layout_.sequence_length / chunk - 1;
    for (std::int64_t k = 0; k < num_keys; ++k) {
      const auto words =
          random_words(key_, static_cast<std::uint64_t>(id), static_cast<std::uint64_t>(k));
      const std::int64_t value = words[0] % num_values;
      const std::int64_t asked_at = (k + words[1]) % num_keys;  // so that positions tell nothing
      const auto pair = static_cast<std::size_t>(owners.pairs * chunk + 2 * k);
      const auto query = static_cast<std::size_t>((last_chunk - owners.queries) * chunk +
                                                  num_keys * (k % 2) + asked_at);
      tokens[pair] = static_cast<std::int32_t>(k * num_values + value);
      tokens[query] = static_cast<std::int32_t>(first_query + k);
      targets[query] = static_cast<std::int32_t>(first_value + value);
    }
    batch.sequence_ids.push_back(id);
    std::vector<std::int32_t>& borders = batch.document_starts.emplace_back();
    for (std::int64_t p = chunk; p < layout_.sequence_length; p += chunk)
      borders.push_back(static_cast<std::int32_t>(p));
    for (const PositionRange& segment : layout_.local_segments())
      for (std::int64_t p = segment.begin; p < segment.begin + segment.count; ++p) {
        const auto at = static_cast<std::size_t>(p);
        batch.tokens.push_back(tokens[at]);
        batch.targets.push_back(targets[at]);
        num_targets_ += targets[at] == kernels::no_target ? 0 : 1;
      }
  }

 public:
  std::int64_t num_targets() const { return num_targets_; }

 private:
  BatchLayout layout_;
  std::vector<Owners> owners_;
  RandomKey key_;
  std::int64_t next_id_ = 0;
  std::int64_t num_targets_ = 0;  // of this rank, so far
};

std::vector<Owners> all_owners() {
  std::vector<Owners> owners;
  for (int pairs = 0; pairs < world().size(); ++pairs)
    for (int queries = 0; queries < world().size(); ++queries)
      if (pairs != queries) owners.push_back({pairs, queries});
  return owners;
}

// Mean loss of a query over one step that is taken with a rate of nearly nothing.
double loss_of_a_query(SmallRun& run, const Owners& owners, std::int64_t step) {
  RecallSource source(run.trainer.batch_layout(), {owners}, 1000);
  const double mean = run.trainer.step(step, source).losses.cross_entropy;
  double num_targets = static_cast<double>(source.num_targets());
  run.mesh.group(Axis::context).all_reduce_values({&num_targets, 1}, ReduceOp::sum);
  const BatchLayout layout = run.trainer.batch_layout();
  return mean * static_cast<double>(layout.global_batch * layout.sequence_length) / num_targets;
}

// Trains on all pairs of owners in turn, then returns the worst and the best loss of one pair.
std::pair<double, double> losses_after_training(Config config) {
  SmallRun run(world(), config);
  RecallSource source(run.trainer.batch_layout(), all_owners(), 7);
  const std::int64_t num_steps = config.train.num_steps;
  for (std::int64_t step = 1; step < num_steps; ++step) run.trainer.step(step, source);
  double worst = 0, best = 1e9;
  for (const Owners& owners : all_owners()) {
    const double loss = loss_of_a_query(run, owners, num_steps);
    worst = std::max(worst, loss);
    best = std::min(best, loss);
  }
  return {worst, best};
}

const double chance = std::log(static_cast<double>(num_values));

TEST(Recall, TheRingLearnsWhatAnotherRankHolds) {
  const auto [worst, best] = losses_after_training(recall_config());
  EXPECT_LT(worst, 0.1 * chance) << "of the pair of owners that is recalled worst";
}

// Two Ulysses ranks share the chunks of a ring rank: the first has all early ones and with them the
// pairs, the second the queries.
TEST(Recall, TheOtherSchemesLearnItToo) {
  for (const auto& [ulysses, method] :
       {std::pair{1, ContextMethod::all_gather}, {2, ContextMethod::ring}}) {
    if (world().size() % ulysses != 0) continue;
    SCOPED_TRACE(std::string(name_of(method)) + " x ulysses " + std::to_string(ulysses));
    Config config = recall_config();
    config.parallel.context_split.ring = world().size() / ulysses;
    config.parallel.context_split.ulysses = ulysses;
    config.parallel.context_split.method = method;
    const auto [worst, best] = losses_after_training(config);
    EXPECT_LT(worst, 0.1 * chance) << "of the pair of owners that is recalled worst";
  }
}

TEST(Recall, AttentionThatStaysLocalScoresChance) {
  Config config = recall_config();
  config.data.document_mask = true;  // at every chunk: no rank's chunk sees another
  const auto [worst, best] = losses_after_training(config);
  EXPECT_GT(best, 0.9 * chance) << "values were recalled without a way to know them";
}

// Every position has a token of its own, so the rows of the embedding's gradient are the gradients
// at the positions' embeddings.
class PositionSource final : public BatchSource {
 public:
  PositionSource(const BatchLayout& layout, std::vector<PositionRange> with_targets)
      : layout_(layout), with_targets_(std::move(with_targets)) {}
  Batch next() override {
    Batch batch;
    for (std::int64_t row = 0; row < layout_.micro_batch; ++row) {
      batch.sequence_ids.push_back(row);
      batch.document_starts.emplace_back();
      for (const PositionRange& segment : layout_.local_segments())
        for (std::int64_t p = segment.begin; p < segment.begin + segment.count; ++p) {
          const bool counts = count_before(with_targets_, p + 1) > count_before(with_targets_, p);
          batch.tokens.push_back(static_cast<std::int32_t>(p));
          batch.targets.push_back(counts ? static_cast<std::int32_t>((3 * p + 1) % 32)
                                         : kernels::no_target);
        }
    }
    return batch;
  }

 private:
  BatchLayout layout_;
  std::vector<PositionRange> with_targets_;
};

// Relative error of the gradient's rows at `positions`, and the norm that they should have.
std::pair<double, double> compare_rows(SmallRun& reference, SmallRun& run,
                                       const std::vector<PositionRange>& positions) {
  const Parameter& expected = reference.trainer.store().parameters().front();
  EXPECT_EQ(expected.name(), "embedding.weight");
  const std::int64_t hidden = expected.spec().global_shape[1];
  double sums[2] = {0, 0};
  for (const OwnedRange& range : run.trainer.store().owned_ranges()) {
    if (range.parameter->name() != expected.name()) continue;
    const float* actual = range.bucket->gradients->as<float>() + range.bucket_begin;
    for (std::int64_t i = 0; i < range.numel; ++i) {
      const std::int64_t row = range.global_index(i) / hidden;
      if (count_before(positions, row + 1) == count_before(positions, row)) continue;
      const double wanted = expected.gradient().as<float>()[range.global_index(i)];
      sums[0] += (actual[i] - wanted) * (actual[i] - wanted);
      sums[1] += wanted * wanted;
    }
  }
  world().all_reduce_values(sums, ReduceOp::sum);
  return {std::sqrt(sums[0] / sums[1]), std::sqrt(sums[1])};
}

TEST(Recall, TheLastRanksLossReachesTheFirstRanksEmbeddings) {
  const int ranks = world().size();
  for (const SequenceLayout layout : {SequenceLayout::zigzag, SequenceLayout::contiguous})
    for (const ContextMethod method : {ContextMethod::ring, ContextMethod::all_gather}) {
      SCOPED_TRACE(std::string(name_of(layout)) + ", " + std::string(name_of(method)));
      Config config = recall_config();
      config.model.vocab_size = 128;
      config.model.num_layers = 2;
      config.parallel.context_split.layout = layout;
      config.parallel.context_split.method = method;
      config.train = {.num_steps = 10, .global_batch = 1, .micro_batch = 1};
      Config one = config;
      one.parallel = {};
      const std::unique_ptr<Group> alone = make_local_group("alone");
      SmallRun reference(*alone, one), run(world(), config);
      const SequenceSplit split = sequence_split_of(config, run.mesh.config());
      PositionSource whole(reference.trainer.batch_layout(), split.segments(ranks - 1));
      PositionSource parts(run.trainer.batch_layout(), split.segments(ranks - 1));
      reference.trainer.step(1, whole);
      run.trainer.step(1, parts);
      const auto [error, norm] = compare_rows(reference, run, split.segments(0));
      EXPECT_LT(error, 1e-5);
      EXPECT_GT(norm, 1e-6);
    }
}

}  // namespace
}  // namespace switchyard::test
