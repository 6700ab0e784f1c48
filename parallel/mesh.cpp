#include "parallel/mesh.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr std::int64_t pipeline = 1;

using Partition = std::vector<std::vector<int>>;

std::size_t index_of(Axis axis) {
  return static_cast<std::size_t>(axis);
}

// Rank = (outer * num_middle + middle) * num_inner + inner: the groups of ranks that differ only in
// their middle index.
Partition along_middle(int num_ranks, int num_middle, int num_inner) {
  const int block = num_middle * num_inner;
  Partition partition(static_cast<std::size_t>(num_ranks / num_middle));
  for (int rank = 0; rank < num_ranks; ++rank) {
    const int group = rank / block * num_inner + rank % num_inner;
    partition[static_cast<std::size_t>(group)].push_back(rank);
  }
  return partition;
}

Partition along_inner(int num_ranks, int num_inner) {
  return along_middle(num_ranks, num_inner, 1);
}

Partition along_outer(int num_ranks, int num_inner) {
  return along_middle(num_ranks, num_ranks / num_inner, num_inner);
}

Partition partition_along(Axis axis, int num_ranks, const ParallelConfig& config) {
  const int context = static_cast<int>(config.context);
  const int ulysses = static_cast<int>(config.context_split.ulysses);
  const int ring = static_cast<int>(config.context_split.ring);
  const int expert = static_cast<int>(config.expert);
  switch (axis) {
    case Axis::pipeline:
      return along_inner(num_ranks, 1);
    case Axis::data:
      return along_outer(num_ranks, context);
    case Axis::context:
      return along_inner(num_ranks, context);
    case Axis::context_ring:
      return along_middle(num_ranks, ring, ulysses);
    case Axis::context_ulysses:
      return along_inner(num_ranks, ulysses);
    case Axis::expert:
      return along_inner(num_ranks, expert);
    case Axis::expert_data:
      return along_outer(num_ranks, expert);
    case Axis::world:
    case Axis::dense_replica:
      return along_inner(num_ranks, num_ranks);
  }
  return {};
}

// "1, 2 or 4"
template <class Item>
std::string alternatives(const std::vector<Item>& items) {
  std::string text;
  for (std::size_t i = 0; i < items.size(); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : i + 1 == items.size() ? " or " : ", ", items[i]);
  return text;
}

std::string divisors_of(std::int64_t n) {
  std::vector<std::int64_t> divisors;
  for (std::int64_t d = 1; d <= n; ++d)
    if (n % d == 0) divisors.push_back(d);
  return alternatives(divisors);
}

using Mistakes = std::vector<ConfigMistake>;

// What no number of ranks makes right.
Mistakes wrong_values(const ParallelConfig& config) {
  const ContextConfig& split = config.context_split;
  Mistakes wrong;
  if (config.data < 0)
    wrong.push_back(
        {{"parallel.data"},
         fmt::format("{} is negative; it must be at least 1, or 0 for the ranks that are left",
                     config.data)});
  for (const auto& [key, degree] : {std::pair{"parallel.context", config.context},
                                    {"parallel.expert", config.expert},
                                    {"parallel.bucket_megabytes", config.bucket_megabytes}})
    if (degree < 1) wrong.push_back({{key}, fmt::format("{} must be at least 1", degree)});
  for (const auto& [key, degree] : {std::pair{"parallel.context.ring", split.ring},
                                    {"parallel.context.ulysses", split.ulysses}})
    if (degree < 0)
      wrong.push_back({{key},
                       fmt::format("{} is negative; it must be at least 1, or 0 for what the other "
                                   "leaves",
                                   degree)});
  for (const auto& [key, rate] : {std::pair{"parallel.context.rank_flops", split.rank_flops},
                                  {"parallel.context.link_bytes", split.link_bytes}})
    if (!(rate > 0)) wrong.push_back({{key}, "it must be above 0"});
  return wrong;
}

// The axis and how it is shared, as equations print it: "context 4 (ring 2 x ulysses 2)".
std::string context_text(const ParallelConfig& config) {
  if (config.context == 1) return "context 1";
  return fmt::format("context {} (ring {} x ulysses {})", config.context, config.context_split.ring,
                     config.context_split.ulysses);
}

std::string num_ranks_text(std::int64_t num_ranks) {
  return fmt::format("{} rank{}", num_ranks, num_ranks == 1 ? "" : "s");
}

// The keys of an equation with the size of the context axis.
std::vector<std::string_view> context_keys(std::initializer_list<std::string_view> first) {
  std::vector<std::string_view> keys = first;
  keys.insert(keys.end(),
              {"parallel.context", "parallel.context.ring", "parallel.context.ulysses"});
  return keys;
}

// Fills in what is 0. A mistake unless ring x ulysses = context.
Mistakes resolve_context(ParallelConfig& config) {
  ContextConfig& split = config.context_split;
  if (config.context == 1 && (split.ring > 0 || split.ulysses > 0))
    config.context =
        std::max<std::int64_t>(split.ring, 1) * std::max<std::int64_t>(split.ulysses, 1);
  if (split.ring == 0 && split.ulysses == 0) split.ulysses = 1;
  if (split.ring == 0) split.ring = config.context / split.ulysses;
  if (split.ulysses == 0) split.ulysses = config.context / split.ring;
  if (split.ring * split.ulysses == config.context) return {};
  return {{context_keys({}),
           fmt::format("ring {} x ulysses {} = {}, but context is {}; ring and ulysses may be {}, "
                       "with that product",
                       split.ring, split.ulysses, split.ring * split.ulysses, config.context,
                       divisors_of(config.context))}};
}

// Fills in what is 0. At most one mistake: what comes later would follow from it.
Mistakes resolve_mesh(ParallelConfig& config, std::int64_t num_ranks) {
  if (Mistakes wrong = resolve_context(config); !wrong.empty()) return wrong;
  const std::int64_t num_mesh_ranks = num_ranks / pipeline;
  if (num_ranks % (pipeline * config.context) != 0)
    return {{context_keys({}),
             fmt::format("pipeline {} x data x {} = ranks has no solution: the job has {}; context "
                         "may be {}",
                         pipeline, context_text(config), num_ranks_text(num_ranks),
                         divisors_of(num_mesh_ranks))}};
  const std::int64_t left = num_mesh_ranks / config.context;
  if (config.data == 0) config.data = left;
  const std::int64_t num_wanted = pipeline * config.data * config.context;
  if (num_wanted != num_ranks)
    return {{context_keys({"parallel.data"}),
             fmt::format("pipeline {} x data {} x {} = {}, but the job has {}; data may be {} (or "
                         "0: the ranks that are left)",
                         pipeline, config.data, context_text(config), num_wanted,
                         num_ranks_text(num_ranks), left)}};
  // Whatever data and context are, their product is the ranks.
  if (num_mesh_ranks % config.expert != 0)
    return {{{"parallel.expert"},
             fmt::format("{} does not divide data {} x {} = {}; expert may be {}", config.expert,
                         config.data, context_text(config), num_ranks_text(num_mesh_ranks),
                         divisors_of(num_mesh_ranks))}};
  return {};
}

}  // namespace

std::string_view name_of(Axis axis) {
  switch (axis) {
    case Axis::world:
      return "world";
    case Axis::pipeline:
      return "pipeline";
    case Axis::data:
      return "data";
    case Axis::context:
      return "context";
    case Axis::context_ring:
      return "context_ring";
    case Axis::context_ulysses:
      return "context_ulysses";
    case Axis::expert:
      return "expert";
    case Axis::expert_data:
      return "expert_data";
    case Axis::dense_replica:
      return "dense_replica";
  }
  return "?";
}

std::vector<ConfigMistake> Mesh::mistakes(const ParallelConfig& config, std::int64_t num_ranks) {
  expect(num_ranks >= 1, "at least one rank");
  if (Mistakes wrong = wrong_values(config); !wrong.empty()) return wrong;
  ParallelConfig tried = config;
  return resolve_mesh(tried, num_ranks);
}

ParallelConfig Mesh::resolved(const ParallelConfig& config, std::int64_t num_ranks) {
  require_none(mistakes(config, num_ranks));
  ParallelConfig result = config;
  resolve_mesh(result, num_ranks);
  return result;
}

Mesh::Mesh(Group& world, const ParallelConfig& config)
    : config_(resolved(config, world.size())), world_(&world) {
  for (int i = 0; i < num_axes; ++i) {
    const Axis axis = static_cast<Axis>(i);
    if (axis == Axis::world) continue;
    groups_[i] =
        world.subgroup(std::string(name_of(axis)), partition_along(axis, world.size(), config_));
  }
}

Mesh::Mesh(Device& plan_device, int rank, int num_ranks, const ParallelConfig& config)
    : Mesh(make_plan_group("world", rank, num_ranks, plan_device), config) {}

Mesh::Mesh(std::unique_ptr<Group> world, const ParallelConfig& config) : Mesh(*world, config) {
  owned_world_ = std::move(world);
}

Group& Mesh::group(Axis axis) const {
  return axis == Axis::world ? *world_ : *groups_[index_of(axis)];
}

}  // namespace switchyard
