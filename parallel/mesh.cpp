#include "parallel/mesh.hpp"

#include <fmt/format.h>

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

// Rank = outer * num_inner + inner. The groups of ranks that differ only in their inner index ...
Partition along_inner(int num_ranks, int num_inner) {
  Partition partition(static_cast<std::size_t>(num_ranks / num_inner));
  for (int rank = 0; rank < num_ranks; ++rank)
    partition[static_cast<std::size_t>(rank / num_inner)].push_back(rank);
  return partition;
}

// ... and of those that differ only in their outer one.
Partition along_outer(int num_ranks, int num_inner) {
  Partition partition(static_cast<std::size_t>(num_inner));
  for (int rank = 0; rank < num_ranks; ++rank)
    partition[static_cast<std::size_t>(rank % num_inner)].push_back(rank);
  return partition;
}

Partition partition_along(Axis axis, int num_ranks, const ParallelConfig& config) {
  const int context = static_cast<int>(config.context);
  const int expert = static_cast<int>(config.expert);
  switch (axis) {
    case Axis::pipeline:
      return along_inner(num_ranks, 1);
    case Axis::data:
      return along_outer(num_ranks, context);
    case Axis::context:
      return along_inner(num_ranks, context);
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
std::string divisors_of(std::int64_t n) {
  std::vector<std::int64_t> divisors;
  for (std::int64_t d = 1; d <= n; ++d)
    if (n % d == 0) divisors.push_back(d);
  std::string text;
  for (std::size_t i = 0; i < divisors.size(); ++i) {
    if (i > 0) text += i + 1 == divisors.size() ? " or " : ", ";
    text += std::to_string(divisors[i]);
  }
  return text;
}

void append_line(std::string& text, const std::string& line) {
  if (!text.empty()) text += '\n';
  text += line;
}

// One line for each value that no number of ranks makes right.
std::string wrong_values(const ParallelConfig& config) {
  std::string wrong;
  if (config.data < 0)
    append_line(wrong, fmt::format("parallel.data: {} is negative; it must be at least 1, or 0 for "
                                   "the ranks that are left",
                                   config.data));
  if (config.context != 1)
    append_line(wrong, fmt::format("parallel.context: a sequence cannot be split over {} ranks; "
                                   "context must be 1",
                                   config.context));
  if (config.expert < 1)
    append_line(wrong, fmt::format("parallel.expert: {} must be at least 1", config.expert));
  if (config.bucket_megabytes < 1)
    append_line(wrong, fmt::format("parallel.bucket_megabytes: {} must be at least 1",
                                   config.bucket_megabytes));
  return wrong;
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
    case Axis::expert:
      return "expert";
    case Axis::expert_data:
      return "expert_data";
    case Axis::dense_replica:
      return "dense_replica";
  }
  return "?";
}

ParallelConfig Mesh::resolved(const ParallelConfig& config, std::int64_t num_ranks) {
  expect(num_ranks >= 1, "at least one rank");
  if (const std::string wrong = wrong_values(config); !wrong.empty()) throw ConfigError(wrong);
  ParallelConfig result = config;
  const std::int64_t left = num_ranks / (pipeline * config.context);
  if (result.data == 0) result.data = left;
  const std::int64_t num_wanted = pipeline * result.data * config.context;
  if (num_wanted != num_ranks)
    throw ConfigError(fmt::format(
        "parallel: pipeline {} x data {} x context {} = {}, but the job has {} rank{}; data may be "
        "{} (or 0: the ranks that are left)",
        pipeline, result.data, config.context, num_wanted, num_ranks, num_ranks == 1 ? "" : "s",
        left));
  if (num_ranks / pipeline % config.expert != 0)
    throw ConfigError(fmt::format(
        "parallel: expert {} does not divide data {} x context {} = {} rank{}; expert may be {}",
        config.expert, result.data, config.context, num_ranks / pipeline,
        num_ranks / pipeline == 1 ? "" : "s", divisors_of(num_ranks / pipeline)));
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
