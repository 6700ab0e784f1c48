#include "bench/machine.hpp"

#include <fmt/core.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "kernels/isa.hpp"
#include "kernels/threads.hpp"

namespace switchyard::bench {

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line))
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

Machine describe_machine(const Group& world, const Versions& versions) {
  Machine machine;
  machine.processor = processor_name();
  machine.num_cores = static_cast<int>(std::thread::hardware_concurrency());
  machine.isa = kernels::name_of(kernels::active_isa());
  machine.native_bf16 = kernels::has_bf16_products();
  machine.num_ranks = world.size();
  machine.num_threads = kernels::num_threads();
  if (getloadavg(&machine.load_average, 1) != 1) machine.load_average = -1;
  machine.versions = versions;
  return machine;
}

std::string to_text(const Machine& machine) {
  std::string text = fmt::format(
      "# processor {}, {} cores; instruction set {}{}\n", machine.processor, machine.num_cores,
      machine.isa, machine.native_bf16 ? "" : " (bf16 products run in fp32 on converted operands)");
  text += fmt::format(
      "# {} {} x {} {}; load average before the run {}\n", machine.num_ranks,
      machine.num_ranks == 1 ? "rank" : "ranks", machine.num_threads,
      machine.num_threads == 1 ? "thread" : "threads",
      machine.load_average < 0 ? "unknown" : fmt::format("{:.2f}", machine.load_average));
  const Versions& versions = machine.versions;
  return text + fmt::format("# switchyard {}, compiler {}, oneDNN {}, {}\n", versions.program,
                            versions.compiler, versions.onednn, versions.mpi);
}

}  // namespace switchyard::bench
