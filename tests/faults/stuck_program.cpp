// Ranks that get stuck by themselves, alive: what signals from outside cannot do. The same session,
// groups and watchdog as in the trainer.
//   stuck_program FOLDER asleep|order|counts|done
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string_view>
#include <thread>

#include "parallel/session.hpp"
#include "tensor/tensor.hpp"
#include "trainer/watch/watchdog.hpp"

namespace switchyard {
namespace {

// Stands for a kernel that does not come back, a file that does not open.
[[gnu::noinline]] void sleep_in_a_layer(Profile& profile) {
  const Profile::LayerScope layer(profile, 2, true);
  const Profile::Scope part(profile, Part::experts);
  std::this_thread::sleep_for(std::chrono::seconds(60));
}

// The last rank sends nothing to the first, which expects a row of it.
void exchange_wrong_counts(Group& world) {
  const std::int64_t num_ranks = world.size();
  std::vector<std::int64_t> send_rows(static_cast<std::size_t>(num_ranks), 1);
  const std::vector<std::int64_t> recv_rows(static_cast<std::size_t>(num_ranks), 1);
  const bool is_last = world.rank() == num_ranks - 1;
  if (is_last) send_rows[0] = 0;
  const std::unique_ptr<Device> device = make_cpu_device();
  const Tensor send(*device, Purpose::communication, DType::f32,
                    {is_last ? num_ranks - 1 : num_ranks, 8});
  const Tensor recv(*device, Purpose::communication, DType::f32, {num_ranks, 8});
  world.all_to_all_v(send, send_rows, recv, recv_rows);
}

void get_stuck(Group& world, Profile& profile, std::string_view how) {
  std::vector<std::vector<int>> everyone(1);
  for (int rank = 0; rank < world.size(); ++rank) everyone[0].push_back(rank);
  const std::unique_ptr<Group> twin = world.subgroup("twin", everyone);
  const bool is_last = world.rank() == world.size() - 1;
  profile.enter_step(7);
  if (how == "asleep" && is_last) sleep_in_a_layer(profile);
  if (how == "order" && is_last) twin->barrier();
  if (how == "counts") exchange_wrong_counts(world);
  world.barrier();
  twin->barrier();
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  using namespace switchyard;
  if (argc != 3) return 2;
  const std::string folder = argv[1];
  Session session(&argc, &argv);
  Group& world = session.world();
  if (world.rank() == 0) {
    std::filesystem::create_directories(folder + "/logs");
    SideFiles::prepare(folder);
  }
  world.barrier();
  const StopSignal stop;
  const WatchdogConfig limits{.setup = 1, .step = 1, .checkpoint = 1};
  Watchdog watchdog(session.log(), world.topology(), limits, folder, &stop);
  watchdog.enter(RunSection::step);
  ImmediateStream clock;
  Profile profile(clock);
  profile.publish_to(session.log().place());
  get_stuck(world, profile, argv[2]);
  return 0;
}
