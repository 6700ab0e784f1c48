// What a figure was measured on: printed at the head of every benchmark.
#pragma once

#include <string>

#include "parallel/group/group.hpp"

namespace switchyard::bench {

// Of the program and its libraries; launch/ knows them from the build.
struct Versions {
  std::string program;
  std::string compiler;  // "GNU 12.2.0"
  std::string onednn;
  std::string mpi;
};

struct Machine {
  std::string processor;
  int num_cores = 0;         // hardware threads of this host
  std::string isa;           // instruction set in force
  bool native_bf16 = false;  // whether bf16 products run as such, or in fp32
  int num_ranks = 0;
  int num_threads = 0;      // of a rank
  double load_average = 0;  // processes wanting to run, mean of the last minute; -1: not told
  Versions versions;
};

Machine describe_machine(const Group& world, const Versions& versions);
// Lines that begin with "# ".
std::string to_text(const Machine& machine);

std::string processor_name();  // from /proc/cpuinfo

}  // namespace switchyard::bench
