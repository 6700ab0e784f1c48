#include "trainer/checkpoint/inspect.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <sstream>

#include "tensor/error.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/trainer/synthetic_model.hpp"
#include "trainer/checkpoint/reader.hpp"
#include "trainer/checkpoint/weights_writer.hpp"

namespace switchyard::test {
namespace {

class CheckpointInspect : public ::testing::Test {
 protected:
  CheckpointInspect()
      : folder_(world()), device_(make_cpu_device()), model_(*device_, world(), world().size()) {}

  std::string save(std::int64_t step, int what) {
    model_.fill(what);
    return save_current(step);
  }
  std::string save_current(std::int64_t step) {
    return save_checkpoint({.folder = folder_ / "checkpoints",
                            .state = {.step = step},
                            .configuration = "model:\n  hidden: 24\n",
                            .keep = 9},
                           model_.store, *model_.optimizer, world(), nullptr)
        .path;
  }

  TemporaryFolder folder_;
  std::unique_ptr<Device> device_;
  SyntheticModel model_;
};

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(CheckpointInspect, ShowTellsStateTensorsNormsAndConfiguration) {
  save(7, 0);
  double sum = 0;
  for (std::int64_t i = 0; i < 23; ++i) sum += std::pow(double{formula(0, 1, i)}, 2);
  std::ostringstream out;
  show_checkpoint(folder_.path(), out);  // the run's folder stands for its newest checkpoint
  std::ostringstream norm;
  norm.precision(5);
  norm << std::sqrt(sum);
  for (const std::string& part :
       {std::string("step 7"), std::string("[1031, 300]"), std::string("[5, 14, 9]"),
        std::string("  hidden: 24"), norm.str(), "expert " + std::to_string(world().size())})
    EXPECT_TRUE(holds(out.str(), part)) << part << " in\n" << out.str();
}

TEST_F(CheckpointInspect, VerifyNamesTheDamagedFile) {
  const std::string path = save(7, 0);
  std::ostringstream out;
  verify_checkpoint(path, world(), out);
  EXPECT_TRUE(holds(out.str(), "sound"));
  world().barrier();
  const std::string file = path + "/rank-00000.h5";
  if (world().rank() == 0) {
    std::string text = contents_of(file);
    text[text.size() / 2] ^= 1;
    write_contents(file, text);
  }
  world().barrier();
  try {
    verify_checkpoint(path, world(), out);
    FAIL() << "a flipped bit";
  } catch (const CheckpointError& error) {
    EXPECT_TRUE(holds(error.what(), file)) << error.what();
    EXPECT_TRUE(holds(error.what(), "hash")) << error.what();
  }
}

TEST_F(CheckpointInspect, DiffFindsTheOneElement) {
  const std::string first = save(7, 0);
  if (world().rank() == 0) {
    std::ostringstream same;
    EXPECT_TRUE(diff_checkpoints(first, first, same));
    EXPECT_TRUE(holds(same.str(), "equal"));
  }
  // One element of the tensor that all ranks hold, on all of them.
  float* norm = model_.store.parameters()[1].value().as<float>();
  norm[4] += 0.5f;
  const std::string second = save_current(8);
  std::ostringstream out;
  EXPECT_FALSE(diff_checkpoints(first, second, out));
  EXPECT_TRUE(holds(out.str(), "step: 7 and 8")) << out.str();
  EXPECT_TRUE(holds(out.str(),
                    "parameters/layers.0.norm.weight: 1 of 23 elements differ, by at "
                    "most 0.5"))
      << out.str();
  EXPECT_FALSE(holds(out.str(), "embedding")) << out.str();
}

// Where a tensor lies, on which ranks and in which runs, is not in it; every element and moment is.
TEST_F(CheckpointInspect, TheDigestIsOfTheGlobalState) {
  const std::string digest = digest_of_checkpoint(save(7, 0));
  EXPECT_EQ(digest.size(), 16u);
  const std::unique_ptr<Group> alone = make_local_group("alone");
  SyntheticModel other(*device_, *alone, 1);
  other.fill(0);
  int num_saved = 0;
  const auto digest_of_other = [&](std::int64_t step) {
    const std::string folder =
        (folder_ / "alone-") + std::to_string(world().rank()) + "-" + std::to_string(num_saved++);
    return digest_of_checkpoint(
        save_checkpoint({.folder = folder, .state = {.step = step, .max_rows = 99}, .keep = 1},
                        other.store, *other.optimizer, *alone, nullptr)
            .path);
  };
  EXPECT_EQ(digest_of_other(7), digest);
  EXPECT_NE(digest_of_other(8), digest);
  other.store.parameters()[1].value().as<float>()[22] += 0.5f;
  EXPECT_NE(digest_of_other(7), digest);
}

// Weights that came piece by piece, into several files: whoever reads them finds the elements, and
// where they lie.
TEST_F(CheckpointInspect, WrittenPieceByPiece) {
  if (world().rank() != 0) return;
  constexpr std::int64_t least_file_bytes = 3 << 20;
  const std::vector<std::int64_t> sizes = {700'000, 5, 300'000, 1'000'000, 1};
  std::vector<SavedTensor> tensors;
  for (const std::int64_t numel : sizes)
    tensors.push_back({"t" + std::to_string(tensors.size()), {numel}, ParameterKind::trained, {}});
  WeightsWriter writer({.folder = folder_ / "pieces"}, tensors, least_file_bytes);
  const auto element = [](std::int64_t tensor, std::int64_t i) {
    return static_cast<float>(i % 1'000'003) + 0.25f * static_cast<float>(tensor);
  };
  std::vector<float> values;
  for (std::int64_t t = 0; t < std::ssize(sizes); ++t)
    for (std::int64_t at = 0, size = sizes[static_cast<std::size_t>(t)]; at < size;
         at += std::ssize(values)) {
      values.resize(static_cast<std::size_t>(std::min<std::int64_t>(size - at, 290'000)));
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = element(t, at + static_cast<std::int64_t>(i));
      writer.write(values, WeightsWriter::checksums_of(size, at, values));
    }
  const std::string path = writer.finish().path;
  std::ostringstream out;
  verify_checkpoint(path, *make_local_group("world"), out);
  CheckpointReader reader(path);
  EXPECT_EQ(reader.manifest().num_ranks, 3);
  for (std::int64_t t = 0; t < std::ssize(sizes); ++t) {
    const SavedTensor& tensor = reader.manifest().tensors[static_cast<std::size_t>(t)];
    const std::int64_t begin = tensor.shape.numel() / 3, numel = tensor.shape.numel() - begin;
    std::vector<float> read(static_cast<std::size_t>(numel)), stored(read.size()), wanted;
    for (std::int64_t i = 0; i < numel; ++i) wanted.push_back(element(t, begin + i));
    reader.read(SavedPart::value, tensor, begin, read);
    std::int64_t next = 0;
    for (const StoredRun& run : reader.stored_runs(SavedPart::value, tensor, begin, numel)) {
      EXPECT_EQ(run.begin, next);
      next += run.numel;
      run.read(0, std::span(stored).subspan(static_cast<std::size_t>(run.begin),
                                            static_cast<std::size_t>(run.numel)));
    }
    EXPECT_EQ(next, numel);
    EXPECT_EQ(read, wanted) << tensor.name;
    EXPECT_EQ(stored, wanted) << tensor.name;
  }
}

TEST_F(CheckpointInspect, NoCheckpointIsAnErrorWithAHint) {
  EXPECT_THROW(resolve_checkpoint(folder_.path()), CheckpointError);
  EXPECT_THROW(resolve_checkpoint(folder_ / "absent"), CheckpointError);
}

}  // namespace
}  // namespace switchyard::test
