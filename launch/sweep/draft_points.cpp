#include "launch/sweep/draft_points.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "tensor/random.hpp"

namespace switchyard {
namespace {

void add(Settings& settings, const Settings& more) {
  settings.insert(settings.end(), more.begin(), more.end());
}

// Replaces every draft by those that `each` makes of it.
template <class Each>
void expand(std::vector<DraftPoint>& drafts, const Each& each) {
  std::vector<DraftPoint> more;
  for (const DraftPoint& draft : drafts) each(draft, more);
  drafts = std::move(more);
}

std::string drawn_value(const RandomDraw& draw, std::int64_t seed, std::int64_t number) {
  const RandomKey key = random_key(static_cast<std::uint64_t>(seed), "draw " + draw.key);
  const auto words = random_words(key, static_cast<std::uint64_t>(number), 0);
  // In [0, 1), 53 bits.
  const double share =
      static_cast<double>((std::uint64_t{words[0]} << 21) | (words[1] >> 11)) * 0x1p-53;
  if (!draw.choices.empty()) {
    const auto index = static_cast<std::size_t>(share * static_cast<double>(draw.choices.size()));
    return draw.choices[index];
  }
  double value = draw.is_log ? draw.from * std::pow(draw.to / draw.from, share)
                             : draw.from + (draw.to + (draw.is_whole ? 1 : 0) - draw.from) * share;
  if (draw.is_whole) {
    value = std::clamp(draw.is_log ? std::round(value) : std::floor(value), draw.from, draw.to);
    return fmt::format("{}", static_cast<std::int64_t>(value));
  }
  return fmt::format("{:.4g}", value);  // no more digits than a person would write
}

void expand_random(const RandomDraws& random, std::vector<DraftPoint>& drafts) {
  expand(drafts, [&](const DraftPoint& draft, std::vector<DraftPoint>& more) {
    for (std::int64_t number = 0; number < random.num_points; ++number) {
      more.push_back(draft);
      for (const RandomDraw& draw : random.draws)
        more.back().settings.emplace_back(draw.key, drawn_value(draw, random.seed, number));
    }
  });
}

void expand_set(const PointSetConfig& set, std::vector<DraftPoint>& drafts) {
  for (const auto& [key, values] : set.grid)
    expand(drafts,
           [&, &name = key, &all = values](const DraftPoint& draft, std::vector<DraftPoint>& more) {
             for (const std::string& value : all) {
               more.push_back(draft);
               more.back().settings.emplace_back(name, value);
             }
           });
  if (!set.list.empty())
    expand(drafts, [&](const DraftPoint& draft, std::vector<DraftPoint>& more) {
      for (const Settings& settings : set.list) {
        more.push_back(draft);
        add(more.back().settings, settings);
      }
    });
  if (set.random) expand_random(*set.random, drafts);
  if (set.scaling)
    expand(drafts, [&](const DraftPoint& draft, std::vector<DraftPoint>& more) {
      for (const std::int64_t ranks : set.scaling->ranks) {
        more.push_back(draft);
        more.back().ranks = ranks;
        if (set.scaling->kind == ScalingKind::weak) more.back().batch_factor = ranks;
      }
    });
  if (set.iso_flop)
    expand(drafts, [&](const DraftPoint& draft, std::vector<DraftPoint>& more) {
      for (const double budget : set.iso_flop->budgets)
        for (const Settings& size : set.iso_flop->sizes) {
          more.push_back(draft);
          add(more.back().settings, size);
          more.back().budget = budget;
        }
    });
}

}  // namespace

std::vector<DraftPoint> draft_points(const StudyConfig& study) {
  std::vector<DraftPoint> all;
  for (const PointSetConfig& set : study.sets) {
    std::vector<DraftPoint> drafts(1);
    drafts.front().set = &set;
    drafts.front().settings = set.set;
    drafts.front().ranks = study.ranks;
    expand_set(set, drafts);
    all.insert(all.end(), drafts.begin(), drafts.end());
  }
  return all;
}

}  // namespace switchyard
