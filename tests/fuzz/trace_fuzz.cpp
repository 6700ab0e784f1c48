// A trace of routing (trainer/routing/trace_format.hpp) in a valid HDF5 container, some of whose
// datasets and attributes are changed as the input says. One that is read is counted as `trace
// show` does it.
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <numeric>

#include "tensor/error.hpp"
#include "tests/fuzz/changed_container.hpp"
#include "tests/fuzz/fuzz_target.hpp"
#include "trainer/routing/trace_format.hpp"
#include "trainer/routing/trace_statistics.hpp"

namespace {

using namespace switchyard;        // NOLINT
using namespace switchyard::fuzz;  // NOLINT

template <class T>
StoredDataset stored(const std::string& name, const Shape& shape, const std::vector<T>& values) {
  StoredDataset dataset{name, shape, hdf5::element_type_of<T>(), {}};
  dataset.bytes.resize(values.size() * sizeof(T));
  std::memcpy(dataset.bytes.data(), values.data(), dataset.bytes.size());
  return dataset;
}

// Two steps of two sequences of three positions; two layers, two of four experts.
Container make_contents() {
  Container contents;
  contents.integers = {{"num_experts", 4}, {"top_k", 2}, {"num_ranks", 1}};
  contents.datasets = {stored<std::int64_t>("layers", {2}, {0, 1}),
                       stored<std::int64_t>("steps", {2}, {1, 2})};
  const Shape shape{2, 2, 3, 2};
  for (const std::int64_t step : {1, 2}) {
    std::vector<std::int32_t> experts(static_cast<std::size_t>(shape.numel()));
    for (std::size_t i = 0; i < experts.size(); ++i)
      experts[i] = static_cast<std::int32_t>(i * 7 % 5) - 1;
    const std::vector<float> weights(experts.size(), 0.5f);
    contents.datasets.push_back(
        stored<std::int64_t>(trace_format::dataset(step, "sequence_ids"), {2}, {2 * step, 9}));
    contents.datasets.push_back(
        stored(trace_format::dataset(step, trace_format::experts), shape, experts));
    contents.datasets.push_back(
        stored(trace_format::dataset(step, trace_format::weights), shape, weights));
  }
  return contents;
}

void create(hdf5::File& file, const StoredDataset& dataset) {
  hdf5::Dataset made = file.create_dataset(dataset.name, dataset.shape, dataset.type);
  if (dataset.shape.numel() > 0) made.write(dataset.bytes.data());
}

void rewrite(hdf5::File& file, const StoredDataset& dataset) {
  file.open_dataset(dataset.name).write(dataset.bytes.data());
}

void read_all(const std::string& path) {
  const TraceReader trace(path);
  const std::vector<LayerTraffic> layers = traffic_of(trace);
  for (const LayerTraffic& layer : layers) {
    const auto all = std::accumulate(layer.loads.begin(), layer.loads.end(), layer.num_dropped);
    if (all != layer.num_tokens * trace.shape().top_k) std::abort();
  }
}

}  // namespace

std::vector<std::string> switchyard::fuzz::seeds() {
  return {std::string("\2\7\0\0\0\0\0\0\0\0\0\0", 12), std::string("\3\4\1\3", 4),
          std::string("\3\3\2\2\4\7\1\1\3\0\0\0\0\0\0\0", 16)};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ChangedFiles files(make_contents(), create, rewrite);
  static std::once_flag once;  // the file of the one rank, which holds nothing
  std::call_once(once, [] {
    hdf5::File::create(
        std::filesystem::path(files.path()).replace_filename(trace_format::rank_file(0)).string());
  });
  Container contents = files.whole();
  Input input(data, size);
  for (int i = 0; i < 8 && !input.is_empty(); ++i) change(contents, input);
  files.write(contents);
  try {
    read_all(files.path());
  } catch (const Error&) {
  }
  return 0;
}
