#include "trainer/activations/activation_setup.hpp"

#include <algorithm>
#include <cstdlib>

#include "trainer/activations/memory_store.hpp"
#include "trainer/activations/spill_file.hpp"

namespace switchyard {

namespace {

constexpr std::int64_t megabyte = 1'000'000;

// Of a file on the plan device: no memory, no file.
class NoStore final : public ActivationStore {
 public:
  bool is_in_memory() const override { return false; }
  void prepare(std::int64_t, std::span<const RecordTensor>, RowCapacity&) override {}
  void start_write(std::int64_t, std::span<const RecordTensor>) override {}
  void start_read(std::int64_t, std::span<const RecordTensor>) override {}
  bool wait_for(std::int64_t, double) override { return true; }
  Statistics statistics() const override { return {}; }
};

}  // namespace

std::string spill_folder(const ActivationsConfig& config) {
  if (config.folder != "auto") return config.folder;
  const char* temporary = std::getenv("TMPDIR");
  return temporary != nullptr && *temporary != '\0' ? temporary : "/tmp";
}

std::unique_ptr<ActivationStore> make_activation_store(Device& device, const Config& config,
                                                       int rank) {
  if (config.activations.policy != LayerPolicy::spill) return nullptr;
  if (config.activations.store == SpillStore::memory) return std::make_unique<MemoryStore>(device);
  if (device.is_plan()) return std::make_unique<NoStore>();
  return std::make_unique<SpillFile>(spill_folder(config.activations), rank);
}

ActivationOptions activation_options(const Config& config, ActivationStore* store,
                                     std::int64_t planned_rows) {
  const ActivationsConfig& wanted = config.activations;
  ActivationOptions options;
  for (std::int64_t layer = 0; layer < config.model.num_layers; ++layer) {
    const bool listed =
        wanted.layers.empty() ||
        std::find(wanted.layers.begin(), wanted.layers.end(), layer) != wanted.layers.end();
    options.policies.push_back(listed ? wanted.policy : LayerPolicy::keep);
  }
  options.memory_bytes = wanted.memory_megabytes * megabyte;
  options.store = store;
  options.planned_rows = planned_rows;
  return options;
}

}  // namespace switchyard
