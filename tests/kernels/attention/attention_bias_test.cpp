// Attention with learned numbers by distance: outputs and every gradient against the reference,
// short and long sequences, keys in parts, any number of threads; and the buckets of T5.
#include "kernels/threads.hpp"
#include "tests/kernels/attention/attention_support.hpp"

namespace switchyard::kernels {
namespace {

using namespace switchyard::test;

// A case with a bias over 40 distances, which are of `parameters` parameters a head.
struct BiasCase : AttentionCase {
  static AttentionShape with_bias(AttentionShape s, const Tensor& values,
                                  const std::vector<std::int32_t>& of_distance) {
    s.bias = {.values = values, .parameters = of_distance, .num_parameters = 7};
    return s;
  }
  BiasCase(Device& device, const AttentionShape& s, Visible seen, DType type, const Tensor& values,
           const std::vector<std::int32_t>& of_distance)
      : AttentionCase(device, with_bias(s, values, of_distance), std::move(seen), type),
        dbias(random_tensor(device, DType::f32, {s.num_sequences * s.query_length, s.num_heads * 7},
                            "garbage")) {}
  void backward() {
    attention_delta(out, dout, shape.head_dim, delta);
    attention_backward(shape, q, k, v, ranges, lse, delta, dout,
                       {.dq = dq, .dk = dk, .dv = dv, .dbias = dbias}, workspace);
  }
  Tensor dbias;
};

class AttentionBiasTest : public ::testing::Test {
 protected:
  AttentionBiasTest() {
    for (std::int32_t d = 0; d < 40; ++d) of_distance_.push_back(d < 3 ? d : 3 + d / 10);
  }
  Tensor values(std::int64_t heads) {
    return random_tensor(*device_, DType::f32, {heads, 40}, "bias", 2.0f);
  }
  std::unique_ptr<Device> device_ = make_tested_device();
  std::vector<std::int32_t> of_distance_;
};

TEST_F(AttentionBiasTest, OutputsAndEveryGradientAgreeWithTheReference) {
  for (const DType type : {DType::f32, DType::bf16})
    for (const std::int64_t group : {1, 4}) {
      const AttentionShape s = shape_of(2, 300, 2 * group, 2, 16);
      const Tensor bias = values(s.num_heads);
      for (const Visible& visible : {causal(s), causal(s, 0, 50), documents(s, {70, 1, 90})}) {
        BiasCase c(*device_, s, visible, type, bias, of_distance_);
        c.forward();
        c.backward();
        const auto qs = doubles(c.q), ks = doubles(c.k), vs = doubles(c.v), ds = doubles(c.dout);
        const auto result = reference::attention_forward(c.shape, visible, qs, ks, vs);
        const auto gradient = reference::attention_backward(c.shape, visible, qs, ks, vs, ds);
        EXPECT_LT(relative_error(doubles(c.out), result.out), forward_tolerance(type));
        expect_lse(c.lse, result.lse);
        EXPECT_LT(relative_error(doubles(c.dq), gradient.dq), backward_tolerance(type));
        EXPECT_LT(relative_error(doubles(c.dk), gradient.dk), backward_tolerance(type));
        EXPECT_LT(relative_error(doubles(c.dv), gradient.dv), backward_tolerance(type));
        EXPECT_LT(relative_error(doubles(c.dbias), gradient.dbias), backward_tolerance(type));
      }
    }
}

// Several threads work on one kv head together.
TEST_F(AttentionBiasTest, LongSequencesAgreeWithTheReferenceOnAnyNumberOfThreads) {
  const AttentionShape s = shape_of(1, 2200, 2, 1, 8);
  const Tensor bias = values(2);
  std::vector<std::unique_ptr<BiasCase>> runs;
  for (const int threads : {1, 2, 5}) {
    kernels::set_num_threads(threads);
    BiasCase& c = *runs.emplace_back(
        std::make_unique<BiasCase>(*device_, s, causal(s), DType::f32, bias, of_distance_));
    c.forward();
    c.backward();
    EXPECT_TRUE(same_bits(runs.front()->dbias, c.dbias)) << threads;
    EXPECT_TRUE(same_bits(runs.front()->dq, c.dq)) << threads;
  }
  kernels::set_num_threads(2);
  const BiasCase& c = *runs.front();
  const auto gradient = reference::attention_backward(c.shape, c.visible, doubles(c.q),
                                                      doubles(c.k), doubles(c.v), doubles(c.dout));
  EXPECT_LT(relative_error(doubles(c.dbias), gradient.dbias), backward_tolerance(DType::f32));
  EXPECT_LT(relative_error(doubles(c.dk), gradient.dk), backward_tolerance(DType::f32));
}

// As its function for decoders has them: 32 buckets, 16 for one distance each, the rest up to 128.
TEST(DistanceBuckets, AreThoseOfT5) {
  const std::vector<std::int32_t> buckets = distance_buckets(32, 128);
  ASSERT_EQ(buckets.size(), 129U);
  for (std::int32_t d = 0; d < 16; ++d) EXPECT_EQ(buckets[static_cast<std::size_t>(d)], d);
  // The first distance of each wider bucket: 16 e^{i ln(8) / 16}, rounded up.
  const std::vector<std::size_t> first = {16, 19, 21, 24, 27, 31, 35, 40,
                                          46, 52, 59, 67, 77, 87, 99, 113};
  for (std::size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(buckets[first[i]], 16 + static_cast<std::int32_t>(i)) << first[i];
    EXPECT_EQ(buckets[first[i] - 1], 15 + static_cast<std::int32_t>(i)) << first[i];
  }
  EXPECT_EQ(buckets.back(), 31);
}

}  // namespace
}  // namespace switchyard::kernels
