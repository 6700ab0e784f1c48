// The arithmetic of a mesh and every text of its errors.
#include <gtest/gtest.h>

#include "parallel/mesh.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

std::string error_of(const ParallelConfig& config, std::int64_t num_ranks) {
  try {
    Mesh::resolved(config, num_ranks);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(MeshConfigTest, DataZeroTakesTheRanksThatAreLeft) {
  EXPECT_EQ(Mesh::resolved({.data = 0, .expert = 2}, 6).data, 6);
  EXPECT_EQ(Mesh::resolved({.data = 6, .expert = 3}, 6).expert, 3);
  EXPECT_EQ(Mesh::resolved({}, 1).data, 1);
}

TEST(MeshConfigTest, TheEquationIsShownWithItsNumbers) {
  EXPECT_EQ(
      error_of({.data = 3}, 4),
      "parallel.data: pipeline 1 x data 3 x context 1 = 3, but the job has 4 ranks; data may be 4 "
      "(or 0: the ranks that are left)");
  EXPECT_EQ(
      error_of({.data = 2}, 1),
      "parallel.data: pipeline 1 x data 2 x context 1 = 2, but the job has 1 rank; data may be 1 "
      "(or 0: the ranks that are left)");
}

TEST(MeshConfigTest, ExpertMustDivideTheRanks) {
  EXPECT_EQ(
      error_of({.data = 4, .expert = 3}, 4),
      "parallel.expert: 3 does not divide data 4 x context 1 = 4 ranks; expert may be 1, 2 or "
      "4");
  EXPECT_EQ(
      error_of({.expert = 8}, 4),
      "parallel.expert: 8 does not divide data 4 x context 1 = 4 ranks; expert may be 1, 2 or "
      "4");
  EXPECT_EQ(error_of({.expert = 2}, 1),
            "parallel.expert: 2 does not divide data 1 x context 1 = 1 rank; expert may be 1");
  EXPECT_EQ(
      error_of({.expert = 2}, 3),
      "parallel.expert: 2 does not divide data 3 x context 1 = 3 ranks; expert may be 1 or 3");
}

TEST(MeshConfigTest, ValuesThatNoJobMakesRightAreNamedTogether) {
  EXPECT_EQ(
      error_of({.data = -1}, 4),
      "parallel.data: -1 is negative; it must be at least 1, or 0 for the ranks that are left");
  EXPECT_EQ(error_of({.context = 0, .expert = 0, .bucket_megabytes = 0}, 4),
            "parallel.context: 0 must be at least 1\n"
            "parallel.expert: 0 must be at least 1\n"
            "parallel.bucket_megabytes: 0 must be at least 1");
  EXPECT_EQ(error_of({.expert = -2}, 4), "parallel.expert: -2 must be at least 1");
}

ParallelConfig with_context(std::int64_t context, std::int64_t ring, std::int64_t ulysses) {
  return {.context = context, .context_split = {.ring = ring, .ulysses = ulysses}};
}

TEST(MeshConfigTest, ContextIsARingUnlessToldOtherwise) {
  const ParallelConfig plain = Mesh::resolved(with_context(4, 0, 0), 8);
  EXPECT_EQ(plain.data, 2);
  EXPECT_EQ(plain.context_split.ring, 4);
  EXPECT_EQ(plain.context_split.ulysses, 1);
  EXPECT_EQ(Mesh::resolved(with_context(4, 0, 2), 8).context_split.ring, 2);
  EXPECT_EQ(Mesh::resolved(with_context(4, 1, 0), 8).context_split.ulysses, 4);
  const ParallelConfig product = Mesh::resolved(with_context(1, 2, 3), 12);
  EXPECT_EQ(product.context, 6);
  EXPECT_EQ(product.data, 2);
  EXPECT_EQ(Mesh::resolved(product, 12).context, 6);
}

TEST(MeshConfigTest, ExpertsFoldOverDataAndContext) {
  ParallelConfig config = with_context(4, 2, 2);
  config.expert = 8;
  EXPECT_EQ(Mesh::resolved(config, 8).data, 2);
  config.expert = 3;
  EXPECT_EQ(error_of(config, 8),
            "parallel.expert: 3 does not divide data 2 x context 4 (ring 2 x ulysses 2) = 8 ranks; "
            "expert may be 1, 2, 4 or 8");
}

TEST(MeshConfigTest, AContextThatDoesNotFitShowsTheEquation) {
  EXPECT_EQ(error_of(with_context(3, 0, 0), 4),
            "parallel.context: pipeline 1 x data x context 3 (ring 3 x ulysses 1) = ranks has no "
            "solution: "
            "the job has 4 ranks; context may be 1, 2 or 4");
  ParallelConfig config = with_context(2, 0, 0);
  config.data = 3;
  EXPECT_EQ(
      error_of(config, 4),
      "parallel.data: pipeline 1 x data 3 x context 2 (ring 2 x ulysses 1) = 6, but the job has 4 "
      "ranks; data may be 2 (or 0: the ranks that are left)");
  EXPECT_EQ(error_of(with_context(4, 3, 0), 4),
            "parallel.context: ring 3 x ulysses 1 = 3, but context is 4; ring and ulysses may be "
            "1, 2 or 4, with that product");
}

TEST(MeshConfigTest, EveryNumberOfTheSplitIsChecked) {
  ParallelConfig config;
  config.context_split = {.ring = -1, .rank_flops = 0, .link_bytes = -1};
  EXPECT_EQ(error_of(config, 1),
            "parallel.context.ring: -1 is negative; it must be at least 1, or 0 for what the other "
            "leaves\n"
            "parallel.context.rank_flops: it must be above 0\n"
            "parallel.context.link_bytes: it must be above 0");
}

}  // namespace
}  // namespace switchyard
