// Buckets, initial values and ownership of parameters on every layout.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "tensor/error.hpp"
#include "tests/parallel/store_fixture.hpp"

namespace switchyard {
namespace {

using test::SmallModel;
using test::world;

class ParameterTest : public ::testing::Test {
 protected:
  std::unique_ptr<Device> device_ = make_cpu_device();
  std::unique_ptr<Device> plan_ = make_plan_device();
};

std::size_t index(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

void check_bucket(const Bucket& bucket, std::int64_t bucket_bytes) {
  EXPECT_EQ(bucket.part % 16, 0);
  EXPECT_EQ(bucket.numel, bucket.part * bucket.replicas->size());
  EXPECT_LE(bucket.entries.back().end, bucket.numel);
  EXPECT_LT(bucket.numel - bucket.entries.back().end, 16 * bucket.replicas->size());
  EXPECT_TRUE(bucket.entries.size() == 1 || bucket.entries.back().end * 4 <= bucket_bytes);
  std::int64_t end = 0;
  for (const BucketEntry& entry : bucket.entries) {
    const Parameter& parameter = *entry.parameter;
    EXPECT_EQ(entry.begin, (end + 15) / 16 * 16);  // the next cache line
    end = entry.end;
    EXPECT_EQ(parameter.spec().replicas, bucket.axis);
    EXPECT_EQ(parameter.value().shape, parameter.local_shape());
    EXPECT_EQ(parameter.value().numel(), entry.end - entry.begin);
    EXPECT_EQ(parameter.value().data, bucket.values->data + entry.begin * 4);
    EXPECT_EQ(parameter.gradient().data, bucket.gradients->data + entry.begin * 4);
  }
}

TEST_F(ParameterTest, BucketsHoldEveryParameterOnceInBackwardOrder) {
  for (std::int64_t expert : test::expert_degrees()) {
    for (std::int64_t bucket_bytes : test::bucket_sizes) {
      const SmallModel model(*device_, expert, bucket_bytes);
      std::map<Axis, int> previous;  // index of the parameter before, by axis
      std::vector<int> times(model.store.parameters().size(), 0);
      for (const Bucket& bucket : model.store.buckets()) {
        check_bucket(bucket, bucket_bytes);
        for (const BucketEntry& entry : bucket.entries) {
          const int at = entry.parameter->index();
          ++times[index(at)];
          if (previous.contains(bucket.axis)) {
            EXPECT_LT(at, previous[bucket.axis]);
          }
          previous[bucket.axis] = at;
        }
      }
      EXPECT_EQ(times, std::vector<int>(times.size(), 1));
      if (bucket_bytes == test::bucket_sizes[0]) {
        EXPECT_EQ(model.store.buckets().size(), 2u);
      }
      const bool has_experts = !model.store.parameters()[3].value().empty();
      if (bucket_bytes == test::bucket_sizes[2] && has_experts) {
        EXPECT_EQ(model.store.buckets().size(), times.size());
      }
    }
  }
}

TEST_F(ParameterTest, MemoryIsCountedByPurpose) {
  const SmallModel model(*device_, 1, 4000);
  std::int64_t bytes = 0;
  for (const Bucket& bucket : model.store.buckets()) bytes += bucket.numel * 4;
  EXPECT_EQ(device_->memory().live(Purpose::parameter), bytes);
  EXPECT_EQ(device_->memory().live(Purpose::gradient), bytes);
  EXPECT_EQ(device_->memory().live_total(), 2 * bytes);
}

// The whole model on one rank, to compare with.
TEST_F(ParameterTest, InitialValuesAreTheSameOnEveryLayout) {
  const std::unique_ptr<Group> alone = make_plan_group("world", 0, 1, *plan_);
  const Mesh one_rank(*alone, {});
  ParameterStore whole(*device_, one_rank);
  for (const ParameterSpec& spec : test::small_model(one_rank)) whole.add(spec);
  whole.allocate();
  whole.initialize(42);
  for (std::int64_t expert : test::expert_degrees()) {
    SmallModel model(*device_, expert, 4000);
    model.store.initialize(42);
    for (const Parameter& parameter : model.store.parameters()) {
      const Parameter& reference = whole.parameters()[index(parameter.index())];
      ASSERT_EQ(parameter.name(), reference.name());
      std::int64_t wrong = 0;
      for (std::int64_t i = 0; i < parameter.value().numel(); ++i)
        wrong +=
            std::bit_cast<std::uint32_t>(parameter.value().as<float>()[i]) !=
            std::bit_cast<std::uint32_t>(reference.value().as<float>()[parameter.global_index(i)]);
      EXPECT_EQ(wrong, 0) << parameter.name() << " with expert " << expert;
    }
    for (const Bucket& bucket : model.store.buckets())
      for (std::int64_t i = bucket.entries.back().end; i < bucket.numel; ++i)
        ASSERT_EQ(bucket.values->as<float>()[i], 0.0f);
  }
}

TEST_F(ParameterTest, InitialValuesFollowSeedNameAndDistribution) {
  SmallModel model(*device_, 1, 4000);
  SmallModel other(*device_, 1, 4000);
  SmallModel same(*device_, 1, 1 << 20);
  model.store.initialize(1);
  other.store.initialize(2);
  same.store.initialize(1);
  const auto value = [](const SmallModel& from, std::size_t i) {
    const TensorView& view = from.store.parameters()[i].value();
    return std::vector<float>(view.as<float>(), view.as<float>() + view.numel());
  };
  EXPECT_EQ(value(model, 0), value(same, 0));
  EXPECT_NE(value(model, 0), value(other, 0));
  EXPECT_NE(value(model, 2), value(model, 6));  // two layers, one shape
  EXPECT_EQ(value(model, 1), std::vector<float>(23, 1.0f));
  EXPECT_EQ(value(model, 4), std::vector<float>(11, 0.0f));
  double sum = 0;
  double squares = 0;
  const std::vector<float> embedding = value(model, 0);  // 1200 elements, std 0.02
  for (float x : embedding) {
    sum += x;
    squares += static_cast<double>(x) * x;
  }
  const double n = static_cast<double>(embedding.size());
  EXPECT_LT(std::abs(sum / n), 4 * 0.02 / std::sqrt(n));
  EXPECT_NEAR(std::sqrt(squares / n), 0.02, 4 * 0.02 / std::sqrt(2 * n));
}

// All ranks count the elements they own: every one of the model must be counted once.
TEST_F(ParameterTest, OwnedRangesTileEveryGlobalTensorOnce) {
  for (std::int64_t expert : test::expert_degrees()) {
    for (std::int64_t bucket_bytes : test::bucket_sizes) {
      const SmallModel model(*device_, expert, bucket_bytes);
      std::vector<std::vector<std::int32_t>> owners;
      for (const Parameter& parameter : model.store.parameters())
        owners.emplace_back(index(parameter.spec().global_shape.numel()), 0);
      for (const OwnedRange& range : model.store.owned_ranges()) {
        EXPECT_GT(range.numel, 0);
        EXPECT_GE(range.bucket_begin, range.bucket->owned_begin());
        EXPECT_LE(range.bucket_begin + range.numel, range.bucket->owned_end());
        for (std::int64_t i = 0; i < range.numel; ++i)
          ++owners[index(range.parameter->index())][index(range.global_index(i))];
      }
      std::int64_t numel = 0;
      for (std::vector<std::int32_t>& counts : owners) {
        numel += static_cast<std::int64_t>(counts.size());
        world().all_reduce(
            view_of(*device_, counts.data(), {static_cast<std::int64_t>(counts.size())}),
            ReduceOp::sum);
        EXPECT_EQ(counts, std::vector<std::int32_t>(counts.size(), 1));
      }
      EXPECT_EQ(numel, model.store.num_global_elements());
    }
  }
}

// What a range calls its place in the global tensor is where the value lies.
TEST_F(ParameterTest, OwnedRangesPointAtTheirValues) {
  for (std::int64_t expert : test::expert_degrees()) {
    SmallModel model(*device_, expert, 4000);
    for (const Parameter& parameter : model.store.parameters()) {
      for (std::int64_t i = 0; i < parameter.value().numel(); ++i)
        parameter.value().as<float>()[i] =
            static_cast<float>(parameter.index() * 10000 + parameter.global_index(i));
    }
    for (const OwnedRange& range : model.store.owned_ranges())
      for (std::int64_t i = 0; i < range.numel; ++i)
        ASSERT_EQ(range.bucket->values->as<float>()[range.bucket_begin + i],
                  static_cast<float>(range.parameter->index() * 10000 + range.global_index(i)));
  }
}

// Buckets that end at layers hold parameters of one layer each; otherwise they go on.
TEST_F(ParameterTest, BucketsEndAtLayersIfAsked) {
  const Mesh mesh(world(), {});
  for (const BucketEnd end : {BucketEnd::anywhere, BucketEnd::layer}) {
    ParameterStore store(*device_, mesh);
    for (int layer = 0; layer < 3; ++layer) {
      EXPECT_EQ(store.begin_layer(), layer);
      for (const char* name : {".a", ".b"})
        EXPECT_EQ(store.add({.name = std::to_string(layer) + name, .global_shape = {8, 8}}).layer(),
                  layer);
    }
    EXPECT_EQ(store.num_layers(), 3);
    store.allocate(1 << 20, end);
    ASSERT_EQ(store.buckets().size(), end == BucketEnd::layer ? 3u : 1u);
    for (const Bucket& bucket : store.buckets())
      if (end == BucketEnd::layer) {
        EXPECT_EQ(bucket.entries.front().parameter->layer(),
                  bucket.entries.back().parameter->layer());
      }
  }
}

// State has values, in a bucket of its own; what only training needs it has not.
TEST_F(ParameterTest, StateHasValuesAlone) {
  const Mesh mesh(world(), {});
  ParameterStore store(*device_, mesh);
  Parameter& weight = store.add({.name = "weight", .global_shape = {8, 8}});
  Parameter& bias = store.add({.name = "bias",
                               .global_shape = {8},
                               .kind = ParameterKind::state,
                               .initial = Initial::ones});
  store.allocate();
  store.initialize(1);
  ASSERT_EQ(store.buckets().size(), 2u);
  EXPECT_EQ(device_->memory().live(Purpose::state), store.buckets()[0].numel * size_of(DType::f32));
  EXPECT_EQ(device_->memory().live(Purpose::parameter), device_->memory().live(Purpose::gradient));
  EXPECT_TRUE(bias.gradient().empty());
  EXPECT_EQ(bias.value().as<float>()[7], 1.0f);
  EXPECT_FALSE(weight.gradient().empty());
  store.zero_gradients();
  EXPECT_EQ(store.num_global_elements(), 64);
  EXPECT_EQ(store.num_global_elements(ParameterKind::state), 8);
}

TEST_F(ParameterTest, ZeroGradientsClearsEverything) {
  SmallModel model(*device_, 1, 4000);
  for (Bucket& bucket : model.store.buckets())
    for (float& x : bucket.gradients->span<float>()) x = 3.0f;
  model.store.zero_gradients();
  for (const Bucket& bucket : model.store.buckets())
    for (float x : bucket.gradients->span<float>()) ASSERT_EQ(x, 0.0f);
}

TEST_F(ParameterTest, MistakesAreRefused) {
  const Mesh mesh(world(), {});
  ParameterStore store(*device_, mesh);
  store.add({.name = "a", .global_shape = {4}});
  EXPECT_THROW(store.add({.name = "a", .global_shape = {4}}), InternalError);
  EXPECT_THROW(store.add({.name = "b", .global_shape = {4}, .slice = Slice(0, {{2, 5}})}),
               InternalError);
  EXPECT_THROW(store.initialize(1), InternalError);
  EXPECT_THROW(store.begin_layer(), InternalError);
  store.allocate();
  EXPECT_THROW(store.add({.name = "c", .global_shape = {4}}), InternalError);
  EXPECT_THROW(store.allocate(), InternalError);
}

}  // namespace
}  // namespace switchyard
