// The validation loss is that of the sequences, each once: the batch, the micro-batch and the
// layout change nothing, also where the sequences do not fill a micro-step or are fewer than the
// ranks. Each process computes for itself what one rank gives that takes one sequence at a time.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/data/scratch_folder.hpp"
#include "tests/end_to_end/evaluation_file.hpp"
#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard::test {
namespace {

// Relative. The loss of a token is an fp32 number, and sums are taken in double. A batch changes
// the order of the sums alone; where sequences are split, attention sums in fp32 in another order.
constexpr double same_tokens = 1e-12;
constexpr double split_sequences = 1e-6;

constexpr std::int64_t length = 24;  // divides among 1 to 4 context ranks in any layout

// A token file of its own for each process, all of them alike.
class EvaluationFile : public ScratchFolder {
 protected:
  std::string write(std::int64_t num_sequences) const {
    return write_evaluation_file(folder_, num_sequences, length);
  }
};

Config evaluation_config(std::int64_t batch, std::int64_t micro_batch) {
  Config config = small_config(1);
  config.model.vocab_size = 260;
  config.model.sequence_length = length;
  config.train.global_batch = batch;
  config.train.micro_batch = micro_batch;
  return config;
}

struct Evaluated {
  EvaluationResult result;
  std::int64_t max_rows = 0;
};

Evaluated evaluate(Group& group, Config config, const TokenFile& tokens) {
  config.parallel = resolved_parallel(config, group.size());
  const std::unique_ptr<Device> device = make_tested_device();
  const Mesh mesh(group, config.parallel);
  Trainer trainer(*device, mesh, config, 257);
  const FixedBatches batches(tokens, Split::valid, trainer.batch_layout(),
                             config.evaluate.num_sequences);
  return {trainer.evaluate(batches), trainer.agree_on_rows()};
}

// The loss of each sequence on its own, from the sums over the first 1, 2, ... sequences.
double mean_of_single_sequences(Group& alone, const TokenFile& tokens, std::int64_t count) {
  double sum = 0;
  double before = 0;
  for (std::int64_t n = 1; n <= count; ++n) {
    Config config = evaluation_config(1, 1);
    config.evaluate.num_sequences = n;
    const EvaluationResult result = evaluate(alone, config, tokens).result;
    EXPECT_EQ(result.num_tokens, n * length);
    const double total = result.loss * static_cast<double>(n);
    sum += total - before;
    before = total;
  }
  return sum / static_cast<double>(count);
}

TEST_F(EvaluationFile, TheLossIsThatOfTheSequencesOnEveryLayoutAndBatch) {
  const std::unique_ptr<Group> alone = make_local_group("alone");
  const std::int64_t num_ranks = world().size();
  for (const std::int64_t count : {1, 3, 5}) {
    const TokenFile tokens(write(count));
    const double expected = mean_of_single_sequences(*alone, tokens, count);
    for (const std::int64_t context : divisors(num_ranks))
      for (const std::int64_t expert : divisors(num_ranks))
        for (std::int64_t batch = 1; batch <= 5; ++batch) {
          const std::int64_t data = num_ranks / context;
          Config config = evaluation_config(batch * data, batch % 2 == 0 ? batch / 2 : 0);
          config.parallel.context = context;
          config.parallel.expert = expert;
          const EvaluationResult actual = evaluate(world(), config, tokens).result;
          EXPECT_EQ(actual.num_tokens, count * length);
          EXPECT_NEAR(actual.loss, expected,
                      (context == 1 ? same_tokens : split_sequences) * expected)
              << count << " sequences, data " << data << ", context " << context << ", expert "
              << expert << ", batch " << config.train.global_batch;
        }
  }
}

TEST_F(EvaluationFile, TheFirstSequencesAreTakenWhereFewerAreAskedFor) {
  const TokenFile tokens(write(5));
  const TokenFile fewer(write(3));
  Config config = evaluation_config(2 * world().size(), 0);
  const double of_three = evaluate(world(), config, fewer).result.loss;
  config.evaluate.num_sequences = 3;
  EXPECT_NEAR(evaluate(world(), config, tokens).result.loss, of_three, same_tokens * of_three);
  config.evaluate.num_sequences = 1000;
  EXPECT_EQ(evaluate(world(), config, tokens).result.num_tokens, 5 * length);
}

// Padding reaches no expert: a rank receives no more rows than one sequence has choices.
TEST_F(EvaluationFile, PaddingMakesNoRows) {
  const TokenFile tokens(write(1));
  for (const std::int64_t expert : divisors(world().size())) {
    Config config = evaluation_config(6 * world().size(), 0);
    config.parallel.expert = expert;
    const std::int64_t rows = evaluate(world(), config, tokens).max_rows;
    EXPECT_GE(rows, 1);
    EXPECT_LE(rows, length * config.experts.top_k);
  }
}

// A training step after an evaluation that had padding is the one that would have come without.
TEST_F(EvaluationFile, TrainingGoesOnAsIfNothingHadBeenEvaluated) {
  const TokenFile tokens(write(1));
  Config config = evaluation_config(2 * world().size(), 0);
  SmallRun plain(world(), config);
  SmallRun evaluated(world(), config);
  const FixedBatches batches(tokens, Split::valid, evaluated.trainer.batch_layout());
  plain.train(1, 1);
  evaluated.train(1, 1);
  evaluated.trainer.evaluate(batches);
  const StepResult expected = plain.train(2, 2).front();
  const StepResult actual = evaluated.train(2, 2).front();
  EXPECT_EQ(actual.loss, expected.loss);
  EXPECT_EQ(actual.gradient_norm, expected.gradient_norm);
  EXPECT_EQ(actual.load.max_over_mean, expected.load.max_over_mean);
}

}  // namespace
}  // namespace switchyard::test
