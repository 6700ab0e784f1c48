// The made-up tasks of `prepare --synthetic`, each held to what it promises by reading its
// documents, and the file that they become.
#include "data/prepare/synthetic.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "data/prepare/prepare.hpp"
#include "data/token_file.hpp"
#include "scratch_folder.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

struct Problem {
  std::string text;    // its tokens as bytes
  std::string answer;  // those that are asked for
};

Problem problem_of(const SyntheticOptions& options, std::int64_t document, std::uint64_t seed = 1) {
  const SyntheticDocument made = make_synthetic(options, seed, document);
  EXPECT_EQ(std::ssize(made.tokens), options.length - 1);
  EXPECT_EQ(std::ssize(made.mask), options.length);
  EXPECT_EQ(made.mask.back(), 0);
  Problem problem;
  for (std::size_t i = 0; i < made.tokens.size(); ++i) {
    problem.text += static_cast<char>(made.tokens[i]);
    if (made.mask[i] != 0) problem.answer += static_cast<char>(made.tokens[i]);
  }
  return problem;
}

TEST(Synthetic, MqarAsksForEveryKeyOnce) {
  const SyntheticOptions options{
      .task = SyntheticTask::mqar, .length = 70, .size = 12, .symbols = 64};
  std::set<std::vector<std::int32_t>> all;
  for (std::int64_t document = 0; document < 50; ++document) {
    const SyntheticDocument made = make_synthetic(options, 1, document);
    all.insert(made.tokens);
    std::map<std::int32_t, std::int32_t> value_of;
    for (std::size_t pair = 0; pair < 12; ++pair)
      value_of[made.tokens[2 * pair]] = made.tokens[2 * pair + 1];
    ASSERT_EQ(value_of.size(), 12U);
    std::set<std::int32_t> asked;
    for (std::size_t i = 0; i < made.tokens.size(); ++i) {
      EXPECT_TRUE(made.tokens[i] >= 0 && made.tokens[i] < 64);
      const bool is_key = made.tokens[i] < 32;
      EXPECT_TRUE(!is_key || i < 24 ? true : made.mask[i + 1] == 1) << "a key that asks nothing";
      if (made.mask[i] == 0) continue;
      ASSERT_GT(i, 24U);
      asked.insert(made.tokens[i - 1]);
      EXPECT_EQ(made.tokens[i], value_of.at(made.tokens[i - 1]));
    }
    EXPECT_EQ(asked.size(), 12U);
  }
  EXPECT_EQ(all.size(), 50U);
}

TEST(Synthetic, CopyAsksForTheLettersAgain) {
  const SyntheticOptions options{
      .task = SyntheticTask::copy, .length = 50, .size = 20, .least_size = 3, .symbols = 5};
  std::set<std::size_t> sizes;
  for (std::int64_t document = 0; document < 200; ++document) {
    const Problem problem = problem_of(options, document);
    const std::string letters = problem.text.substr(0, problem.text.find('|'));
    sizes.insert(letters.size());
    EXPECT_EQ(problem.answer, letters);
    EXPECT_EQ(problem.text.substr(0, 2 * letters.size() + 1), letters + "|" + letters);
    EXPECT_EQ(problem.text.find_first_not_of("abcde| "), std::string::npos);
  }
  EXPECT_EQ(*sizes.begin(), 3U);
  EXPECT_EQ(*sizes.rbegin(), 20U);
  EXPECT_EQ(sizes.size(), 18U);
}

TEST(Synthetic, TheNeedleIsAnywhereAndIsTheAnswer) {
  const SyntheticOptions options{.task = SyntheticTask::needle, .length = 200, .size = 5};
  std::size_t first = 200, last = 0;
  for (std::int64_t document = 0; document < 200; ++document) {
    const Problem problem = problem_of(options, document);
    EXPECT_EQ(problem.answer.size(), 5U);
    const std::size_t at = problem.text.find("The magic number of ");
    first = std::min(first, at);
    last = std::max(last, at);
    const std::string word = problem.text.substr(at + 20, 5);
    EXPECT_EQ(problem.text.substr(at + 25, 10), " is " + problem.answer + ".");
    const std::string question = "What is the magic number of " + word + "? It is ";
    EXPECT_TRUE(problem.text.ends_with(question + problem.answer));
  }
  EXPECT_LT(first, 5U);
  EXPECT_GT(last, 100U);
}

// Reads an expression from `at` on, which then is behind it.
struct Evaluated {
  std::int64_t value = 0;
  std::int64_t depth = 0;
};
Evaluated evaluate(const std::string& text, std::size_t& at) {
  const char letter = text[at++];
  if (letter >= '0' && letter <= '9') return {letter - '0', 0};
  std::vector<std::int64_t> values;
  std::int64_t depth = 0;
  for (++at; text[at] != ')';) {
    const Evaluated argument = evaluate(text, at);
    values.push_back(argument.value);
    depth = std::max(depth, argument.depth);
  }
  ++at;
  std::sort(values.begin(), values.end());
  std::int64_t sum = 0;
  for (const std::int64_t value : values) sum += value;
  const std::map<char, std::int64_t> results = {{'X', values.back()},
                                                {'N', values.front()},
                                                {'D', values[(values.size() - 1) / 2]},
                                                {'S', sum % 10}};
  return {results.at(letter), depth + 1};
}

TEST(Synthetic, ListopsAsksForTheValue) {
  const SyntheticOptions options{.task = SyntheticTask::listops, .length = 120, .size = 3};
  std::map<std::string, int> answers;
  for (std::int64_t document = 0; document < 200; ++document) {
    const Problem problem = problem_of(options, document);
    std::size_t at = 0;
    const Evaluated evaluated = evaluate(problem.text, at);
    EXPECT_EQ(evaluated.depth, 3);
    EXPECT_EQ(problem.text[at], '=');
    EXPECT_EQ(problem.answer, std::to_string(evaluated.value));
    EXPECT_EQ(problem.text[at + 1], problem.answer[0]);
    ++answers[problem.answer];
  }
  EXPECT_EQ(answers.size(), 10U);
}

TEST(Synthetic, ParityAsksForTheParity) {
  const SyntheticOptions options{.task = SyntheticTask::parity, .length = 20, .size = 17};
  for (std::int64_t document = 0; document < 100; ++document) {
    const Problem problem = problem_of(options, document);
    const std::string bits = problem.text.substr(0, 17);
    const auto ones = std::count(bits.begin(), bits.end(), '1');
    EXPECT_EQ(problem.answer, std::to_string(ones % 2));
    EXPECT_EQ(problem.text, bits + "=" + problem.answer);
  }
}

TEST(Synthetic, WhatDoesNotFitIsRefusedWithItsNumbers) {
  const auto refusal = [](const SyntheticOptions& options) -> std::string {
    try {
      check_synthetic(with_defaults(options));
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(refusal({.task = SyntheticTask::mqar, .length = 65, .size = 16}), "");
  EXPECT_NE(refusal({.task = SyntheticTask::mqar, .length = 64, .size = 16}).find("64 tokens"),
            std::string::npos);
  EXPECT_NE(refusal({.task = SyntheticTask::mqar, .length = 999, .size = 129}), "");
  EXPECT_NE(refusal({.task = SyntheticTask::mqar, .symbols = 31}).find("odd"), std::string::npos);
  EXPECT_NE(refusal({.task = SyntheticTask::parity, .symbols = 4}).find("--symbols"),
            std::string::npos);
  EXPECT_NE(refusal({.task = SyntheticTask::copy, .symbols = 27}).find("2 to 26"),
            std::string::npos);
  EXPECT_NE(refusal({.task = SyntheticTask::copy, .size = 4, .least_size = 5}), "");
  EXPECT_NE(refusal({.task = SyntheticTask::needle, .length = 60, .size = 7}), "");
  for (const SyntheticTask task : {SyntheticTask::mqar, SyntheticTask::copy, SyntheticTask::needle,
                                   SyntheticTask::listops, SyntheticTask::parity})
    EXPECT_EQ(refusal({.task = task}), "") << name_of(task);
  // The shortest expressions just fit.
  const SyntheticOptions tight{.task = SyntheticTask::listops, .length = 20, .size = 4};
  EXPECT_EQ(refusal(tight), "");
  for (std::int64_t document = 0; document < 20; ++document) problem_of(tight, document);
}

using PrepareSynthetic = ScratchFolder;

TEST_F(PrepareSynthetic, TheFileHoldsTheProblemsAndTheirMask) {
  PrepareOptions options;
  options.output = path("mqar.h5");
  options.valid_fraction = 0.25;
  options.seed = 7;
  options.synthetic = SyntheticOptions{
      .task = SyntheticTask::mqar, .num_documents = 20, .length = 40, .size = 8, .symbols = 32};
  const PrepareSummary summary = prepare(options);
  EXPECT_EQ(summary.num_train_documents, 15);
  EXPECT_EQ(summary.num_valid_documents, 5);
  const TokenFile file(options.output);
  file.verify();
  EXPECT_TRUE(file.has_loss_mask());
  EXPECT_TRUE(contains(file.sources(), "\"task\":\"mqar\""));
  for (std::int64_t document = 0; document < 20; ++document) {
    const Split split = document < 15 ? Split::train : Split::valid;
    const std::int64_t begin = 40 * (document < 15 ? document : document - 15);
    SyntheticDocument wanted = make_synthetic(*options.synthetic, 7, document);
    wanted.tokens.push_back(file.end_of_document());
    std::vector<std::int32_t> tokens(40);
    std::vector<std::uint8_t> mask(40);
    file.read(split, begin, tokens);
    file.read_mask(split, begin, mask);
    EXPECT_EQ(tokens, wanted.tokens);
    EXPECT_EQ(mask, wanted.mask);
  }
  // Made-up problems go with no inputs and no tokenizer.
  options.output = path("other.h5");
  options.inputs = {"text.txt"};
  EXPECT_THROW(prepare(options), ConfigError);
  options.inputs.clear();
  options.train_vocab = 500;
  EXPECT_THROW(prepare(options), ConfigError);
  EXPECT_EQ(names().size(), 1U);
}

}  // namespace
}  // namespace switchyard
