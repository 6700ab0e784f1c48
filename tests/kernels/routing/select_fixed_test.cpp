// Choices by the token's id and by its number.
#include "kernels/routing/select_fixed.hpp"

#include <numeric>

#include "kernels/kernel_test.hpp"
#include "tests/support/reference_routing.hpp"

namespace switchyard::test {
namespace {

Operand no_choices(std::int64_t num_tokens, std::int64_t top_k) {
  return Operand::of_ints(
      std::vector<std::int32_t>(static_cast<std::size_t>(num_tokens * top_k), -7), top_k);
}

std::vector<std::int32_t> as_ints(const Choices& choices) {
  return {choices.begin(), choices.end()};
}

// Two sequences of `whole` tokens, of which rows positions[0 ...] are here.
struct Numbered {
  Numbered(std::int64_t whole, const std::vector<std::int32_t>& positions_of_one)
      : ids(tested(), Purpose::workspace, DType::i64, {2}) {
    ids->as<std::int64_t>()[0] = 5;
    ids->as<std::int64_t>()[1] = 9;
    std::vector<std::int32_t> all = positions_of_one;
    all.insert(all.end(), positions_of_one.begin(), positions_of_one.end());
    positions = Operand::of_ints(all);
    numbers = {.rows_of_sequence = std::ssize(positions_of_one),
               .sequence_length = whole,
               .positions = positions.view(),
               .sequence_ids = ids};
    for (const std::int64_t id : {5, 9})
      for (const std::int32_t position : positions_of_one)
        of_tokens.push_back(static_cast<std::uint64_t>(id * whole + position));
  }
  Tensor ids;
  Operand positions = Operand::of_ints({0});
  kernels::TokenNumbers numbers;
  std::vector<std::uint64_t> of_tokens;
};

TEST(HashChoice, DrawsDifferentExpertsByTheTokenAlone) {
  const RandomKey key = random_key(3, "hash");
  const std::vector<std::int32_t> ids = {0, 1, 2, 17, 17, 50000, 1, 2147483646};
  for (const std::int64_t experts : {1, 5, 64})
    for (const std::int64_t top_k : {1, 3, 5}) {
      if (top_k > experts) continue;
      const Operand tokens = Operand::of_ints(ids), indices = no_choices(8, top_k);
      kernels::select_by_hash(tokens, key, experts, indices);
      Choices wanted;
      for (const std::int32_t id : ids)
        for (const std::int64_t e : reference_hash(id, key, static_cast<std::size_t>(experts),
                                                   static_cast<std::size_t>(top_k)))
          wanted.push_back(e);
      EXPECT_EQ(indices.ints(), as_ints(wanted));
    }
}

TEST(HashChoice, SpreadsTheVocabulary) {
  std::vector<std::int32_t> ids(8000);
  std::iota(ids.begin(), ids.end(), 0);
  const Operand tokens = Operand::of_ints(ids), indices = no_choices(8000, 2);
  kernels::select_by_hash(tokens, random_key(3, "hash"), 8, indices);
  std::vector<int> counts(8);
  for (const std::int32_t e : indices.ints()) ++counts[static_cast<std::size_t>(e)];
  for (const int count : counts) EXPECT_NEAR(count, 2000, 200);  // five standard deviations
}

TEST(ChoiceInTurn, IsEvenAndByNumber) {
  const Numbered tokens(12, {0, 3, 4, 11});
  const Operand indices = no_choices(8, 3);
  kernels::select_in_turn(tokens.numbers, 5, indices);
  Choices wanted;
  for (const std::uint64_t number : tokens.of_tokens)
    for (std::uint64_t j = 0; j < 3; ++j)
      wanted.push_back(static_cast<std::int64_t>((number * 3 + j) % 5));
  EXPECT_EQ(indices.ints(), as_ints(wanted));
}

TEST(ChoiceByShares, HasThem) {
  const std::vector<Doubles> loads = {
      {1}, {0.5, 0.5}, {1, 0.7, 0.2, 0.1}, {0.9, 0.05, 0.05, 0}, {1, 1, 1, 0, 0}};
  for (const Doubles& shares : loads) {
    const auto top_k =
        static_cast<std::int64_t>(std::llround(std::accumulate(shares.begin(), shares.end(), 0.0)));
    std::vector<std::int32_t> positions(4000);
    std::iota(positions.begin(), positions.end(), 0);
    const Numbered tokens(4000, positions);
    const Operand indices = no_choices(8000, top_k);
    kernels::select_by_shares(tokens.numbers, shares, indices);
    Choices wanted;
    for (const std::uint64_t number : tokens.of_tokens)
      for (const std::int64_t e : reference_load(number, shares, static_cast<std::size_t>(top_k)))
        wanted.push_back(e);
    EXPECT_EQ(indices.ints(), as_ints(wanted));
    std::vector<int> counts(shares.size());
    for (const std::int32_t e : indices.ints()) ++counts[static_cast<std::size_t>(e)];
    for (std::size_t e = 0; e < shares.size(); ++e)
      EXPECT_NEAR(counts[e], shares[e] * 8000, 8) << "expert " << e;
  }
}

}  // namespace
}  // namespace switchyard::test
