// Damaged, interrupted and refused checkpoints.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <functional>

#include "tests/support/mpi_test.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/trainer/synthetic_model.hpp"
#include "trainer/agreement.hpp"
#include "trainer/checkpoint/checkpoint.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

class CheckpointFault : public ::testing::Test {
 protected:
  CheckpointFault() : folder_(world()), device_(make_cpu_device()), model_(*device_, world(), 1) {}

  SaveResult save(std::int64_t step, std::int64_t keep = 2, std::int64_t leave_free = 0) {
    model_.fill(static_cast<int>(step));
    return save_checkpoint({.folder = folder_.path(),
                            .state = {.step = step, .num_tokens = step * 10},
                            .configuration = "model: {hidden: 24}\n",
                            .course = course_,
                            .keep = keep,
                            .leave_free_bytes = leave_free},
                           model_.store, *model_.optimizer, world(),
                           [this](const std::string& line) { report_ += line + "\n"; });
  }

  std::optional<std::string> newest() {
    report_.clear();
    return find_newest_valid(folder_.path(), world(),
                             [this](const std::string& line) { report_ += line + "\n"; });
  }

  // Runs on rank 0 alone, between barriers.
  void damage(const std::function<void()>& work) {
    world().barrier();
    if (world().rank() == 0) work();
    world().barrier();
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path()))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  std::string last_rank_file() const { return rank_file_name(world().size() - 1); }

  TemporaryFolder folder_;
  std::unique_ptr<Device> device_;
  SyntheticModel model_;
  std::string report_;
  std::string course_;
};

using Names = std::vector<std::string>;

void flip_byte(const std::string& path, std::size_t at) {
  std::string text = contents_of(path);
  text.at(at) = static_cast<char>(text[at] ^ 0x10);
  write_contents(path, text);
}

TEST_F(CheckpointFault, DamageOfAnyKindFallsBackToTheOneBefore) {
  const std::string older = save(10).path;
  const std::string last = last_rank_file();
  struct Case {
    std::string reason;  // that the report must hold
    std::function<void(const std::string&)> damage;
  };
  const std::vector<Case> cases{
      {"hash", [&](const std::string& p) { flip_byte(p + "/" + last, 100000); }},
      {"hash", [&](const std::string& p) { flip_byte(p + "/" + last, 8); }},
      {"hash", [&](const std::string& p) { flip_byte(p + "/checkpoint.h5", 3000); }},
      {"bytes", [&](const std::string& p) { fs::resize_file(p + "/" + last, 50000); }},
      {"No such file", [&](const std::string& p) { fs::remove(p + "/" + last); }},
      {"manifest.json", [&](const std::string& p) { fs::remove(p + "/manifest.json"); }},
      {"manifest.json", [&](const std::string& p) { fs::resize_file(p + "/manifest.json", 700); }},
      // The file of another step is sound in itself, and may have the same size.
      {last, [&](const std::string& p) {
         fs::copy_file(older + "/" + last, p + "/" + last, fs::copy_options::overwrite_existing);
       }}};
  for (const Case& one : cases) {
    const std::string newer = save(20).path;
    ASSERT_EQ(newest(), newer);
    EXPECT_EQ(report_, "");
    damage([&] { one.damage(newer); });
    EXPECT_EQ(newest(), older);
    if (world().rank() == 0) {
      EXPECT_NE(report_.find("skipping step-00000020"), std::string::npos) << report_;
      EXPECT_NE(report_.find(one.reason), std::string::npos) << report_;
    } else {
      EXPECT_EQ(report_, "");
    }
    damage([&] { fs::remove_all(newer); });
  }
  load_checkpoint(older, model_.store, &*model_.optimizer, world());
  EXPECT_EQ(model_.count_wrong(10, true), 0);
}

TEST_F(CheckpointFault, EveryByteOfTheManifestCounts) {
  const std::string path = save(10).path;
  const std::string manifest = path + "/manifest.json";
  const std::string whole = world().rank() == 0 ? contents_of(manifest) : std::string();
  if (world().rank() == 0) {
    int num_missed = 0;
    for (std::size_t at = 0; at < whole.size(); at += 7) {
      std::string text = whole;
      text[at] = static_cast<char>(text[at] ^ 1);
      try {
        // White space is no content: what is left must be the same manifest.
        if (to_json(parse_manifest(text, "m")) != whole) ++num_missed;
      } catch (const CheckpointError&) {
      }
    }
    EXPECT_EQ(num_missed, 0);
  }
}

TEST_F(CheckpointFault, NothingValidIsSaidSo) {
  EXPECT_EQ(newest(), std::nullopt);
  const std::string path = save(10).path;
  damage([&] { fs::remove(path + "/" + last_rank_file()); });
  EXPECT_EQ(newest(), std::nullopt);
  EXPECT_FALSE(find_damage(path, world(), nullptr).empty());
}

// A run saves and removes while somebody reads: the newer one is read instead.
TEST_F(CheckpointFault, OneThatVanishesWhileItIsReadMakesWayForTheNext) {
  save(10);
  std::vector<std::string> read;
  report_.clear();
  const std::optional<std::string> found = read_newest_valid(
      folder_.path(), world(), [this](const std::string& line) { report_ += line + "\n"; },
      [&](const std::string& path) {
        read.push_back(path);
        if (read.size() == 1) save(20, 1);  // removes step 10
        load_checkpoint(path, model_.store, nullptr, world());
      });
  EXPECT_EQ(found, folder_ / "step-00000020");
  EXPECT_EQ(read, (Names{folder_ / "step-00000010", folder_ / "step-00000020"}));
  if (world().rank() == 0) {
    EXPECT_NE(report_.find("step-00000010 was removed while it was read"), std::string::npos);
  }
  EXPECT_EQ(model_.count_wrong(20, false), 0);
  world().barrier();

  // What is wrong with one that stays is an error.
  const auto fails = [&](const std::string&) {
    run_together(world(), [] { throw CheckpointError("another model"); });
  };
  EXPECT_THROW(read_newest_valid(folder_.path(), world(), nullptr, fails), CheckpointError);
}

TEST_F(CheckpointFault, KeepsTheNewestAndRemovesTheRest) {
  for (const std::int64_t step : {10, 20, 30}) save(step);
  EXPECT_EQ(names(), (Names{"step-00000020", "step-00000030"}));
  save(40, 1);
  EXPECT_EQ(names(), (Names{"step-00000040"}));
  save(40, 1);  // once more: replaces
  EXPECT_EQ(names(), (Names{"step-00000040"}));
  EXPECT_EQ(newest(), folder_ / "step-00000040");
  world().barrier();
}

TEST_F(CheckpointFault, StepsOfACourseThatWasLeftGo) {
  for (const std::int64_t step : {10, 20}) save(step);
  save(15);
  EXPECT_EQ(names(), (Names{"step-00000010", "step-00000015"}));
  if (world().rank() == 0) {
    EXPECT_NE(report_.find("step-00000020"), std::string::npos);
  }
  world().barrier();
}

TEST_F(CheckpointFault, OnlyCheckpointsOfItsOwnCourseAreCountedAndRemoved) {
  save(1);  // of a version that knew no courses
  course_ = "b";
  for (const std::int64_t step : {5, 15, 40}) save(step, 9);
  course_ = "a";
  for (const std::int64_t step : {10, 20, 30, 50}) save(step, 9);
  save(25);
  const Names left = {"step-00000005", "step-00000015", "step-00000020", "step-00000025",
                      "step-00000040"};
  EXPECT_EQ(names(), left);
  world().barrier();
  try {
    save(15);
    FAIL() << "a checkpoint of another course was replaced";
  } catch (const IoError& error) {
    EXPECT_NE(std::string(error.what()).find("step-00000015"), std::string::npos) << error.what();
  }
  EXPECT_EQ(names(), left);
  EXPECT_EQ(course_of_checkpoint(folder_ / "step-00000015"), "b");
  EXPECT_EQ(course_of_checkpoint(folder_ / "step-00000025"), "a");
  world().barrier();
}

TEST_F(CheckpointFault, LeftoversOfAKilledSaveGoAndAreNeverTaken) {
  save(10);
  damage([&] {
    // A save killed before its rename: every file there, even the manifest.
    fs::copy(folder_ / "step-00000010", folder_ / "step-00000020.tmp");
    fs::create_directory(folder_ / "step-00000005.old.tmp");
    fs::create_directory(folder_ / "step-by-step.tmp");  // somebody's
  });
  EXPECT_EQ(newest(), folder_ / "step-00000010");
  world().barrier();
  save(30);
  EXPECT_EQ(names(), (Names{"step-00000010", "step-00000030", "step-by-step.tmp"}));
  world().barrier();
}

TEST_F(CheckpointFault, TooLittleFreeSpaceIsRefusedBeforeAnyFile) {
  save(10);
  try {
    save(20, 2, std::int64_t{1} << 60);
    FAIL() << "no exabyte is free";
  } catch (const IoError& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("a checkpoint"), std::string::npos) << error.what();
  }
  EXPECT_EQ(names(), (Names{"step-00000010"}));
  EXPECT_EQ(newest(), folder_ / "step-00000010");
  world().barrier();
}

// The last rank alone may not write large files: all ranks get its error, nothing stays behind.
TEST_F(CheckpointFault, AFailingWriteOfOneRankFailsTheSaveOnAll) {
  save(10);
  for (const rlim_t limit : {rlim_t{0}, rlim_t{4096}, rlim_t{100000}, rlim_t{500000}}) {
    rlimit before{};
    const bool limited = world().rank() == world().size() - 1;
    if (limited) {
      ::signal(SIGXFSZ, SIG_IGN);
      ::getrlimit(RLIMIT_FSIZE, &before);
      const rlimit tight{limit, before.rlim_max};
      ::setrlimit(RLIMIT_FSIZE, &tight);
    }
    std::string message;
    try {
      save(20);
    } catch (const IoError& error) {
      message = error.what();
    }
    if (limited) ::setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_NE(message.find(last_rank_file()), std::string::npos) << limit << ": " << message;
    EXPECT_EQ(names(), (Names{"step-00000010"}));
    world().barrier();
  }
  EXPECT_EQ(newest(), folder_ / "step-00000010");
  const std::string next = save(20).path;
  EXPECT_EQ(newest(), next);
  world().barrier();
}

TEST_F(CheckpointFault, AnotherModelIsRefusedWithTensorShapesAndKeys) {
  const std::string path = save(10).path;
  const auto message_for = [&](ParameterSpec extra) {
    ParameterStore store(*device_, model_.mesh);
    for (const ParameterSpec& spec : synthetic_specs(model_.mesh))
      store.add(spec.name == extra.name ? extra : spec);
    if (extra.name == "layers.1.norm.weight") store.add(extra);
    store.allocate(40000);
    try {
      load_checkpoint(path, store, nullptr, world());
    } catch (const CheckpointError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const std::string wider = message_for({.name = "embedding.weight",
                                         .global_shape = {1031, 301},
                                         .keys = "model.vocab_size, model.hidden"});
  for (const char* part : {"embedding.weight", "[1031, 300]", "[1031, 301]", "model.vocab_size"})
    EXPECT_NE(wider.find(part), std::string::npos) << wider;
  const std::string deeper = message_for({.name = "layers.1.norm.weight", .global_shape = {23}});
  for (const char* part : {"layers.1.norm.weight", "[23]", "model.num_layers"})
    EXPECT_NE(deeper.find(part), std::string::npos) << deeper;
}

TEST(Agreement, OneRanksErrorReachesAll) {
  const int culprit = world().size() - 1;
  try {
    run_together(world(), [&] {
      if (world().rank() == culprit) throw DataError("the reason");
    });
    FAIL() << "no error on rank " << world().rank();
  } catch (const DataError& error) {
    const std::string wanted =
        world().size() == 1 ? "the reason" : "rank " + std::to_string(culprit) + ": the reason";
    EXPECT_EQ(error.what(), wanted);
  }
  run_together(world(), [] {});
}

}  // namespace
}  // namespace switchyard::test
