// What any layout wrote, any layout loads: worlds of 1 to 4 ranks within this job's 4.
#include <gtest/gtest.h>

#include <algorithm>

#include "data/hdf5/hdf5.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/tested_device.hpp"
#include "tests/trainer/synthetic_model.hpp"
#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/checkpoint/reader.hpp"

namespace switchyard::test {
namespace {

struct Layout {
  int num_ranks;
  std::int64_t expert;
};

std::vector<Layout> all_layouts() {
  std::vector<Layout> layouts;
  for (int num_ranks = 1; num_ranks <= world().size(); ++num_ranks)
    for (const std::int64_t expert : expert_degrees(num_ranks))
      layouts.push_back({num_ranks, expert});
  return layouts;
}

// The first `num_ranks` ranks as a world of their own; the rest get a group that they do not use.
std::unique_ptr<Group> sub_world(int num_ranks) {
  std::vector<std::vector<int>> partition(1);
  for (int rank = 0; rank < num_ranks; ++rank) partition[0].push_back(rank);
  if (num_ranks < world().size()) partition.emplace_back();
  for (int rank = num_ranks; rank < world().size(); ++rank) partition[1].push_back(rank);
  return world().subgroup("part of the world", partition);
}

const TrainState state_of_save{.step = 7, .num_tokens = 70000, .data_position = 56, .max_rows = 99};
constexpr int what = 5;  // of the contents saved

TEST(CheckpointLayout, AnyLayoutLoadsWhatAnyOtherWrote) {
  const std::unique_ptr<Device> device = make_tested_device();
  for (const Layout& writer : all_layouts()) {
    const TemporaryFolder folder(world());
    const std::string path = folder / "step-00000007";
    const std::unique_ptr<Group> writers = sub_world(writer.num_ranks);
    if (world().rank() < writer.num_ranks) {
      SyntheticModel model(*device, *writers, writer.expert);
      model.fill(what);
      const SaveResult result = save_checkpoint(
          {.folder = folder.path(), .state = state_of_save, .configuration = "seed: 1\n"},
          model.store, *model.optimizer, *writers, nullptr);
      EXPECT_EQ(result.path, path);
    }
    world().barrier();
    for (const Layout& reader : all_layouts()) {
      const std::unique_ptr<Group> readers = sub_world(reader.num_ranks);
      if (world().rank() >= reader.num_ranks) continue;
      SyntheticModel model(*device, *readers, reader.expert);
      const auto found = find_newest_valid(folder.path(), *readers, nullptr);
      ASSERT_EQ(found, path);
      EXPECT_EQ(load_checkpoint(*found, model.store, &*model.optimizer, *readers), state_of_save);
      EXPECT_EQ(model.count_wrong(what, true), 0)
          << writer.num_ranks << " ranks, expert " << writer.expert << " -> " << reader.num_ranks
          << " ranks, expert " << reader.expert;
    }
  }
}

TEST(CheckpointLayout, ValuesAloneLeaveTheMomentsAsTheyAre) {
  const std::unique_ptr<Device> device = make_tested_device();
  const TemporaryFolder folder(world());
  SyntheticModel model(*device, world(), 2);
  model.fill(what);
  const SaveResult saved = save_checkpoint({.folder = folder.path(), .state = state_of_save},
                                           model.store, *model.optimizer, world(), nullptr);
  SyntheticModel other(*device, world(), 1);
  other.fill(what + 50);
  load_checkpoint(saved.path, other.store, nullptr, world());
  EXPECT_EQ(other.count_wrong(what, false), 0);
  for (const OwnedRange& range : other.store.owned_ranges())
    if (range.parameter->is_trained()) {
      EXPECT_EQ(other.optimizer->moment1(range).as<float>()[0],
                formula(what + 51, range.parameter->index(), range.global_index(0)));
    }
}

// checkpoint.h5 is what other programs read: every tensor whole, under its name and global shape.
TEST(CheckpointLayout, VirtualDatasetsShowEveryTensorWhole) {
  const std::unique_ptr<Device> device = make_tested_device();
  for (const std::int64_t expert : expert_degrees(world().size())) {
    const TemporaryFolder folder(world());
    SyntheticModel model(*device, world(), expert);
    model.fill(what);
    const SaveResult saved = save_checkpoint({.folder = folder.path(), .state = state_of_save},
                                             model.store, *model.optimizer, world(), nullptr);
    if (world().rank() != 0) continue;
    const hdf5::File file = hdf5::File::open(saved.path + "/checkpoint.h5");
    EXPECT_EQ(file.integer_attribute("/", "step"), 7);
    for (const Parameter& parameter : model.store.parameters()) {
      int offset = 0;
      for (const SavedPart part : saved_parts_of(parameter.spec().kind)) {
        const hdf5::Dataset dataset =
            file.open_dataset(std::string(group_name_of(part)) + "/" + parameter.name());
        EXPECT_TRUE(dataset.is_virtual());
        ASSERT_EQ(dataset.shape(), parameter.spec().global_shape);
        const std::vector<float> values = dataset.read_all<float>();
        std::int64_t wrong = 0;
        for (std::size_t i = 0; i < values.size(); ++i)
          if (values[i] != formula(what + offset, parameter.index(), static_cast<std::int64_t>(i)))
            ++wrong;
        EXPECT_EQ(wrong, 0) << dataset.name() << " expert " << expert;
        ++offset;
      }
    }
  }
}

}  // namespace
}  // namespace switchyard::test
