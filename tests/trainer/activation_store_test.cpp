// The stores of spilled records under the trainer: the bits of keep, the plan's bytes, and a disk
// that is full.
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstring>
#include <filesystem>

#include "data/hdf5/hdf5.hpp"
#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/temporary_folder.hpp"
#include "trainer/activations/copy_thread.hpp"
#include "trainer/activations/spill_file.hpp"

namespace switchyard::test {
namespace {

Config spilling_config(std::int64_t expert, LayerPolicy policy, SpillStore store,
                       const std::string& folder, std::int64_t context = 1) {
  Config config = small_config(expert);
  config.parallel.context = context;
  config.parallel.context_split.pad = config.model.sequence_length % (2 * context) != 0;
  config.model.num_layers = 4;
  config.model.residual_dropout = 0.1;
  config.experts.dropout = 0.1;
  config.activations.policy = policy;
  config.activations.store = store;
  config.activations.folder = folder;
  return config;
}

std::vector<float> values_of(SmallRun& run) {
  std::vector<float> all;
  for (const Parameter& parameter : run.trainer.store().parameters()) {
    if (parameter.value().empty()) continue;
    const std::span<float> values = parameter.value().span<float>();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

// Uneven routing moves from step to step, so the rows differ by step and datasets move.
TEST(ActivationStoreTest, StepsHaveTheBitsOfKeep) {
  const TemporaryFolder folder;
  for (const std::int64_t expert : divisors(world().size()))
    for (const std::int64_t context : divisors(world().size())) {
      SmallRun kept(world(), spilling_config(expert, LayerPolicy::keep, SpillStore::memory,
                                             folder.path(), context));
      const std::vector<StepResult> expected = kept.train(1, 4);
      for (const auto& [policy, store] : {std::pair{LayerPolicy::recompute, SpillStore::memory},
                                          {LayerPolicy::spill, SpillStore::memory},
                                          {LayerPolicy::spill, SpillStore::hdf5}}) {
        SCOPED_TRACE(fmt::format("expert {}, context {}, {} {}", expert, context, name_of(policy),
                                 name_of(store)));
        SmallRun run(world(), spilling_config(expert, policy, store, folder.path(), context));
        const std::vector<StepResult> results = run.train(1, 4);
        for (std::size_t i = 0; i < results.size(); ++i) {
          EXPECT_EQ(results[i].loss, expected[i].loss);
          EXPECT_EQ(results[i].gradient_norm, expected[i].gradient_norm);
        }
        const std::vector<float> values = values_of(run), wanted = values_of(kept);
        ASSERT_EQ(values.size(), wanted.size());
        EXPECT_EQ(std::memcmp(values.data(), wanted.data(), values.size() * sizeof(float)), 0);
        if (policy != LayerPolicy::spill) continue;
        const ActivationStore::Statistics statistics = run.trainer.activation_store()->statistics();
        EXPECT_GT(statistics.bytes_written, 0);
        EXPECT_EQ(statistics.bytes_written + statistics.bytes_read, run.trainer.bytes_spilled());
      }
    }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "files of spilled activations remain";
}

TEST(ActivationStoreTest, ThePlanKnowsTheBytes) {
  const TemporaryFolder folder;
  for (const std::int64_t expert : divisors(world().size()))
    for (const auto& [policy, store] : {std::pair{LayerPolicy::keep, SpillStore::memory},
                                        {LayerPolicy::recompute, SpillStore::memory},
                                        {LayerPolicy::spill, SpillStore::memory},
                                        {LayerPolicy::spill, SpillStore::hdf5}}) {
      SCOPED_TRACE(fmt::format("expert {}, {} {}", expert, name_of(policy), name_of(store)));
      const Config config = spilling_config(expert, policy, store, folder.path());
      SmallRun run(world(), config);
      run.train(1, 3);
      const Plan plan = make_plan(config, world().size(), vocab_size, run.trainer.agree_on_rows());
      EXPECT_EQ(run.trainer.peak_memory_bytes(), plan.fullest().peak_bytes);
      const RankPlan& rank =
          plan.ranks[static_cast<std::size_t>(world().rank()) % plan.ranks.size()];
      for (int i = 0; i < num_purposes; ++i) {
        const auto purpose = static_cast<Purpose>(i);
        EXPECT_EQ(run.device->memory().at_peak(purpose), rank.bytes[static_cast<std::size_t>(i)])
            << name_of(purpose);
      }
    }
}

// Behind the computation it shares a core with: Linux tells a thread's own nice value.
TEST(CopyThreadTest, ALowPriorityIsTheThreadsAlone) {
  const int before = ::getpriority(PRIO_PROCESS, 0);
  for (const auto& [priority, lower] :
       {std::pair{CopyThread::Priority::normal, 0}, {CopyThread::Priority::low, 10}}) {
    int seen = -100;
    {
      CopyThread thread(priority);
      thread.start(0, [&] { seen = ::getpriority(PRIO_PROCESS, 0); });
      while (!thread.wait_for(0, 1)) {
      }
    }
    EXPECT_EQ(seen, std::min(before + lower, 19));
  }
  EXPECT_EQ(::getpriority(PRIO_PROCESS, 0), before);
}

// A record of two tensors, one of which follows the rows.
struct SmallRecord {
  SmallRecord()
      : device(make_cpu_device()),
        fixed(*device, Purpose::activation, DType::f32, {64, 16}),
        rows(Tensor::growable(*device, Purpose::activation, DType::bf16, {100'000, 8})) {
    for (std::size_t i = 0; i < fixed->span<float>().size(); ++i)
      fixed->span<float>()[i] = static_cast<float>(i);
  }
  std::vector<RecordTensor> parts(std::int64_t num_rows) {
    rows.grow_rows(num_rows);
    return {{"fixed", &fixed, 64, false}, {"rows", &rows, num_rows, true}};
  }
  void mark(std::int64_t num_rows, std::uint8_t mark) {
    std::memset(rows->data, mark, static_cast<std::size_t>(num_rows * 16));
  }

  std::unique_ptr<Device> device;
  Tensor fixed;
  Tensor rows;
  RowCapacity capacity;
};

void wait_for(SpillFile& file, std::int64_t layer) {
  while (!file.wait_for(layer, 1)) {
  }
}

TEST(SpillFileTest, RecordsOfChangingSizeComeBack) {
  const TemporaryFolder folder;
  SmallRecord record;
  SpillFile file(folder.path(), world().rank());
  for (const std::int64_t layer : {0, 3}) file.prepare(layer, record.parts(0), record.capacity);
  for (const std::int64_t num_rows : {10, 5, 400, 401, 70'000, 1}) {
    for (const std::int64_t layer : {0, 3}) {
      record.parts(num_rows);
      record.mark(num_rows, static_cast<std::uint8_t>(num_rows + layer));
      file.start_write(layer, record.parts(num_rows));
      wait_for(file, layer);
    }
    for (const std::int64_t layer : {3, 0}) {
      record.mark(num_rows, 255);
      std::memset(record.fixed->data, 0, 64 * 16 * 4);
      file.start_read(layer, record.parts(num_rows));
      wait_for(file, layer);
      EXPECT_EQ(record.fixed->span<float>().back(), 64 * 16 - 1);
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(record.rows->data);
      EXPECT_EQ(std::count(bytes, bytes + num_rows * 16, (num_rows + layer) % 256), num_rows * 16);
    }
  }
  const hdf5::File& seen = file.file();
  const std::vector<float> fixed = seen.open_dataset("layers.3/fixed").read_all<float>();
  EXPECT_EQ(fixed[17], 17);
  EXPECT_GE(seen.open_dataset("layers.0/rows").shape()[0], 70'000);
  EXPECT_EQ(seen.open_dataset("layers.0/rows").string_attribute("dtype"), "bf16");
}

class FileSizeLimit {
 public:
  explicit FileSizeLimit(std::int64_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = static_cast<rlim_t>(bytes);
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

void expect_refusal(const std::function<void()>& work) {
  try {
    work();
    FAIL() << "the system takes more than its limit";
  } catch (const IoError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("more bytes"), std::string::npos) << text;
    EXPECT_NE(text.find("activations.folder"), std::string::npos) << text;
    EXPECT_NE(text.find("spilled-"), std::string::npos) << text;
  }
}

TEST(SpillFileTest, AFullDiskIsOneClearError) {
  const TemporaryFolder folder;
  SmallRecord record;
  {
    SpillFile file(folder.path(), world().rank());
    file.prepare(0, record.parts(0), record.capacity);
    const FileSizeLimit limit(200'000);
    expect_refusal([&] { file.start_write(0, record.parts(50'000)); });  // more room
  }
  {
    SpillFile file(folder.path(), world().rank());
    const FileSizeLimit limit(20'000);
    expect_refusal([&] { file.prepare(0, record.parts(0), record.capacity); });  // at the start
  }
  {
    SpillFile file(folder.path(), world().rank());
    file.start_write(0, record.parts(50'000));
    wait_for(file, 0);
    const FileSizeLimit limit(1'000);  // in the copying thread
    expect_refusal([&] {
      file.start_write(0, record.parts(50'000));
      wait_for(file, 0);
    });
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace switchyard::test
