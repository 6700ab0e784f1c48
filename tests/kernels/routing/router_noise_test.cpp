// What is random in a router: the numbers are those of the identities, and gradients the slopes.
#include "kernels/routing/router_noise.hpp"

#include <cmath>
#include <numeric>

#include "kernels/kernel_test.hpp"

namespace switchyard::test {
namespace {

constexpr std::int64_t step = 77;
const RandomKey key = random_key(11, "router noise");

// Tokens of two sequences, some of their positions.
struct Tokens {
  explicit Tokens(std::vector<std::int32_t> positions_of_one)
      : ids(tested(), Purpose::workspace, DType::i64, {2}), length(std::ssize(positions_of_one)) {
    ids->as<std::int64_t>()[0] = 3;
    ids->as<std::int64_t>()[1] = std::int64_t{1} << 33;
    all = positions_of_one;
    all.insert(all.end(), positions_of_one.begin(), positions_of_one.end());
    positions = Operand::of_ints(all);
  }
  kernels::DropoutSite site() const {
    return {.key = key, .step = step, .sequence_length = length, .positions = positions.view()};
  }
  std::array<std::uint32_t, 4> words(std::int64_t t, std::int64_t group) const {
    const std::int64_t id = ids->as<std::int64_t>()[t / length];
    const auto position = static_cast<std::uint32_t>(all[static_cast<std::size_t>(t)]);
    return random_words(key, {step, static_cast<std::uint32_t>(id),
                              position | static_cast<std::uint32_t>(id >> 32) << 24,
                              static_cast<std::uint32_t>(group)});
  }
  std::int64_t size() const { return 2 * length; }
  Tensor ids;
  std::int64_t length;
  std::vector<std::int32_t> all;
  Operand positions = Operand::of_ints({0});
};

double normal(const Tokens& tokens, std::int64_t t, std::int64_t e) {
  return normals(tokens.words(t, e / 4))[static_cast<std::size_t>(e % 4)];
}

TEST(RouterNoise, IsTheFormulaAndItsSlope) {
  const Tokens tokens({0, 2, 5});
  for (const std::int64_t experts : {1, 4, 7}) {
    const Operand raw(DType::f32, tokens.size(), experts, 2, 1);
    const Operand logits(DType::f32, tokens.size(), experts, 3, 2);
    const Operand dlogits(DType::f32, tokens.size(), experts, 4);
    const Doubles before = logits.values(), r = raw.values(), d = dlogits.values();
    kernels::add_router_noise(raw, tokens.site(), tokens.ids, logits);
    Doubles wanted, slopes;
    const auto softplus = [](double x) { return std::log1p(std::exp(x)); };
    for (std::int64_t t = 0; t < tokens.size(); ++t)
      for (std::int64_t e = 0; e < experts; ++e) {
        const auto at = static_cast<std::size_t>(t * experts + e);
        const double n = normal(tokens, t, e);
        wanted.push_back(before[at] + n * softplus(r[at]));
        constexpr double h = 1e-6;
        slopes.push_back(d[at] * n * (softplus(r[at] + h) - softplus(r[at] - h)) / (2 * h));
      }
    expect_close(logits, wanted, 2e-6);
    kernels::router_noise_backward(dlogits, raw, tokens.site(), tokens.ids, dlogits);
    expect_close(dlogits, slopes, 2e-6);
  }
}

TEST(RouterNoise, BearsLargeNumbers) {
  const Tokens tokens({0});
  const Operand raw(DType::f32, 2, 2), logits(DType::f32, 2, 2), dlogits(DType::f32, 2, 2);
  raw.set({-200, 200, -1e4, 1e4});
  kernels::add_router_noise(raw, tokens.site(), tokens.ids, logits);
  kernels::router_noise_backward(dlogits, raw, tokens.site(), tokens.ids, dlogits);
  for (const double value : logits.values()) EXPECT_TRUE(std::isfinite(value));
  for (const double value : dlogits.values()) EXPECT_TRUE(std::isfinite(value));
}

// Any part of the tokens has the numbers of the whole, so pieces and layouts change nothing.
TEST(Jitter, IsByIdentity) {
  const Tokens tokens({0, 1, 2, 3});
  const float epsilon = 0.25f;
  const Operand x(DType::f32, 8, 10, 5, 2);
  const Doubles before = x.values();
  kernels::jitter(x, 0, epsilon, tokens.site(), tokens.ids);
  Doubles wanted;
  for (std::int64_t t = 0; t < 8; ++t)
    for (std::int64_t h = 0; h < 10; ++h)
      wanted.push_back(
          before[static_cast<std::size_t>(t * 10 + h)] *
          (0.75 + 0.5 * uniform(tokens.words(t, h / 4)[static_cast<std::size_t>(h % 4)])));
  expect_close(x, wanted, 1e-6);
  const Operand rows(DType::f32, 5, 10);
  rows.set(Doubles(before.begin() + 30, before.begin() + 80));
  kernels::jitter(rows, 3, epsilon, tokens.site(), tokens.ids);
  const Doubles whole = x.values();
  EXPECT_EQ(rows.values(), Doubles(whole.begin() + 30, whole.end()));
}

TEST(SecondExpert, IsGivenUpByItsWeight) {
  std::vector<std::int32_t> positions(2000);
  std::iota(positions.begin(), positions.end(), 0);
  const Tokens tokens(positions);
  for (const double second : {0.0, 0.125, 0.375, 0.5}) {
    const Operand weights(DType::f32, 4000, 2);
    Doubles values;
    std::vector<std::int32_t> indices, wanted;
    for (std::int64_t t = 0; t < 4000; ++t) {
      values.insert(values.end(), {1 - second, second});
      indices.insert(indices.end(), {4, 2});
      const bool keeps = 2 * second > uniform(tokens.words(t, 0)[0]);
      wanted.insert(wanted.end(), {4, keeps ? 2 : -1});
    }
    weights.set(values);
    const Operand choices = Operand::of_ints(indices, 2);
    kernels::give_up_second(weights, tokens.site(), tokens.ids, choices);
    EXPECT_EQ(choices.ints(), wanted);
    const auto kept = std::count(wanted.begin(), wanted.end(), 2);
    EXPECT_NEAR(static_cast<double>(kept), 8000 * second, 160);  // five standard deviations
  }
}

}  // namespace
}  // namespace switchyard::test
