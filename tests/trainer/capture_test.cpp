// Captured activations against those of the same step seen directly, on this layout and on one
// rank; read back by our own reader and by h5py.
#include "trainer/activations/capture.hpp"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"
#include "tests/support/temporary_folder.hpp"

namespace switchyard::test {
namespace {

using Row = std::vector<float>;
using TokenKey = std::tuple<std::int64_t, ObservedTensor, std::int64_t, std::int64_t>;

// What every token of this rank showed, by layer, tensor, sequence and position.
class Recorder final : public ActivationObserver {
 public:
  explicit Recorder(const BatchLayout& layout) {
    for (const PositionRange& segment : layout.local_segments())
      for (std::int64_t i = 0; i < segment.count; ++i) positions_.push_back(segment.begin + i);
  }
  void begin(const TensorView& sequence_ids) override {
    const std::span<const std::int64_t> ids = sequence_ids.span<std::int64_t>();
    ids_.assign(ids.begin(), ids.end());
  }
  void observe(std::int64_t layer, ObservedTensor which, const TensorView& seen) override {
    const std::int64_t length = std::ssize(positions_);
    for (std::int64_t row = 0; row < seen.rows(); ++row) {
      Row values;
      for (std::int64_t i = 0; i < seen.cols(); ++i)
        values.push_back(seen.dtype == DType::f32 ? seen.row<float>(row)[i]
                                                  : to_float(seen.row<BFloat16>(row)[i]));
      rows[{layer, which, ids_[static_cast<std::size_t>(row / length)],
            positions_[static_cast<std::size_t>(row % length)]}] = values;
    }
  }
  std::map<TokenKey, Row> rows;

 private:
  std::vector<std::int64_t> positions_;
  std::vector<std::int64_t> ids_;
};

Config capturing_config(const std::string& folder, std::int64_t expert, Precision precision) {
  Config config = small_config(expert);
  config.run.output = folder;
  config.run.precision = precision;
  config.model.num_layers = 3;
  config.experts.every = 2;
  config.capture.steps = {2};
  config.capture.layers = {0, 1};
  return config;
}

// Sequences split over all ranks as well: unequal parts where these do not divide 16.
Config split(Config config) {
  const std::int64_t ranks = world().size();
  config.parallel.context = ranks;
  config.parallel.context_split.pad = config.model.sequence_length % (2 * ranks) != 0;
  return config;
}

std::map<TokenKey, Row> recorded(Group& group, const Config& config) {
  SmallRun run(group, config);
  run.train(1, 1);
  Recorder recorder(run.trainer.batch_layout());
  run.trainer.observe_with(&recorder);
  run.train(2, 2);
  return recorder.rows;
}

std::string capture(const Config& config) {
  SmallRun run(world(), config);
  Capture capture(config, run.trainer.batch_layout(), world());
  std::string path;
  for (std::int64_t step = 1; step <= 2; ++step) {
    if (capture.wants(step)) {
      capture.begin_step(step);
      run.trainer.observe_with(&capture);
    }
    run.train(step, step);
    if (capture.wants(step)) capture.end_step();
    run.trainer.observe_with(nullptr);
    capture.advance();
  }
  capture.finish();
  return capture.path_of(2);
}

// Largest difference of a captured number from the recorded one, over the recorded tokens of the
// chosen layers.
double largest_difference(const std::string& path, const std::map<TokenKey, Row>& rows) {
  const hdf5::File file = hdf5::File::open(path + "/capture.h5");
  const std::vector<std::int64_t> ids = file.open_dataset("sequence_ids").read_all<std::int64_t>();
  std::map<std::string, std::pair<Shape, std::vector<float>>> datasets;
  double largest = 0;
  std::int64_t num_compared = 0;
  for (const auto& [key, row] : rows) {
    const auto& [layer, which, id, position] = key;
    if (layer > 1) continue;
    const std::string name = fmt::format("layers.{}/{}", layer, name_of(which));
    if (!datasets.contains(name)) {
      const hdf5::Dataset dataset = file.open_dataset(name);
      datasets[name] = {dataset.shape(), dataset.read_all<float>()};
    }
    const auto& [shape, values] = datasets.at(name);
    EXPECT_EQ(shape, (Shape{std::ssize(ids), shape[1], std::ssize(row)}));
    const std::int64_t sequence = std::lower_bound(ids.begin(), ids.end(), id) - ids.begin();
    const std::int64_t begin = (sequence * shape[1] + position) * shape[2];
    for (std::size_t i = 0; i < row.size(); ++i)
      largest =
          std::max<double>(largest, std::abs(values[static_cast<std::size_t>(begin) + i] - row[i]));
    ++num_compared;
  }
  EXPECT_GT(num_compared, 0);
  EXPECT_EQ(datasets.size(), 5u);  // layer 0 has no experts
  return largest;
}

void expect_what_the_step_had(const Config& config) {
  const TemporaryFolder folder(world());
  Config here = config;
  here.run.output = folder.path();
  const std::string path = capture(here);
  EXPECT_EQ(largest_difference(path, recorded(world(), here)), 0);
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
  if (here.run.precision == Precision::bf16) return;
  const std::unique_ptr<Group> alone = make_local_group("world");
  EXPECT_LT(largest_difference(path, recorded(*alone, capturing_config("", 1, Precision::fp32))),
            1e-4);
}

TEST(CaptureTest, HoldsWhatTheStepHad) {
  for (const std::int64_t expert : divisors(world().size()))
    for (const Precision precision : {Precision::fp32, Precision::bf16}) {
      SCOPED_TRACE(fmt::format("expert {}, {}", expert, name_of(precision)));
      expect_what_the_step_had(capturing_config("", expert, precision));
      expect_what_the_step_had(split(capturing_config("", expert, precision)));
    }
}

// Whole and split sequences: the same file to a reader, with every number compressed.
// What a layer does with its record changes nothing: computing it again shows nothing twice.
TEST(CaptureTest, HoldsTheSameUnderEveryPolicy) {
  const TemporaryFolder folder(world());
  Config config = split(capturing_config(folder.path(), world().size(), Precision::fp32));
  config.model.num_layers = 4;
  config.model.mixer = {{.kind = MixerKind::window, .window = 5, .sinks = 1},
                        {.kind = MixerKind::full, .window = 0, .sinks = 0}};
  const std::map<TokenKey, Row> kept = recorded(world(), config);
  for (const auto& [policy, store] : {std::pair{LayerPolicy::recompute, SpillStore::memory},
                                      {LayerPolicy::spill, SpillStore::memory},
                                      {LayerPolicy::spill, SpillStore::hdf5}})
    for (const std::vector<std::int64_t>& layers :
         {std::vector<std::int64_t>{}, std::vector<std::int64_t>{0, 2, 3}}) {
      SCOPED_TRACE(fmt::format("{} {}, {} layers", name_of(policy), name_of(store), layers.size()));
      config.activations.policy = policy;
      config.activations.store = store;
      config.activations.layers = layers;
      config.activations.folder = folder.path();
      EXPECT_EQ(largest_difference(capture(config), kept), 0);
    }
}

TEST(CaptureTest, H5pyReadsItInFiveLines) {
  const TemporaryFolder whole_folder(world()), split_folder(world());
  const std::string whole = capture(capturing_config(whole_folder.path(), 1, Precision::fp32));
  const std::string parts =
      capture(split(capturing_config(split_folder.path(), world().size(), Precision::fp32)));
  if (world().rank() != 0) return;
  const std::string interpreter = "/usr/bin/python3 -c ";
  if (std::system((interpreter + "'import h5py' 2>/dev/null").c_str()) != 0) {
    std::cout << "NOT TESTED: h5py reads captures (Debian's python3-h5py is not installed)\n";
    return;
  }
  const std::string program = fmt::format(
      "import h5py, numpy\n"
      "def read(folder):\n"
      "  for rank in range({}):\n"
      "    with h5py.File(folder + \"/rank-%d.h5\" % rank) as f:\n"
      "      chunks = []\n"
      "      f.visititems(lambda name, x: chunks.append(x) if \"layers\" in name and hasattr(x, "
      "\"dtype\") else None)\n"
      "      assert chunks and all(x.compression == \"gzip\" for x in chunks), chunks\n"
      "  with h5py.File(folder + \"/capture.h5\") as f:\n"
      "    ids = f[\"sequence_ids\"][:]\n"
      "    assert list(ids) == list(range(24, 48)), ids\n"
      "    return [f[\"layers.1/\" + x][:] for x in (\"hidden\", \"attention_lse\", "
      "\"gate_probs\")]\n"
      "whole, parts = read(\"{}\"), read(\"{}\")\n"
      "assert parts[0].shape == (24, 16, 32) and parts[0].dtype == numpy.float32, parts[0]\n"
      "assert numpy.all(numpy.abs(parts[0]).sum(axis=2) > 0)\n"
      "assert numpy.allclose(parts[2].sum(axis=2), 1, atol=1e-5)\n"
      "assert all(numpy.allclose(a, b, atol=1e-4) for a, b in zip(whole, parts))\n",
      world().size(), whole, parts);
  EXPECT_EQ(std::system((interpreter + "'" + program + "'").c_str()), 0);
}

}  // namespace
}  // namespace switchyard::test
