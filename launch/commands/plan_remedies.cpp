#include "launch/commands/plan_remedies.hpp"

#include <fmt/core.h>

#include <vector>

#include "launch/commands/table_text.hpp"
#include "launch/config/relations.hpp"
#include "trainer/number_text.hpp"
#include "trainer/plan.hpp"

namespace switchyard {

namespace {

class Remedies {
 public:
  Remedies(const LoadedConfig& loaded, int num_ranks, std::int64_t vocab_size,
           std::int64_t memory_bytes)
      : loaded_(loaded),
        num_ranks_(num_ranks),
        vocab_size_(vocab_size),
        memory_bytes_(memory_bytes) {}

  std::string text() {
    const LayerPolicy policy = loaded_.config.activations.policy;
    try_change(with(LayerPolicy::recompute, 0), num_ranks_, "activations.policy=recompute");
    try_micro_batches(policy);
    if (policy != LayerPolicy::recompute) try_micro_batches(LayerPolicy::recompute);
    try_change(with(LayerPolicy::spill, 0), num_ranks_, "activations.policy=spill");
    try_more_ranks();
    if (rows_.empty())
      return "No single change was found that fits: a smaller model, or experts on more ranks "
             "(parallel.expert)\n";
    return "Each of these fits:\n" + table_text(rows_);
  }

 private:
  // micro_batch 0: as it is.
  LoadedConfig with(LayerPolicy policy, std::int64_t micro_batch) const {
    LoadedConfig changed = loaded_;
    changed.config.activations.policy = policy;
    if (micro_batch > 0) changed.config.train.micro_batch = micro_batch;
    return changed;
  }

  bool try_change(const LoadedConfig& changed, int num_ranks, const std::string& words) {
    if (!broken_relations(changed, std::vector<bool>(schema().size(), false)).empty() ||
        !broken_relations_for_ranks(changed, num_ranks).empty())
      return false;
    const std::int64_t bytes =
        plan_first_rank(changed.config, num_ranks, vocab_size_, StepRecords::none, memory_bytes_)
            .ranks.front()
            .peak_bytes;
    if (bytes > memory_bytes_) return false;
    rows_.push_back({words, format_bytes(static_cast<double>(bytes))});
    return true;
  }

  // The largest that fits.
  void try_micro_batches(LayerPolicy policy) {
    const std::int64_t data = resolved_data();
    const std::int64_t all = loaded_.config.train.global_batch / data;
    const std::int64_t now =
        loaded_.config.train.micro_batch > 0 ? loaded_.config.train.micro_batch : all;
    const bool changes_policy = policy != loaded_.config.activations.policy;
    for (std::int64_t size = now - 1; size >= 1; --size) {
      if (all % size != 0) continue;
      const std::string words = fmt::format("train.micro_batch={}{}", size,
                                            changes_policy ? " activations.policy=recompute" : "");
      if (try_change(with(policy, size), num_ranks_, words)) return;
    }
  }

  void try_more_ranks() {
    constexpr int most = 64;
    for (int factor = 2; factor <= most; factor *= 2) {
      LoadedConfig changed = loaded_;
      changed.config.parallel.data = 0;
      if (try_change(changed, num_ranks_ * factor,
                     fmt::format("--ranks {} parallel.data=0", num_ranks_ * factor)))
        return;
    }
  }

  std::int64_t resolved_data() const {
    return Mesh::resolved(loaded_.config.parallel, num_ranks_).data;
  }

  const LoadedConfig& loaded_;
  int num_ranks_;
  std::int64_t vocab_size_;
  std::int64_t memory_bytes_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace

std::string remedies_text(const LoadedConfig& loaded, int num_ranks, std::int64_t vocab_size,
                          std::int64_t memory_bytes) {
  return Remedies(loaded, num_ranks, vocab_size, memory_bytes).text();
}

}  // namespace switchyard
