#include "bench/machine.hpp"

#include <fmt/format.h>

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

std::string describe_machine(Group& world) {
  return fmt::format("# processor {}, {} cores; instruction set {}\n# {} ranks x {} threads; compiler gcc {}\n",
                     processor_name(), std::thread::hardware_concurrency(),
                     kernels::name_of(kernels::active_isa()), world.size(), kernels::num_threads(),
                     __VERSION__);
}

}  // namespace switchyard::bench
