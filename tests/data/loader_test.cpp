#include "data/loader.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "data/hdf5/hdf5.hpp"
#include "scratch_folder.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

TEST(EpochPermutationTest, IsAPermutationForEverySmallSize) {
  for (std::int64_t size = 1; size <= 2000; ++size) {
    const EpochPermutation order(size, 42);
    std::vector<bool> seen(static_cast<std::size_t>(size));
    for (std::int64_t position = 0; position < size; ++position) {
      const std::int64_t value = order(size % 3, position);
      ASSERT_TRUE(value >= 0 && value < size);
      ASSERT_FALSE(seen[static_cast<std::size_t>(value)]) << size;
      seen[static_cast<std::size_t>(value)] = true;
    }
  }
}

TEST(EpochPermutationTest, LargeSizesDoNotRepeat) {
  for (std::int64_t size : {std::int64_t{1'000'003}, (std::int64_t{1} << 32) + 1,
                            std::int64_t{987'654'321'987}, std::int64_t{1} << 62}) {
    const EpochPermutation order(size, 1);
    std::set<std::int64_t> values;
    for (std::int64_t i = 0; i < 5000; ++i) {
      const std::int64_t value = order(7, i * (size / 5000));
      ASSERT_TRUE(value >= 0 && value < size);
      values.insert(value);
    }
    EXPECT_EQ(values.size(), 5000u);
  }
}

TEST(EpochPermutationTest, DependsOnSeedAndEpochAndSpreadsEvenly) {
  const EpochPermutation one(10000, 1), two(10000, 2);
  int num_fixed = 0, num_same_epoch = 0, num_same_seed = 0, num_neighbours = 0;
  double low_half = 0;
  for (std::int64_t i = 0; i < 10000; ++i) {
    num_fixed += one(0, i) == i;
    num_same_epoch += one(0, i) == one(1, i);
    num_same_seed += one(0, i) == two(0, i);
    num_neighbours += i > 0 && std::abs(one(0, i) - one(0, i - 1)) == 1;
    low_half += i < 5000 && one(0, i) < 5000;
  }
  // Each of the first three is about Poisson with mean 1, the fourth with mean 2.
  EXPECT_LT(num_fixed, 9);
  EXPECT_LT(num_same_epoch, 9);
  EXPECT_LT(num_same_seed, 9);
  EXPECT_LT(num_neighbours, 12);
  EXPECT_NEAR(low_half, 2500, 150);  // 6 standard deviations of 25
}

class LoaderTest : public ScratchFolder {
 protected:
  // One long document whose tokens say where they are.
  LoaderTest() {
    const auto tokenizer = make_byte_tokenizer();
    TokenFileWriter writer(folder_, *tokenizer);
    writer.add_document(Split::train, tokens_from(0, 3000));
    writer.add_document(Split::valid, tokens_from(0, 300));
    writer.write(path("t.h5"), "[]");
  }
  static std::vector<std::int32_t> tokens_from(std::int64_t begin, std::int64_t count) {
    std::vector<std::int32_t> tokens;
    for (std::int64_t i = begin; i < begin + count; ++i)
      tokens.push_back(static_cast<std::int32_t>((i * i + i / 256) % 256));
    return tokens;
  }
  BatchLayout layout(std::int64_t global, std::int64_t micro, int rank, int size) const {
    return {.sequence_length = 16,
            .global_batch = global,
            .micro_batch = micro,
            .data_rank = rank,
            .data_size = size};
  }
};

void expect_same(const Batch& a, const Batch& b) {
  EXPECT_EQ(a.sequence_ids, b.sequence_ids);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.targets, b.targets);
}

TEST_F(LoaderTest, SequencesArePackedAndTargetsAreOneFurther) {
  const TokenFile file(path("t.h5"));
  const PackedSequences sequences(file, Split::train, 16);
  EXPECT_EQ(sequences.num_sequences(), 3000 / 16);  // 3001 tokens
  std::vector<std::int32_t> tokens(16), targets(16);
  for (std::int64_t i = 0; i < sequences.num_sequences() - 1; ++i) {
    sequences.read(i, 0, tokens, targets);
    EXPECT_EQ(tokens, tokens_from(16 * i, 16));
    EXPECT_EQ(targets, tokens_from(16 * i + 1, 16));
  }
  EXPECT_TRUE(contains(message_of<DataError>([&] { PackedSequences(file, Split::valid, 400); }),
                       "the valid split has 301 tokens, fewer than the 401"));
}

TEST_F(LoaderTest, TheGlobalBatchIsTheSameOnEveryLayout) {
  constexpr std::int64_t global = 24, num_steps = 20;  // 480 samples: past two epochs of 187
  const TokenFile file(path("t.h5"));
  const PackedSequences sequences(file, Split::train, 16);
  const EpochPermutation order(sequences.num_sequences(), 5);
  for (int size : {1, 2, 3, 4}) {
    for (std::int64_t micro : {1, 2, 3, 6}) {
      if (global % (micro * size) != 0) continue;
      std::map<std::int64_t, std::vector<std::int32_t>> rows;
      for (int rank = 0; rank < size; ++rank) {
        Loader loader(path("t.h5"), Split::train, layout(global, micro, rank, size), 5);
        for (std::int64_t step = 0; step < num_steps; ++step) {
          for (std::int64_t a = 0; a < global / (micro * size); ++a) {
            EXPECT_EQ(loader.step(), step);
            const Batch batch = loader.next();
            for (std::int64_t j = 0; j < micro; ++j) {
              const std::int64_t g = step * global + a * micro * size + rank * micro + j;
              ASSERT_EQ(batch.sequence_ids[static_cast<std::size_t>(j)], g);
              const auto row = batch.tokens.begin() + j * 16;
              EXPECT_TRUE(rows.emplace(g, std::vector(row, row + 16)).second);
            }
          }
        }
      }
      ASSERT_EQ(rows.size(), static_cast<std::size_t>(num_steps * global));
      std::vector<std::int32_t> tokens(16), targets(16);
      for (const auto& [g, row] : rows) {
        sequences.read(order(g / 187, g % 187), 0, tokens, targets);
        ASSERT_EQ(row, tokens) << "sample " << g << ", " << size << " ranks of " << micro;
      }
    }
  }
}

// Two corpora whose tokens tell them apart: 1 to 4 ranks and a seek give the same samples, each
// corpus goes through its epochs, and the shares are those asked for, within five standard
// deviations of drawing without putting back, which are none at the end of a block.
TEST_F(LoaderTest, AMixtureIsTheSameOnEveryLayout) {
  const auto tokenizer = make_byte_tokenizer();
  for (const auto& [name, token] : {std::pair("a.h5", 1), std::pair("b.h5", 2)}) {
    TokenFileWriter writer(folder_, *tokenizer);
    for (int i = 0; i < 40; ++i)
      writer.add_document(Split::train, std::vector<std::int32_t>(15, token * 100 + i));
    writer.write(path(name), "[]");
  }
  const auto mixture = parse_mixture(path("a.h5") + " 3, " + path("b.h5") + " 1");
  constexpr std::int64_t global = 12, num_steps = 40;
  std::map<std::int64_t, std::vector<std::int32_t>> wanted;
  for (int size : {1, 2, 3, 4}) {
    std::map<std::int64_t, std::vector<std::int32_t>> rows;
    for (int rank = 0; rank < size; ++rank) {
      Loader loader(path("t.h5"), Split::train, layout(global, 1, rank, size), 5, mixture);
      EXPECT_EQ(loader.file().path(), path("t.h5"));
      EXPECT_EQ(loader.num_sequences(), 2 * 39);
      for (std::int64_t i = 0; i < num_steps * global / size; ++i) {
        const Batch batch = loader.next();
        rows[batch.sequence_ids[0]] = batch.tokens;
      }
      loader.seek(7, 7 * global);
      const Batch again = loader.next();
      EXPECT_EQ(again.tokens, rows[again.sequence_ids[0]]);
    }
    if (size == 1) wanted = rows;
    EXPECT_EQ(rows, wanted);
  }
  std::map<std::vector<std::int32_t>, int> times;
  double first_corpus = 0;
  for (const auto& [sample, row] : wanted) {
    ++times[row];
    first_corpus += row[0] < 200 && row[0] != 256 ? 1 : 0;
  }
  const double num_samples = num_steps * global;
  EXPECT_NEAR(first_corpus, 0.75 * num_samples, 5 * std::sqrt(num_samples * 0.75 * 0.25));
  EXPECT_EQ(times.size(), 78u);
  for (const auto& [row, count] : times) {
    const double epochs = num_samples * (row[0] < 200 ? 0.75 : 0.25) / 39;
    EXPECT_NEAR(count, epochs, 1.5) << row[0];
  }
}

// A mask of every third token, on 1 to 4 ranks, in training and in an evaluation with padding.
TEST_F(LoaderTest, WeightsFollowTheLossMask) {
  const auto tokenizer = make_byte_tokenizer();
  TokenFileWriter writer(folder_, *tokenizer);
  std::vector<std::uint8_t> mask;
  for (int i = 0; i < 700; ++i) mask.push_back(i % 3 == 0 ? 0 : 1);
  for (const Split split : {Split::train, Split::valid})
    writer.add_document(split, tokens_from(0, 700), mask);
  writer.write(path("m.h5"), "[]");
  mask.push_back(1);  // the end
  const TokenFile file(path("m.h5"));
  const auto layout_of = [&](int rank, int size) {
    BatchLayout masked = layout(12, 1, rank, size);
    masked.with_weights = true;
    masked.segments = {{1, 5}, {9, 7}};
    return masked;
  };
  const auto expect_weights = [&](const Batch& batch, std::int64_t sequence) {
    std::vector<float> wanted;
    for (const int position : {1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15})
      wanted.push_back(mask[static_cast<std::size_t>(16 * sequence + position + 1)]);
    EXPECT_EQ(batch.weights, wanted);
  };
  const PackedSequences sequences(file, Split::train, 16);
  const EpochPermutation order(sequences.num_sequences(), 5);
  for (int size : {1, 2, 3, 4}) {
    for (int rank = 0; rank < size; ++rank) {
      Loader loader(path("m.h5"), Split::train, layout_of(rank, size), 5);
      for (std::int64_t i = 0; i < 3 * 12 / size; ++i) {
        const Batch batch = loader.next();
        const std::int64_t g = batch.sequence_ids[0];
        expect_weights(batch, order(0, g));
        double targets = 0;
        for (std::int64_t sample = g / 12 * 12; sample < g / 12 * 12 + 12; ++sample)
          for (std::int64_t k = 1; k <= 16; ++k)
            targets += mask[static_cast<std::size_t>(16 * order(0, sample) + k)];
        EXPECT_EQ(batch.num_targets, targets);
      }
      const FixedBatches batches(file, Split::valid, layout_of(rank, size));
      EXPECT_EQ(batches.num_targets(), std::count(mask.begin() + 1, mask.begin() + 16 * 43 + 1, 1));
      for (std::int64_t i = 0; i < batches.num_micro_steps(); ++i) {
        const Batch batch = batches.batch(i);
        if (batch.num_padding == 0) expect_weights(batch, batch.sequence_ids[0]);
        EXPECT_EQ(batch.num_targets, batches.num_targets());
      }
    }
  }
}

TEST_F(LoaderTest, SharesOfAMixtureAreExactAfterABlock) {
  const auto entries = parse_mixture("a 1, b 2.5, c 0.00001");
  const std::vector<std::int64_t> sizes{10, 20, 30};
  const Mixture mixture(entries, sizes, 3);
  std::vector<std::set<std::int64_t>> samples(3);
  for (std::int64_t g = 0; g < 2 * Mixture::block; ++g) {
    const Mixture::Place place = mixture(g);
    EXPECT_TRUE(samples[place.corpus].insert(place.sample).second);
  }
  for (std::size_t corpus = 0; corpus < 3; ++corpus) {
    EXPECT_EQ(static_cast<double>(samples[corpus].size()),
              mixture.share(corpus) * 2 * Mixture::block);
    EXPECT_EQ(*samples[corpus].rbegin(), std::ssize(samples[corpus]) - 1);
  }
  EXPECT_NEAR(mixture.share(0), 1 / 3.50001, 1e-4);
  EXPECT_EQ(samples[2].size(), 2u);  // one place of a block at least
  const Mixture epochs(parse_mixture("a 1 epoch, b 3 epochs, c 2 epochs"), sizes, 3);
  EXPECT_NEAR(epochs.share(1), 60.0 / 130, 1e-4);
}

TEST(MixtureTest, MistakesAreTold) {
  EXPECT_TRUE(parse_mixture("none").empty());
  EXPECT_EQ(parse_mixture(" my file.h5  0.5 , b.h5 2"),
            (std::vector<MixtureEntry>{{"my file.h5", 0.5, false}, {"b.h5", 2, false}}));
  for (const char* wrong : {"a.h5", "a.h5 0", "a.h5 -1", "a.h5 nan", "a.h5 x", "a.h5 1,", ",",
                            "epochs", "a.h5 1, a.h5 2", "a.h5 1 epoch, b.h5 2"})
    EXPECT_THROW(parse_mixture(wrong), ConfigError) << wrong;
}

// The parts of a sequence that ranks hold, put together, are the whole: inputs, and targets that
// were shifted before the cut.
TEST_F(LoaderTest, SegmentsAreCutFromTheWholeSequence) {
  const std::vector<std::vector<PositionRange>> ranks = {
      {{0, 3}, {13, 3}}, {{3, 3}, {11, 2}}, {{6, 5}}, {{16, 0}}};
  Loader whole(path("t.h5"), Split::train, layout(4, 2, 1, 2), 5);
  std::vector<std::unique_ptr<Loader>> parts;
  for (const auto& segments : ranks) {
    BatchLayout part = layout(4, 2, 1, 2);
    part.segments = segments;
    parts.push_back(std::make_unique<Loader>(path("t.h5"), Split::train, part, 5));
  }
  for (int i = 0; i < 9; ++i) {
    const Batch expected = whole.next();
    Batch joined = expected;
    std::fill(joined.tokens.begin(), joined.tokens.end(), -1);
    std::fill(joined.targets.begin(), joined.targets.end(), -1);
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      const Batch batch = parts[rank]->next();
      EXPECT_EQ(batch.sequence_ids, expected.sequence_ids);
      EXPECT_TRUE(batch.document_starts.empty());
      std::size_t next = 0;
      for (std::int64_t row = 0; row < 2; ++row)
        for (const PositionRange& segment : ranks[rank])
          for (std::int64_t k = 0; k < segment.count; ++k, ++next) {
            const auto at = static_cast<std::size_t>(row * 16 + segment.begin + k);
            joined.tokens[at] = batch.tokens.at(next);
            joined.targets[at] = batch.targets.at(next);
          }
      EXPECT_EQ(next, batch.tokens.size());
    }
    expect_same(joined, expected);
  }
}

TEST_F(LoaderTest, OnlyTheTokensOfTheRanksOwnSegmentsAreRead) {
  // Two sequences of 1 MiB blocks, the last of which is damaged.
  const auto tokenizer = make_byte_tokenizer();
  TokenFileWriter writer(folder_, *tokenizer);
  constexpr std::int64_t length = std::int64_t{1} << 20;  // two blocks of 16-bit tokens
  writer.add_document(Split::train, std::vector<std::int32_t>(length, 7));
  writer.write(path("long.h5"), "[]");
  std::int64_t offset = 0;
  {
    const hdf5::File file = hdf5::File::open(path("long.h5"));
    offset = *file.open_dataset("train/tokens").file_offset();
  }
  flip_bit("long.h5", static_cast<std::size_t>(offset + 2 * length - 2), 1);
  const auto read = [&](PositionRange segment) {
    BatchLayout part = layout(1, 1, 0, 1);
    part.sequence_length = length;
    part.segments = {segment};
    return Loader(path("long.h5"), Split::train, part, 5).next();
  };
  EXPECT_EQ(read({0, length / 2 - 1}).tokens.size(), static_cast<std::size_t>(length / 2 - 1));
  EXPECT_THROW(read({length / 2, length / 2}), DataError);
}

TEST_F(LoaderTest, DocumentStartsAreThoseThatPrepareWrote) {
  const auto tokenizer = make_byte_tokenizer();
  TokenFileWriter writer(folder_, *tokenizer);
  std::vector<bool> begins;  // at each token of the split
  std::vector<std::int64_t> lengths = {0, 15, 16, 1, 40, 3, 3, 0, 0, 7, 100};
  for (const std::int64_t length : lengths) {
    writer.add_document(Split::train, tokens_from(0, length));
    writer.add_document(Split::valid, tokens_from(0, length));
    begins.push_back(true);
    begins.insert(begins.end(), static_cast<std::size_t>(length), false);  // and its end
  }
  writer.write(path("documents.h5"), "[]");
  const TokenFile file(path("documents.h5"));
  BatchLayout wanted = layout(1, 1, 0, 1);
  wanted.with_documents = true;
  wanted.segments = {{4, 2}};  // the starts are those of the whole sequence
  const FixedBatches batches(file, Split::valid, wanted);
  ASSERT_EQ(batches.num_sequences(), (static_cast<std::int64_t>(begins.size()) - 1) / 16);
  using Documents = std::vector<std::vector<std::int32_t>>;
  Documents expected;
  for (std::int64_t b = 0; b < batches.num_sequences(); ++b) {
    std::vector<std::int32_t>& starts = expected.emplace_back();
    for (std::int32_t p = 1; p < 16; ++p)
      if (begins[static_cast<std::size_t>(b * 16 + p)]) starts.push_back(p);
    EXPECT_EQ(batches.batch(b).document_starts, Documents{starts}) << b;
  }
  Loader loader(path("documents.h5"), Split::train, wanted, 3);
  const EpochPermutation order(batches.num_sequences(), 3);
  for (std::int64_t g = 0; g < 3 * batches.num_sequences(); ++g) {
    const std::int64_t sequence = order(g / batches.num_sequences(), g % batches.num_sequences());
    EXPECT_EQ(loader.next().document_starts,
              Documents{expected[static_cast<std::size_t>(sequence)]});
  }
}

TEST_F(LoaderTest, SeekingEqualsWalking) {
  const BatchLayout half = layout(8, 2, 1, 2);
  Loader walking(path("t.h5"), Split::train, half, 9);
  std::vector<Batch> batches;
  for (int i = 0; i < 60; ++i) batches.push_back(walking.next());
  Loader seeking(path("t.h5"), Split::train, half, 9);
  for (std::int64_t step : {0, 29, 3, 3, 17, 1}) {
    seeking.seek(step, 8 * step);
    EXPECT_EQ(seeking.step(), step);
    for (std::int64_t i = 2 * step; i < std::min<std::int64_t>(2 * step + 7, 60); ++i)
      expect_same(seeking.next(), batches[static_cast<std::size_t>(i)]);
  }
}

// A run that goes on with a batch of another size takes the sequences that follow: none twice, none
// left out, whether or not the position is a multiple of the new batch.
TEST_F(LoaderTest, StepsOfAnotherSizeFollowWithoutAGap) {
  Loader whole(path("t.h5"), Split::train, layout(1, 1, 0, 1), 9);
  std::vector<Batch> sequences;
  for (int i = 0; i < 60; ++i) sequences.push_back(whole.next());
  const std::array<std::int64_t, 3> cases[] = {{6, 4, 32}, {6, 9, 3}, {2, 0, 7}, {12, 30, 1}};
  for (const auto& [batch, step, position] : cases) {
    Loader loader(path("t.h5"), Split::train, layout(batch, 1, 1, 2), 9);
    loader.seek(step, position);
    EXPECT_EQ(loader.step(), step);
    for (std::int64_t micro_step = 0; micro_step < batch; ++micro_step)  // of two steps
      expect_same(loader.next(),
                  sequences[static_cast<std::size_t>(position + 2 * micro_step + 1)]);
  }
}

// Every sequence once, in ascending order over micro-steps and ranks, and then padding.
TEST_F(LoaderTest, FixedBatchesHoldEverySequenceOnceOnEveryLayout) {
  const TokenFile file(path("t.h5"));  // 301 tokens, 18 sequences
  for (const std::int64_t wanted : {0, 1, 3, 5, 17, 18, 1000})
    for (const int size : {1, 2, 3, 4, 20})
      for (const std::int64_t micro : {1, 2, 3, 7, 20}) {
        std::vector<FixedBatches> ranks;
        for (int rank = 0; rank < size; ++rank)
          ranks.emplace_back(file, Split::valid, layout(micro * size, micro, rank, size), wanted);
        const std::int64_t count = wanted == 0 || wanted > 18 ? 18 : wanted;
        std::int64_t next = 0;
        for (std::int64_t a = 0; a < ranks.front().num_micro_steps(); ++a)
          for (const FixedBatches& batches : ranks) {
            ASSERT_EQ(batches.num_sequences(), count);
            ASSERT_EQ(batches.num_micro_steps(), ranks.front().num_micro_steps());
            const Batch batch = batches.batch(a);
            const std::int64_t num_rows = micro - batch.num_padding;
            for (std::int64_t row = 0; row < micro; ++row) {
              const std::span tokens =
                  std::span(batch.tokens).subspan(static_cast<std::size_t>(row * 16), 16);
              const bool is_sequence = row < num_rows;
              EXPECT_EQ(batch.sequence_ids[static_cast<std::size_t>(row)], is_sequence ? next : -1);
              EXPECT_EQ(std::vector(tokens.begin(), tokens.end()),
                        is_sequence ? tokens_from(next * 16, 16) : std::vector<std::int32_t>(16));
              next += is_sequence ? 1 : 0;
            }
          }
        EXPECT_EQ(next, count) << size << " ranks, micro-batch " << micro;
      }
}

// The sequences that do not fill a micro-step go to as many ranks as there are.
TEST_F(LoaderTest, FixedBatchesShareOutTheLastSequences) {
  const TokenFile file(path("t.h5"));
  for (int rank = 0; rank < 4; ++rank) {
    const FixedBatches batches(file, Split::valid, layout(16, 4, rank, 4), 5);
    EXPECT_EQ(batches.num_micro_steps(), 1);
    EXPECT_EQ(batches.batch(0).num_padding, rank == 3 ? 2 : 3);
  }
}

TEST_F(LoaderTest, ErrorsOfTheThreadArriveAtTheCaller) {
  std::int64_t offset = 0;
  {
    const hdf5::File file = hdf5::File::open(path("t.h5"));
    offset = *file.open_dataset("train/tokens").file_offset();
  }
  flip_bit("t.h5", static_cast<std::size_t>(offset) + 5, 1);
  Loader loader(path("t.h5"), Split::train, layout(2, 2, 0, 1), 9);
  EXPECT_TRUE(contains(message_of<DataError>([&] { loader.next(); }), "damaged"));
  EXPECT_THROW(loader.next(), DataError);
}

TEST_F(LoaderTest, ImpossibleLayoutsShowTheEquation) {
  EXPECT_TRUE(contains(
      message_of<ConfigError>([&] { Loader(path("t.h5"), Split::train, layout(10, 2, 0, 3), 1); }),
      "global_batch = 10 must be a positive multiple of micro_batch x data ranks "
      "= 2 x 3 = 6"));
}

}  // namespace
}  // namespace switchyard
