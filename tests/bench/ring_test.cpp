// The shared sequence of bench ring: bytes by the documented formula, shares of what was measured,
// and refusals before anything is.
#include <gtest/gtest.h>

#include "bench/ring.hpp"
#include "tensor/error.hpp"
#include "tests/bench/printed.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {
namespace {

using Json = nlohmann::json;

// 192 positions divide over 1, 2, 3 and 4 ranks in any layout.
const bench::RingOptions small{.precisions = {DType::f32},
                               .lengths = {192, 384},
                               .num_heads = 4,
                               .num_kv_heads = 2,
                               .head_dim = 16};

Json json_of(const bench::RingOptions& options) {
  const std::string text =
      printed([&](const bench::Repeats& repeats,
                  const bench::Output& output) { run_ring(world(), options, repeats, output); },
              true);
  return world().rank() == 0 ? Json::parse(text) : Json();
}

TEST(Ring, RowsOfEachLengthAndDirection) {
  const Json json = json_of(small);
  if (world().rank() != 0) return;
  EXPECT_EQ(json.at("benchmark"), "ring");
  ASSERT_EQ(json.at("rows").size(), 4u);
  const int ranks = world().size();
  for (std::size_t i = 0; i < 4; ++i) {
    const Json& row = json.at("rows")[i];
    const double length = i < 2 ? 192 : 384;
    const bool backward = i % 2 == 1;
    EXPECT_EQ(row.at("length"), length);
    EXPECT_EQ(row.at("operation"), backward ? "backward" : "forward");
    const double n = length / ranks;
    const double block = n * 2 * 2 * 16 * 4;  // keys and values, fp32 like their gradients
    EXPECT_DOUBLE_EQ(row.at("wire_bytes").get<double>(), block * (ranks - 1) * (backward ? 2 : 1));
    const double flops = length * (length + 1) / 2 * 4 * 16 * (backward ? 8 : 4);
    EXPECT_NEAR(row.at("flops_per_second").get<double>() * row.at("median_seconds").get<double>(),
                flops, 1e-9 * flops);
    EXPECT_NEAR(row.at("one_rank_share").get<double>(),
                row.at("flops_per_second").get<double>() /
                    row.at("one_rank_flops_per_second").get<double>(),
                1e-12);
    EXPECT_GT(row.at("alone_share"), 0);
    EXPECT_GE(row.at("wait_seconds"), 0);
    EXPECT_EQ(row.at("length_to_hide").is_null(), ranks == 1);
  }
  EXPECT_EQ(json.contains("link_bytes_per_second"), ranks > 1);
}

TEST(Ring, EverySchemeRuns) {
  bench::RingOptions options = small;
  options.lengths = {192};
  options.window = 30;
  json_of(options);
  options.window = 0;
  options.method = ContextMethod::all_gather;
  options.layout = SequenceLayout::contiguous;
  json_of(options);
  options.exact = true;
  json_of(options);
  options.exact = false;
  options.method = ContextMethod::ring;
  options.progress = Progress::thread;
  json_of(options);
  if (world().size() % 2 != 0) return;
  options.ulysses = 2;
  const Json json = json_of(options);
  if (world().rank() != 0) return;
  EXPECT_EQ(json.at("scheme"), "ring " + std::to_string(world().size() / 2) +
                                   " x ulysses 2, contiguous, progress by thread");
}

TEST(Ring, WhatCannotBeSharedIsRefusedFirst) {
  if (world().size() == 1) return;
  bench::RingOptions options = small;
  options.ulysses = world().size();
  options.num_heads = options.num_kv_heads = 1;
  EXPECT_THROW(json_of(options), ConfigError);
  options = small;
  options.lengths = {192, 191};
  EXPECT_THROW(json_of(options), ConfigError);
}

}  // namespace
}  // namespace switchyard::test
