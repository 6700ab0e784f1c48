// The sharded optimizer against AdamW on whole tensors in double.
#include "trainer/adamw_optimizer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/mpi_test.hpp"
#include "tests/trainer/synthetic_model.hpp"
#include "trainer/step_report.hpp"

namespace switchyard::test {
namespace {

constexpr int gradient_of_step = 1000;  // formula's `what`, plus the step

// Whole tensors in double, the formulas of Loshchilov and Hutter written out.
class Reference {
 public:
  Reference(const ParameterStore& store, const OptimizerConfig& config) : config_(config) {
    for (const Parameter& parameter : store.parameters()) {
      Tensor tensor;
      tensor.decay = parameter.spec().decay;
      tensor.trained = parameter.is_trained();
      const std::int64_t numel = parameter.spec().global_shape.numel();
      for (std::int64_t i = 0; i < numel; ++i)
        tensor.value.push_back(double{formula(0, parameter.index(), i)});
      tensor.moment1.resize(tensor.value.size());
      tensor.moment2.resize(tensor.value.size());
      tensors_.push_back(std::move(tensor));
    }
  }

  double norm(int step) const {
    double sum = 0;
    for (std::size_t t = 0; t < tensors_.size(); ++t)
      for (std::size_t i = 0; i < tensors_[t].value.size() && tensors_[t].trained; ++i)
        sum += std::pow(gradient(step, t, i), 2);
    return std::sqrt(sum);
  }

  void update(int step, double rate) {
    const double total = norm(step);
    const double scale = config_.clip_norm > 0 ? std::min(1.0, config_.clip_norm / total) : 1.0;
    for (std::size_t t = 0; t < tensors_.size(); ++t) {
      Tensor& tensor = tensors_[t];
      for (std::size_t i = 0; i < tensor.value.size() && tensor.trained; ++i) {
        const double g = scale * gradient(step, t, i);
        double& m = tensor.moment1[i];
        double& v = tensor.moment2[i];
        m = config_.beta1 * m + (1 - config_.beta1) * g;
        v = config_.beta2 * v + (1 - config_.beta2) * g * g;
        const double m_hat = m / (1 - std::pow(config_.beta1, step));
        const double v_hat = v / (1 - std::pow(config_.beta2, step));
        const double decay = tensor.decay ? config_.weight_decay * tensor.value[i] : 0.0;
        tensor.value[i] -= rate * (m_hat / (std::sqrt(v_hat) + config_.epsilon) + decay);
      }
    }
  }

  double value(int tensor, std::int64_t i) const {
    return tensors_[static_cast<std::size_t>(tensor)].value[static_cast<std::size_t>(i)];
  }

 private:
  struct Tensor {
    std::vector<double> value, moment1, moment2;
    bool decay = true;
    bool trained = true;
  };
  static double gradient(int step, std::size_t tensor, std::size_t i) {
    return double{
        formula(gradient_of_step + step, static_cast<int>(tensor), static_cast<std::int64_t>(i))};
  }
  OptimizerConfig config_;
  std::vector<Tensor> tensors_;
};

void fill_gradients(SyntheticModel& model, int step) {
  for (const Parameter& parameter : model.store.parameters()) {
    if (parameter.gradient().empty()) continue;
    float* gradient = parameter.gradient().as<float>();
    for (std::int64_t i = 0; i < parameter.gradient().numel(); ++i)
      gradient[i] = formula(gradient_of_step + step, parameter.index(), parameter.global_index(i));
  }
}

// Values of fill(0) and moments of zero, as at the start of a training.
void start(SyntheticModel& model) {
  model.fill(0);
  for (const OwnedRange& range : model.store.owned_ranges())
    for (std::int64_t i = 0; i < range.numel && range.parameter->is_trained(); ++i)
      model.optimizer->moment1(range).as<float>()[i] =
          model.optimizer->moment2(range).as<float>()[i] = 0;
}

double largest_error(const SyntheticModel& model, const Reference& reference) {
  double error = 0;
  for (const OwnedRange& range : model.store.owned_ranges()) {
    const float* values = range.bucket->values.view().as<float>() + range.bucket_begin;
    for (std::int64_t i = 0; i < range.numel; ++i)
      error = std::max(error, std::abs(double{values[i]} - reference.value(range.parameter->index(),
                                                                           range.global_index(i))));
  }
  return error;
}

// Its step report has the gradient norm alone.
GatheredReport exchange_norm(const SyntheticModel& model, StepReport& report, double clip_norm) {
  report.begin();
  model.optimizer->add_squared_norm(report.squared_norm());
  report.exchange({}, {.clip_norm = clip_norm});
  return report.read();
}

TEST(AdamW, ShardedEqualsWholeTensorsInDouble) {
  const std::unique_ptr<Device> device = make_cpu_device();
  for (const double clip : {0.0, 1.0, 1e6}) {
    OptimizerConfig config;
    config.clip_norm = clip;
    for (const std::int64_t expert : expert_degrees(world().size())) {
      SyntheticModel model(*device, world(), expert, config);
      start(model);
      Reference reference(model.store, config);
      for (int step = 1; step <= 3; ++step) {
        fill_gradients(model, step);
        const double rate = 1e-2 * step;
        StepReport report(*device, world());
        const double norm = exchange_norm(model, report, clip).gradient_norm;
        model.optimizer->update(step, rate, report.decision());
        EXPECT_NEAR(norm, reference.norm(step), 1e-12 * norm);
        reference.update(step, rate);
      }
      EXPECT_LT(largest_error(model, reference), 1e-6) << "clip " << clip << " expert " << expert;
    }
  }
}

TEST(AdamW, NonFiniteGradientIsSeenOnEveryRankAndRefused) {
  const std::unique_ptr<Device> device = make_cpu_device();
  SyntheticModel model(*device, world(), world().size());
  model.fill(0);
  fill_gradients(model, 1);
  // One element, on the ranks that hold the last expert.
  const Parameter& last = model.store.parameters()[4];
  if (!last.slice().runs().empty() && last.slice().runs().back().end == num_experts)
    last.gradient().as<float>()[last.gradient().numel() - 1] =
        std::numeric_limits<float>::quiet_NaN();
  StepReport report(*device, world());
  EXPECT_TRUE(std::isnan(exchange_norm(model, report, 1).gradient_norm));
  model.optimizer->update(1, 1e-2, report.decision());
  EXPECT_EQ(model.count_wrong(0, true), 0);
}

TEST(AdamW, MomentsCoverOnlyTheOwnedParts) {
  const std::unique_ptr<Device> device = make_cpu_device();
  SyntheticModel model(*device, world(), 1);
  std::int64_t numel = 0;
  for (const Bucket& bucket : model.store.buckets())
    if (bucket.kind == ParameterKind::trained)
      numel += 2 * MemoryLedger::rounded(bucket.part * size_of(DType::f32));
  EXPECT_EQ(device->memory().live(Purpose::optimizer), numel);
}

}  // namespace
}  // namespace switchyard::test
