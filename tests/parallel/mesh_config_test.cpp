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
  EXPECT_EQ(error_of({.data = 3}, 4),
            "parallel: pipeline 1 x data 3 x context 1 = 3, but the job has 4 ranks; data may be 4 "
            "(or 0: the ranks that are left)");
  EXPECT_EQ(error_of({.data = 2}, 1),
            "parallel: pipeline 1 x data 2 x context 1 = 2, but the job has 1 rank; data may be 1 "
            "(or 0: the ranks that are left)");
}

TEST(MeshConfigTest, ExpertMustDivideTheRanks) {
  EXPECT_EQ(
      error_of({.data = 4, .expert = 3}, 4),
      "parallel: expert 3 does not divide data 4 x context 1 = 4 ranks; expert may be 1, 2 or "
      "4");
  EXPECT_EQ(
      error_of({.expert = 8}, 4),
      "parallel: expert 8 does not divide data 4 x context 1 = 4 ranks; expert may be 1, 2 or "
      "4");
  EXPECT_EQ(error_of({.expert = 2}, 1),
            "parallel: expert 2 does not divide data 1 x context 1 = 1 rank; expert may be 1");
  EXPECT_EQ(
      error_of({.expert = 2}, 3),
      "parallel: expert 2 does not divide data 3 x context 1 = 3 ranks; expert may be 1 or 3");
}

TEST(MeshConfigTest, ValuesThatNoJobMakesRightAreNamedTogether) {
  EXPECT_EQ(
      error_of({.data = -1}, 4),
      "parallel.data: -1 is negative; it must be at least 1, or 0 for the ranks that are left");
  EXPECT_EQ(error_of({.context = 2}, 4),
            "parallel.context: a sequence cannot be split over 2 ranks; context must be 1");
  EXPECT_EQ(error_of({.context = 0, .expert = 0, .bucket_megabytes = 0}, 4),
            "parallel.context: a sequence cannot be split over 0 ranks; context must be 1\n"
            "parallel.expert: 0 must be at least 1\n"
            "parallel.bucket_megabytes: 0 must be at least 1");
  EXPECT_EQ(error_of({.expert = -2}, 4), "parallel.expert: -2 must be at least 1");
}

}  // namespace
}  // namespace switchyard
