// The ranks as a mesh of axes, and the group of this rank along each. Attention is split over the
// axes pipeline x data x context; experts fold over the same ranks as pipeline x expert_data x
// expert:
//     pipeline x data x context = pipeline x expert_data x expert = ranks
// Neighbouring ranks share an expert group: rank = (expert_data index) * expert + (expert index),
// and rank = (data index) * context + (context index). Pipeline is 1, and so is context, for now.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "parallel/group.hpp"

namespace switchyard {

// Key `parallel` of a configuration.
struct ParallelConfig {
  std::int64_t data = 0;     // ranks that hold different sequences; 0 takes the ranks that are left
  std::int64_t context = 1;  // ranks that share a sequence
  std::int64_t expert = 1;   // ranks that the experts of a layer are sharded over
  std::int64_t bucket_megabytes = 16;  // of gradients reduced by one exchange
};

enum class Axis : std::uint8_t {
  world,
  pipeline,
  data,
  context,
  expert,
  expert_data,    // replicas of the same experts
  dense_replica,  // data x context: replicas of every parameter that is not an expert's
};
inline constexpr int num_axes = 7;
std::string_view name_of(Axis axis);

class Mesh {
 public:
  // Takes data: 0 as ranks / context. ConfigError with the whole equation, the numbers and the
  // legal values if it does not hold.
  static ParallelConfig resolved(const ParallelConfig& config, std::int64_t num_ranks);

  // Collective over the world.
  Mesh(Group& world, const ParallelConfig& config);
  // The mesh of any rank among any number, on the plan device.
  Mesh(Device& plan_device, int rank, int num_ranks, const ParallelConfig& config);

  Group& group(Axis axis) const;
  int index(Axis axis) const { return group(axis).rank(); }
  int degree(Axis axis) const { return group(axis).size(); }
  const ParallelConfig& config() const { return config_; }

 private:
  Mesh(std::unique_ptr<Group> world, const ParallelConfig& config);

  ParallelConfig config_;
  Group* world_ = nullptr;
  std::unique_ptr<Group> owned_world_;       // the plan's
  std::unique_ptr<Group> groups_[num_axes];  // all but world
};

}  // namespace switchyard
