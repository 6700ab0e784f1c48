#include "bench/measured_mixers.hpp"

#include "kernels/attention/block_choice.hpp"
#include "kernels/attention/hash_classes.hpp"

namespace switchyard::bench {

std::vector<Measured> measured_of(MixerKind kind) {
  MixerConfig mixer{.kind = kind};
  if (kind == MixerKind::window) mixer.window = 512;
  if (kind == MixerKind::lsh) mixer.window = 64;
  if (kind == MixerKind::hierarchical) {
    mixer.window_blocks = 1;
    mixer.selected = 4;
  }
  if (kind != MixerKind::blocks) return {{std::string(name_of(kind)), mixer}};
  std::vector<Measured> patterns;
  for (const std::string_view name : choice_names(BlockPattern{})) {
    mixer.pattern = *choice_of<BlockPattern>(name);
    patterns.push_back({std::string(name), mixer});
  }
  return patterns;
}

double seen_pairs(const kernels::KeyPattern& pattern, std::int64_t length, std::int64_t num_heads) {
  const PositionRange all{0, length};
  const kernels::BlockQueries asking{.pattern = pattern, .queries = {&all, 1}};
  double pairs = 0;
  if (pattern.has_classes())
    return kernels::count_class_pairs(pattern, {&all, 1}, 1) *
           static_cast<double>(pattern.hash_rounds * num_heads);
  for (const kernels::HeadShare& heads : kernels::head_shares(pattern, num_heads, 0, num_heads)) {
    const kernels::KeyPattern& seen =
        pattern.is_hierarchical() ? pattern.window_alone() : heads.pattern;
    double of_head =
        kernels::count_pairs({.queries = {&all, 1}, .keys = {&all, 1}, .pattern = seen});
    if (pattern.is_hierarchical()) {
      const kernels::BlockCounts counts = kernels::count_blocks(asking);
      of_head += counts.chosen * static_cast<double>(pattern.block) +
                 counts.whole * static_cast<double>(pattern.summaries);
    }
    pairs += of_head * static_cast<double>(heads.end - heads.begin);
  }
  return pairs;
}

bool is_measured_mixer(MixerKind kind) {
  return kind != MixerKind::infini && kind != MixerKind::conv_attention;
}

}  // namespace switchyard::bench
