// Gradients are formulas of (rank, element); the owned parts must hold their sums over the
// replicas, whatever the layout, the size of the buckets and the order of the reports.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "parallel/gradient_sync.hpp"
#include "tensor/error.hpp"
#include "tests/parallel/store_fixture.hpp"
#include "tests/support/recorded_group.hpp"
#include "tests/support/tested_device.hpp"

namespace switchyard {
namespace {

using test::SmallModel;
using test::world;

// Of the element `i` (flat global index) of a parameter, on a rank of the world. Small whole
// numbers: sums are exact.
float gradient_of(int world_rank, int parameter, std::int64_t i, int pass) {
  return static_cast<float>((world_rank + 1) * ((i * 3 + parameter * 7 + pass) % 101 - 50));
}

// The ranks that hold the same rows: all of them, or those of the same expert index.
float sum_over_replicas(const Mesh& mesh, const Parameter& parameter, std::int64_t i, int pass) {
  const bool is_expert = parameter.spec().replicas == Axis::expert_data;
  const int degree = is_expert ? mesh.degree(Axis::expert) : 1;
  float sum = 0;
  for (int p = is_expert ? mesh.index(Axis::expert) : 0; p < world().size(); p += degree)
    sum += gradient_of(p, parameter.index(), i, pass);
  return sum;
}

void add_gradients(ParameterStore& store, int pass) {
  for (const Parameter& parameter : store.parameters()) {
    if (parameter.gradient().empty()) continue;
    float* gradient = parameter.gradient().as<float>();
    for (std::int64_t i = 0; i < parameter.gradient().numel(); ++i)
      gradient[i] +=
          gradient_of(world().rank(), parameter.index(), parameter.global_index(i), pass);
  }
}

// passes: those whose gradients were added up before the reduction.
std::int64_t num_wrong_sums(const SmallModel& model, const std::vector<int>& passes) {
  std::int64_t wrong = 0;
  for (const OwnedRange& range : model.store.owned_ranges()) {
    const float* gradients = range.bucket->gradients->as<float>() + range.bucket_begin;
    for (std::int64_t i = 0; i < range.numel; ++i) {
      float wanted = 0;
      for (int pass : passes)
        wanted += sum_over_replicas(model.mesh, *range.parameter, range.global_index(i), pass);
      wrong += gradients[i] != wanted;
    }
  }
  return wrong;
}

// Orders in which a step may report its parameters; all ranks report alike.
std::vector<int> report_order(int kind, int num_parameters) {
  std::vector<int> order(static_cast<std::size_t>(num_parameters));
  std::iota(order.begin(), order.end(), 0);
  if (kind == 0) std::reverse(order.begin(), order.end());  // a backward pass
  if (kind == 2)
    std::sort(order.begin(), order.end(), [](int a, int b) { return (a * 5) % 13 < (b * 5) % 13; });
  return order;
}

class GradientSyncTest : public ::testing::Test {
 protected:
  std::unique_ptr<Device> device_ = test::make_tested_device();
};

TEST_F(GradientSyncTest, OwnedPartsHoldTheSums) {
  for (std::int64_t expert : test::expert_degrees()) {
    for (std::int64_t bucket_bytes : test::bucket_sizes) {
      SmallModel model(*device_, expert, bucket_bytes);
      GradientSync sync(model.store);
      const int num_parameters = static_cast<int>(model.store.parameters().size());
      for (int kind = 0; kind < 3; ++kind) {
        model.store.zero_gradients();
        add_gradients(model.store, kind);
        sync.arm();
        for (int i : report_order(kind, num_parameters)) {
          sync.ready(model.store.parameters()[static_cast<std::size_t>(i)]);
          sync.progress();
        }
        sync.finish();
        EXPECT_EQ(num_wrong_sums(model, {kind}), 0)
            << "expert " << expert << ", bucket bytes " << bucket_bytes << ", order " << kind;
      }
    }
  }
}

// Ranks report in different orders and at different moments: nobody may wait for ever, and the sums
// are the same.
TEST_F(GradientSyncTest, RanksThatReportDifferently) {
  for (std::int64_t expert : test::expert_degrees()) {
    SmallModel model(*device_, expert, 4);
    GradientSync sync(model.store);
    add_gradients(model.store, 0);
    sync.arm();
    const int num_parameters = static_cast<int>(model.store.parameters().size());
    for (int i : report_order(world().rank() % 3, num_parameters)) {
      if (i % 4 == world().rank()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      sync.ready(model.store.parameters()[static_cast<std::size_t>(i)]);
    }
    sync.finish();
    EXPECT_EQ(num_wrong_sums(model, {0}), 0) << "expert " << expert;
  }
}

// Exchanges take differently long on each rank and are looked at differently often: every rank
// starts what it shares with another in the same order, over all axes.
TEST_F(GradientSyncTest, TheOrderOfStartsDoesNotDependOnTime) {
  for (std::int64_t expert : test::expert_degrees()) {
    for (std::int64_t bucket_bytes : test::bucket_sizes) {
      for (std::uint64_t seed = 1; seed <= 5; ++seed) {
        test::StartLog log(seed * 100 + static_cast<std::uint64_t>(world().rank()));
        test::RecordedGroup ranks(world(), log);
        SmallModel model(*device_, expert, bucket_bytes, ranks);
        GradientSync sync(model.store);
        for (int pass = 0; pass < 2; ++pass) {
          model.store.zero_gradients();
          add_gradients(model.store, pass);
          sync.arm();
          for (int i : report_order(0, static_cast<int>(model.store.parameters().size()))) {
            sync.ready(model.store.parameters()[static_cast<std::size_t>(i)]);
            for (std::uint64_t polls = log.random() % 8; polls > 0; --polls) sync.progress();
          }
          sync.finish();
          EXPECT_EQ(num_wrong_sums(model, {pass}), 0);
          sync.gather_values();
        }
        EXPECT_EQ(test::difference_of_starts(log, world()), "")
            << "expert " << expert << ", bucket bytes " << bucket_bytes << ", seed " << seed;
      }
    }
  }
}

TEST_F(GradientSyncTest, AccumulationReducesOnceAtTheEnd) {
  SmallModel model(*device_, 1, 4000);
  GradientSync sync(model.store);
  device_->profile().reset();
  add_gradients(model.store, 0);
  for (const Parameter& parameter : model.store.parameters()) sync.ready(parameter);
  sync.progress();
  EXPECT_EQ(device_->profile().total_work().wire_bytes, 0);
  add_gradients(model.store, 1);
  sync.arm();
  for (const Parameter& parameter : model.store.parameters()) sync.ready(parameter);
  sync.finish();
  EXPECT_EQ(num_wrong_sums(model, {0, 1}), 0);
}

// A made-up update of the owned parts alone; after gathering, every replica has all of it.
TEST_F(GradientSyncTest, UpdatedValuesReachAllReplicas) {
  for (std::int64_t expert : test::expert_degrees()) {
    for (std::int64_t bucket_bytes : test::bucket_sizes) {
      SmallModel model(*device_, expert, bucket_bytes);
      GradientSync sync(model.store);
      for (const OwnedRange& range : model.store.owned_ranges())
        for (std::int64_t i = 0; i < range.numel; ++i)
          range.bucket->values->as<float>()[range.bucket_begin + i] =
              static_cast<float>(range.parameter->index() * 5000 + range.global_index(i));
      sync.gather_values();
      std::int64_t wrong = 0;
      for (const Parameter& parameter : model.store.parameters())
        for (std::int64_t i = 0; i < parameter.value().numel(); ++i)
          wrong += parameter.value().as<float>()[i] !=
                   static_cast<float>(parameter.index() * 5000 + parameter.global_index(i));
      EXPECT_EQ(wrong, 0) << "expert " << expert << ", bucket bytes " << bucket_bytes;
    }
  }
}

TEST_F(GradientSyncTest, StagingIsBoundedAndCounted) {
  const std::int64_t before = device_->memory().live(Purpose::communication);
  SmallModel model(*device_, 1, 4);
  const GradientSync sync(model.store);
  // Three buffers an axis for the largest bucket: 50 x 24 and 3 x 5 x 9 elements in parts.
  const std::int64_t size = world().size();
  const auto part = [size](std::int64_t numel) {
    return ((numel + size - 1) / size + 15) / 16 * 16;
  };
  const std::int64_t wanted = size == 1 ? 0 : 3 * (size - 1) * (part(1200) + part(135)) * 4;
  EXPECT_EQ(device_->memory().live(Purpose::communication) - before, wanted);
}

TEST_F(GradientSyncTest, StateIsNeitherReportedNorReduced) {
  const Mesh mesh(world(), {});
  ParameterStore store(*device_, mesh);
  Parameter& weight = store.add({.name = "weight", .global_shape = {8, 8}});
  Parameter& bias = store.add({.name = "bias", .global_shape = {8}, .kind = ParameterKind::state});
  store.allocate();
  GradientSync sync(store);
  sync.arm();
  EXPECT_THROW(sync.ready(bias), InternalError);
  sync.ready(weight);
  sync.finish();
  // Whoever changes state changes it on all replicas: gathering leaves each its own.
  bias.value().as<float>()[0] = static_cast<float>(world().rank());
  sync.gather_values();
  EXPECT_EQ(bias.value().as<float>()[0], static_cast<float>(world().rank()));
}

TEST_F(GradientSyncTest, AForgottenOrDoubledReportIsNamed) {
  SmallModel model(*device_, 1, 4000);
  GradientSync sync(model.store);
  EXPECT_THROW(sync.finish(), InternalError);
  sync.arm();
  EXPECT_THROW(sync.arm(), InternalError);
  const std::deque<Parameter>& parameters = model.store.parameters();
  for (std::size_t i = parameters.size(); i-- > 1;) sync.ready(parameters[i]);
  EXPECT_THROW(sync.ready(parameters[1]), InternalError);
  try {
    sync.finish();
    ADD_FAILURE() << "finish() without the report of parameter 0";
  } catch (const InternalError& error) {
    EXPECT_NE(std::string(error.what()).find("embedding.weight"), std::string::npos)
        << error.what();
  }
  sync.ready(parameters[0]);
  sync.finish();
}

}  // namespace
}  // namespace switchyard
