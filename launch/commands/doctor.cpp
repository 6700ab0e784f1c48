// switchyard doctor: what the machines of a job have, and what is wrong with them.
#include <fmt/core.h>

#include <cstdio>
#include <cstdlib>

#include "launch/commands/commands.hpp"
#include "launch/doctor/doctor.hpp"
#include "launch/options.hpp"
#include "launch/version.hpp"
#include "trainer/watch/temporary_watch.hpp"

namespace switchyard {

namespace {

void check_versions(const Launcher& launcher, doctor::Diagnosis& diagnosis) {
  const char* locking = std::getenv("HDF5_USE_FILE_LOCKING");
  diagnosis.add(doctor::Grade::ok, "versions",
                fmt::format("switchyard {} ({}), built with oneDNN {}, HDF5 {}, {}; started by {}",
                            version::program, version::build_type, version::onednn, version::hdf5,
                            version::mpi_library, launcher.name.empty() ? "hand" : launcher.name));
  if (std::string_view(version::build_type) != "Release")
    diagnosis.add(doctor::Grade::warn, "versions",
                  fmt::format("this is a {} build", version::build_type),
                  "train with the release build: launch/build.sh");
  if (locking != nullptr)
    diagnosis.add(doctor::Grade::ok, "versions", fmt::format("HDF5_USE_FILE_LOCKING={}", locking));
}

}  // namespace

int run_doctor(const CommandContext& context) {
  std::string folder = ".";
  bool json = false;
  double limit = 120;
  doctor::ExpertLayer layer{.num_experts = 64, .top_k = 8};
  Options options("doctor",
                  "[--folder FOLDER] [--experts N] [--top-k K] [--limit SECONDS] [--json]",
                  "Looks at the machines of a job: hosts, cores, binding, memory, what moves bytes "
                  "between ranks and how fast, and the folder that runs write to. Each line is ok, "
                  "warn or fail; what is not ok has one remedy. Alone it looks at this machine; "
                  "COMMAND=doctor launch/mpirun.sh, or srun, at all ranks of a job. Takes some "
                  "seconds. The exit code is 6 if a line fails, else 0.");
  options
      .add_path("folder", "FOLDER", folder, "the folder to probe: run.output, or where it will be")
      .add("limit", "SECONDS", limit,
           "without progress of any rank, then the ranks that hang are named; 0: none (120)")
      .add("experts", "N", layer.num_experts,
           "of a layer, spread over all ranks: for these the kind of dispatch is named (64)")
      .add("top-k", "K", layer.top_k, "experts of a token (8)")
      .add("json", json, "print JSON, with all figures in plain units");
  if (!options.parse(context.arguments)) return 0;
  require_limit("doctor", limit);
  constexpr std::int64_t most_experts = 1 << 20;
  if (layer.num_experts < 1 || layer.num_experts > most_experts || layer.top_k < 1 ||
      layer.top_k > layer.num_experts)
    throw UsageError(
        "doctor", fmt::format("--experts must be 1 to {}, --top-k 1 to the experts", most_experts));

  Group& world = context.session->world();
  doctor::Diagnosis diagnosis;
  // A network that does not deliver is what doctor is called for: it must not wait in silence.
  TemporaryWatch watch(world, context.session->log(), same_limit(limit),
                       place_for_watch(world.topology()), "doctor");
  watch.run(world, [&] {
    doctor::check_hosts(world, diagnosis);
    doctor::check_processors(world, diagnosis);
    doctor::check_cards(world, diagnosis);
    doctor::check_transport(world, diagnosis);
    doctor::check_links(world, diagnosis);
    doctor::check_dispatch(world, layer, diagnosis);
    doctor::check_folder(world, folder, diagnosis);
    check_versions(context.launcher, diagnosis);
  });
  if (world.rank() == 0)
    std::fputs((json ? to_json(diagnosis) : to_text(diagnosis, world.size())).c_str(), stdout);
  return static_cast<int>(diagnosis.worst() == doctor::Grade::fail ? ExitCode::io : ExitCode::done);
}

}  // namespace switchyard
