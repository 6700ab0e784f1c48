// A card in earnest: tensors in its own memory, kernels and exchanges on its streams. Whole steps
// of every kind of layer give the CPU's numbers within rounding; states move between card and CPU.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/host_copy.hpp"
#include "model/decoder.hpp"
#include "tests/end_to_end/step_cases.hpp"
#include "tests/support/temporary_folder.hpp"
#include "trainer/checkpoint/checkpoint.hpp"

namespace switchyard::test {
namespace {

const Report silent = [](const std::string&) {};

// Ranks share one.
std::unique_ptr<Device> make_card() {
  return make_device(DeviceKind::cuda, 0);
}

// Sums in another order, of a few hundred terms each. bf16 rounds to 2^-9, and what is rounded
// differs by the order of fp32 sums now and then.
struct Tolerance {
  double loss = 0;
  double norm = 0;    // of the gradient, relative
  double values = 0;  // of the weights: distance by the norm of their change
};
Tolerance tolerance_of(const Config& config) {
  if (config.run.precision == Precision::bf16) return {2e-3, 3e-2, 0.2};
  return {1e-5, 1e-4, 2e-2};
}

std::vector<float> values_of(SmallRun& run) {
  std::vector<float> values;
  for (const Bucket& bucket : run.trainer.store().buckets()) {
    const kernels::HostContents<float> contents(bucket.values);
    values.insert(values.end(), contents.span().begin(), contents.span().end());
  }
  return values;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double squares = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    squares += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  return std::sqrt(squares);
}

void expect_near_steps(const std::vector<StepResult>& actual,
                       const std::vector<StepResult>& expected, const Tolerance& tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(actual[i].loss, expected[i].loss, tolerance.loss * expected[i].loss)
        << "step " << i + 1;
    EXPECT_NEAR(actual[i].gradient_norm, expected[i].gradient_norm,
                tolerance.norm * expected[i].gradient_norm)
        << "step " << i + 1;
  }
}

TEST(Card, StepsAreThoseOfTheCpu) {
  for (const StepCase& each : cases_here()) {
    SCOPED_TRACE(each.name);
    const Config config = config_of(each);
    SmallRun reference(world(), config, make_cpu_device());
    SmallRun card(world(), config, make_card());
    const std::vector<float> start = values_of(reference);
    EXPECT_EQ(values_of(card), start);
    expect_near_steps(card.train(1, 3), reference.train(1, 3), tolerance_of(config));
    const std::vector<float> end = values_of(reference);
    ASSERT_EQ(values_of(card).size(), end.size());
    EXPECT_LE(distance(values_of(card), end), tolerance_of(config).values * distance(end, start));
  }
}

TEST(Card, ASecondRunHasTheSameBits) {
  for (const StepCase& each : cases_here()) {
    SCOPED_TRACE(each.name);
    SmallRun first(world(), config_of(each), make_card());
    SmallRun second(world(), config_of(each), make_card());
    const std::vector<StepResult> a = first.train(1, 3);
    const std::vector<StepResult> b = second.train(1, 3);
    for (std::size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].loss, b[i].loss);
      EXPECT_EQ(a[i].gradient_norm, b[i].gradient_norm);
    }
    EXPECT_EQ(values_of(first), values_of(second));
  }
}

// From the card to the card and to the CPU, and from the CPU to the card.
TEST(Card, StatesMove) {
  const TemporaryFolder folder(world());
  const auto make = [](bool on_card) { return on_card ? make_card() : make_cpu_device(); };
  for (const auto& [from_card, to_card] : {std::pair(true, true), {true, false}, {false, true}}) {
    const StepCase& each = step_cases().front();
    SCOPED_TRACE(std::string(from_card ? "card" : "cpu") + " to " + (to_card ? "card" : "cpu"));
    SmallRun saved(world(), config_of(each), make(from_card));
    saved.train(1, 2);
    SaveRequest request;
    request.folder = folder.path() + "/" + std::to_string(2 * from_card + to_card);
    request.state.step = 2;
    request.configuration = "test: true\n";
    const std::string path =
        save_checkpoint(request, saved.trainer.store(), saved.trainer.optimizer(), world(), silent)
            .path;
    SmallRun loaded(world(), config_of(each), make(to_card));
    load_checkpoint(path, loaded.trainer.store(), &loaded.trainer.optimizer(), world());
    loaded.trainer.weights_changed();
    EXPECT_EQ(values_of(loaded), values_of(saved));
    expect_near_steps(loaded.train(3, 4), saved.train(3, 4), tolerance_of(config_of(each)));
  }
}

TEST(Card, LogitsOfGeneratedTextAreThoseOfTheCpu) {
  for (const StepCase& each : cases_here()) {
    const Config config = config_of(each);
    if (config.parallel.expert > 1 || config.parallel.context_split.ring > 1 ||
        config.parallel.context_split.ulysses > 1)
      continue;  // text is made by one rank
    SCOPED_TRACE(each.name);
    const double tolerance = config.run.precision == Precision::bf16 ? 0.05 : 1e-4;
    const std::unique_ptr<Group> alone = make_local_group("alone");
    SmallRun reference(*alone, config, make_cpu_device());
    SmallRun card(*alone, config, make_card());
    Decoder expected(reference.trainer.model(), 22), actual(card.trainer.model(), 22);
    std::vector<std::int32_t> tokens = {3, 1};
    for (int i = 0; i < 20; ++i) {
      const std::span<const float> wanted = expected.append(tokens);
      const std::span<const float> got = actual.append(tokens);
      for (std::size_t v = 0; v < wanted.size(); ++v)
        ASSERT_NEAR(got[v], wanted[v], tolerance * (1 + std::abs(wanted[v]))) << "token " << i;
      tokens = {static_cast<std::int32_t>(std::ranges::max_element(wanted) - wanted.begin())};
    }
  }
}

}  // namespace
}  // namespace switchyard::test
